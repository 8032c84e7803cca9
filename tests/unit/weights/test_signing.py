"""OMS signatures over folders (rows 17 and 22 of shared/failure-cases/weights.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.errors import BadInput, BadSignature, Conflict, NotFound
from weights import signing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (made / "manifest.json").write_text('{"format": "portcullis.dev/sealed-weights/v1"}')
    (made / "sub" / "a.floe").write_bytes(b"sealed")
    (made / "keys.json").write_text("[]")
    return made


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.generate(tmp_path / "release.pem")
    return tmp_path / "release.pem"


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def test_signed_and_verified_from_anywhere(folder: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    signing.sign(Path("model"), Path("release.pem"))
    signing.verify(folder, public(key))
    monkeypatch.chdir(folder)
    signing.verify(Path(), public(key))
    assert key.stat().st_mode & 0o777 == 0o600


def test_row_17_extra_changed_missing_and_renamed_files(folder: Path, key: Path) -> None:
    signing.sign(folder, key)
    sealed = folder / "sub" / "a.floe"
    (folder / "extra").write_text("x")
    with pytest.raises(BadSignature, match="NOT VERIFIED"):
        signing.verify(folder, public(key))
    (folder / "extra").unlink()
    for change in (lambda: sealed.write_bytes(b"other"), lambda: sealed.rename(folder / "sub" / "b.floe"), sealed.unlink):
        kept = shutil.copytree(folder, folder.parent / "kept")
        change()
        with pytest.raises(BadSignature):
            signing.verify(folder, public(key))
        shutil.rmtree(folder)
        kept.rename(folder)
    signing.verify(folder, public(key))


def test_a_rewrap_leaves_the_signature_good_and_nothing_else_may_change(folder: Path, key: Path) -> None:
    signing.sign(folder, key)
    (folder / "keys.json").write_text("[1]")
    signing.verify(folder, public(key))
    (folder / "sub" / "keys.json").write_text("[1]")
    with pytest.raises(BadSignature):
        signing.verify(folder, public(key))


def test_what_only_has_the_name_of_wrapped_keys_is_covered(folder: Path, key: Path) -> None:
    """Otherwise whoever ships a signed model could have code in it that no signature covers."""
    signing.sign(folder, key)
    (folder / "keys.json").unlink()
    (folder / "keys.json").mkdir()
    (folder / "keys.json" / "__init__.py").write_text("import os")
    with pytest.raises(BadSignature):
        signing.verify(folder, public(key))
    (folder / "keys.json" / "__init__.py").unlink()
    (folder / "keys.json").rmdir()
    (folder / "keys.json").symlink_to("/etc/hostname")
    with pytest.raises(BadSignature):
        signing.verify(folder, public(key))


def test_what_the_signer_left_out_is_said_to_be_uncovered(folder: Path, key: Path) -> None:
    """OMS lets a signature name paths that it leaves out (`.git` by default); whoever asks here asks about every file."""
    from model_signing import signing as oms

    (folder / "manifest.json").unlink()
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("[core]")
    oms.Config().use_elliptic_key_signer(private_key=key).sign(folder, folder / "model.sig")
    with pytest.raises(BadSignature, match=r"not covered by the signature: \.git/config"):
        signing.verify(folder, public(key))
    shutil.rmtree(folder / ".git")
    (folder / "model.sig").unlink()
    oms.Config().use_elliptic_key_signer(private_key=key).sign(folder, folder / "model.sig")
    assert signing.verify(folder, public(key)) == 2, "signed by another tool, all of it"


@pytest.mark.parametrize("manifest", [None, "{}", "[]", "not json", '{"format": "of its own"}', '{"format": 1}'])
def test_in_a_folder_that_is_not_sealed_keys_json_is_a_file_like_any_other(
    manifest: str | None, folder: Path, key: Path
) -> None:
    (folder / "manifest.json").unlink()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    signing.sign(folder, key)
    assert signing.verify(folder, public(key)) == 2 + (manifest is not None)
    (folder / "keys.json").write_text("[1]")
    with pytest.raises(BadSignature):
        signing.verify(folder, public(key))


def test_row_22_another_model_another_key_another_signature(folder: Path, key: Path, tmp_path: Path) -> None:
    signing.sign(folder, key)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "sub" / "a.floe").write_bytes(b"another model")
    with pytest.raises(BadSignature):
        signing.verify(other, public(key))
    stranger = tmp_path / "stranger.pem"
    signing.generate(stranger)
    with pytest.raises(BadSignature):
        signing.verify(folder, public(stranger))
    signature = folder / "model.sig"
    document = json.loads(signature.read_text())
    for wrong in (b"", b"{}", b"not json", json.dumps({**document, "dsseEnvelope": {}}).encode()):
        signature.write_bytes(wrong)
        with pytest.raises(BadSignature):
            signing.verify(folder, public(key))
    signature.unlink()
    with pytest.raises(BadSignature, match="NOT VERIFIED: there is no signature"):
        signing.verify(folder, public(key))


def test_row_15_links_are_neither_signed_nor_verified(folder: Path, key: Path) -> None:
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(BadInput):
        signing.sign(folder, key)
    (folder / "link").unlink()
    signing.sign(folder, key)
    (folder / "sub" / "a.floe").rename(folder.parent / "a.floe")
    (folder / "sub" / "a.floe").symlink_to(folder.parent / "a.floe")
    with pytest.raises(BadSignature):
        signing.verify(folder, public(key))


def test_clear_errors(folder: Path, key: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        signing.generate(key)
    with pytest.raises(NotFound):
        signing.sign(folder, tmp_path / "none.pem")
    edwards = Ed25519PrivateKey.generate()
    wrong = tmp_path / "ed.pem"
    wrong.write_bytes(edwards.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(BadInput, match="EC private key"):
        signing.sign(folder, wrong)
    assert not (folder / "model.sig").exists()
    signing.sign(folder, key)
    with pytest.raises(Conflict, match="signed already"):
        signing.sign(folder, key)
    wrong.write_bytes(edwards.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(BadInput, match="EC public key"):
        signing.verify(folder, wrong)
    with pytest.raises(NotFound):
        signing.verify(tmp_path / "nowhere", public(key))
