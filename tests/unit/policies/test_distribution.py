"""The bundle file: the same bytes from the same rules, and nothing in it that was not signed."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from core.errors import BadSignature, Broken, ConfigError
from core.settings import Policy, Settings
from policies import distribution
from policies.builtins import ALLOWED, OPERATORS
from policies.check import Loaded, load_tree
from policies.distribution import MANIFEST, SIGNATURES, build, read
from policies.engine import load, load_embedded
from policies.tree import rule_ids
from tests.unit.policies import trees

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_tree()


@pytest.fixture(scope="module")
def signed(loaded: Loaded) -> bytes:
    return build(loaded, wasm=None, tests=34, key=KEY)


def unpacked(data: bytes) -> dict[str, bytes]:
    return distribution._unpacked(data, "test")


def test_the_same_rules_are_the_same_bytes(loaded: Loaded, signed: bytes) -> None:
    assert build(load_tree(), wasm=None, tests=34, key=KEY) == signed
    found = read(signed, key=PUBLIC)
    assert found.revision == loaded.bundle.revision == load_embedded().revision
    assert found.signed
    assert found.about["rules"]["gateway"] == ["gateway/frozen", "gateway/model-access", "gateway/purpose"]
    assert found.about["grants"] == {
        "admission": [],
        "gateway": ["gateway/model-access"],
        "weights": ["weights/key-release"],
        "lineage": ["lineage/approval"],
        "bundle": ["bundle/activation", "bundle/approval"],
    }
    assert {"count", "object.get", "startswith", "|"} <= set(found.about["builtins"]) <= ALLOWED | OPERATORS
    assert found.about["corpus"] is None
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(signed))) as archive:
        assert {(entry.mtime, entry.uid, entry.mode) for entry in archive} == {(0, 0, 0o644)}


def changed(name: str, edit: Callable[[bytes], bytes | None]) -> Callable[[dict[str, bytes]], None]:
    def apply(files: dict[str, bytes]) -> None:
        data = edit(files.get(name, b""))
        if data is None:
            del files[name]
        else:
            files[name] = data

    return apply


RULE = "rules/gateway/purpose/purpose.rego"
TAMPERED: dict[str, Callable[[dict[str, bytes]], None]] = {
    "a byte of Rego": changed(RULE, lambda data: data.replace(b"purpose", b"purpoze", 1)),
    "white space in Rego": changed(RULE, lambda data: data + b"\n"),
    "a value in the manifest": changed(MANIFEST, lambda data: data.replace(b'"rego_version": 1', b'"rego_version": 0')),
    "how many tests passed": changed(MANIFEST, lambda data: data.replace(b'"tests": 34', b'"tests": 35')),
    "what the corpus said": changed(MANIFEST, lambda data: data.replace(b'"corpus": null', b'"corpus": 1')),
    "a file taken away": changed(RULE, lambda _: None),
    "a file added": changed("rules/gateway/more/more.rego", lambda _: b"package x\n"),
    "a module added": changed("policy.wasm", lambda _: b"\0asm"),
    "no signature": changed(SIGNATURES, lambda _: None),
    "an empty signature": changed(SIGNATURES, lambda _: b'{"signatures": []}'),
    "two signatures": changed(SIGNATURES, lambda data: json.dumps({"signatures": json.loads(data)["signatures"] * 2}).encode()),
    "no JSON": changed(SIGNATURES, lambda _: b"x"),
    "half a token": changed(SIGNATURES, lambda _: b'{"signatures": ["a.b"]}'),
    "a token of another kind": changed(SIGNATURES, lambda _: b'{"signatures": ["e30.e30.AAAA"]}'),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_not_signed_is_not_loaded(signed: bytes, name: str) -> None:
    files = unpacked(signed)
    TAMPERED[name](files)
    with pytest.raises(BadSignature):
        read(distribution._packed(files), key=PUBLIC)


def test_a_token_that_says_it_needs_no_signature_is_none(signed: bytes) -> None:
    """`alg: none` and its relatives (RFC 8725, 3.1)."""
    files = unpacked(signed)
    token = json.loads(files[SIGNATURES])["signatures"][0].split(".")
    for header in ({"alg": "none"}, {"alg": "HS256"}, {"alg": "EdDSA", "jwk": {}}, {"alg": "EdDSA", "crit": ["x"]}):
        encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        files[SIGNATURES] = json.dumps({"signatures": [".".join([encoded, *token[1:]])]}).encode()
        with pytest.raises(BadSignature):
            read(distribution._packed(files), key=PUBLIC)


def test_white_space_in_json_is_no_change_and_another_key_is_no_signer(signed: bytes) -> None:
    files = unpacked(signed)
    files[MANIFEST] = json.dumps(json.loads(files[MANIFEST]), indent=4).encode()
    assert read(distribution._packed(files), key=PUBLIC).signed
    with pytest.raises(BadSignature):
        read(signed, key=Ed25519PrivateKey.generate().public_key())


def test_unsigned_it_is_still_held_to_its_manifest(loaded: Loaded) -> None:
    files = unpacked(build(loaded, wasm=b"\0asm module", tests=1))
    for name, edit in {
        "policy.wasm": b"\0asm other",
        RULE: files[RULE] + b"\n",
        MANIFEST: b'{"revision": "x"}',
        "data.json": b"{}",
        "../evil.rego": b"package x",
    }.items():
        with pytest.raises(Broken):
            read(distribution._packed({**files, name: edit}))
    del files["policy.wasm"]
    with pytest.raises(Broken, match="not the module"):
        read(distribution._packed(files))


LIES: dict[str, tuple[str, object]] = {
    "a rule that is not there": ("rules", {"admission": ["admission/more"]}),
    "a grant too few": ("grants", {}),
    "a built-in left out": ("builtins", ["count"]),
    "built-ins in another order": ("builtins", "reversed"),
    "tests that are no number": ("tests", True),
    "a serial below zero": ("serial", -1),
    "a corpus without a digest": ("corpus", {"inputs": 3}),
    "a corpus of another digest": ("corpus", {"inputs": 3, "digest": "sha256:0"}),
    "a corpus that counts in words": ("corpus", {"inputs": "many", "digest": f"sha256:{'0' * 64}"}),
}


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("key", [KEY, None], ids=["signed", "unsigned"])
def test_a_manifest_that_lies_is_refused_whoever_signed_it(loaded: Loaded, name: str, key: Ed25519PrivateKey | None) -> None:
    field, value = LIES[name]
    files = unpacked(build(loaded, wasm=None, tests=34))
    manifest = json.loads(files[MANIFEST])
    about = manifest["metadata"]["portcullis"]
    about[field] = about[field][::-1] if value == "reversed" else value
    files[MANIFEST] = json.dumps(manifest).encode()
    if key is not None:
        files[SIGNATURES] = distribution.sign(files, key)
    with pytest.raises(Broken, match=field):
        read(distribution._packed(files), key=None if key is None else key.public_key())


def test_a_manifest_that_says_nothing_of_a_corpus_is_not_ours(loaded: Loaded) -> None:
    files = unpacked(build(loaded, wasm=None, tests=34))
    files[MANIFEST] = files[MANIFEST].replace(b'"corpus": null, ', b"")
    with pytest.raises(Broken, match="corpus"):
        read(distribution._packed(files))


def test_what_is_no_archive_of_plain_files_is_refused(signed: bytes) -> None:
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w:gz") as archive:
        entry = tarfile.TarInfo("x.rego")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    after = gzip.compress(gzip.decompress(signed) + b"x")
    for data in (b"", b"x", signed[:100], signed[:-1], signed + signed, after, gzip.compress(b"x" * 1000), link.getvalue()):
        with pytest.raises(Broken):
            read(data)


def test_a_bit_that_changed_on_the_way_is_noticed(signed: bytes) -> None:
    """Broken and nothing else is raised, for it is what the last good bundle goes on for; the bits of a date change no content."""
    whole = unpacked(signed)
    places = [*range(40), *range(40, len(signed) - 40, 23), *range(len(signed) - 40, len(signed))]
    noticed = 0
    for place in places:
        data = bytearray(signed)
        data[place] ^= 1 << place % 8
        try:
            assert unpacked(bytes(data)) == whole
        except Broken:
            noticed += 1
    assert noticed > len(places) - 10


def test_a_bundle_with_a_forbidden_built_in_is_refused_however_well_it_is_signed(tmp_path: Path) -> None:
    body = trees.ADMISSION_BODY.replace("20160\n", "20160\n\thttp.send({}).status_code == 200\n")
    tree = trees.write(tmp_path / "a", trees.files())
    files = load_tree(tree).bundle.files()
    name = next(path for path in files if path.startswith("rules/admission/gpu-quota"))
    modules = {path: data.decode() for path, data in files.items() if path != MANIFEST}
    modules[name] = trees.module("admission/gpu-quota", body)
    evil = Loaded(distribution.Bundle(modules), load_tree(tree).catalogue)
    with pytest.raises(ConfigError, match=r"http\.send"):
        read(build(evil, wasm=None, tests=0, key=KEY), key=PUBLIC)


def test_the_settings_choose_bundle_key_and_engine(signed: bytes, loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(signed)
    (tmp_path / "key.pub").write_bytes(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    bundle, key = str(tmp_path / "b.tar.gz"), str(tmp_path / "key.pub")

    def settings(**policy: str) -> Settings:
        return Settings(policy=Policy(**policy))  # type: ignore[arg-type]

    engine = load(settings(bundle=bundle, verify_key=key))
    assert (engine.name, engine.revision) == ("embedded", loaded.bundle.revision), "auto: no module, so the interpreter"
    assert {rule.id for rule in engine.catalogue.rules()} == rule_ids([])
    (tmp_path / "b.tar.gz").write_bytes(build(loaded, wasm=None, tests=34))
    with pytest.raises(BadSignature, match="not signed"):
        load(settings(bundle=bundle, verify_key=key))
    with pytest.raises(ConfigError, match="needs a bundle with a Wasm module"):
        load(settings(bundle=bundle, engine="wasm"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(settings(bundle=str(tmp_path / "none")))
    (tmp_path / "key.pub").write_text("x")
    with pytest.raises(ConfigError, match="verify_key"):
        load(settings(bundle=bundle, verify_key=key))
    for wrong in ({"engine": "wasm"}, {"verify_key": key}, {"bundle": bundle, "extra": ["x"]}):
        with pytest.raises(ValidationError):
            Policy(**wrong)  # type: ignore[arg-type]
