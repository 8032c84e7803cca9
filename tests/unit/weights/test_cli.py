"""`portcullis weights` as a person uses it: sealing, signing, opening by permission, and every way of being told no."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.compose import Management, build
from cli.main import run
from cli.session import Session
from core.errors import EvidenceUnavailable
from core.ids import uuid7
from core.names import ModelRef
from evidence.reader import Reader
from lineage.models import Models
from lineage.statements import approve
from tests.conftest import ROOT
from weights import signing
from weights.files import sweep

REF = ModelRef("llama-3", "7")
CONFIG = {
    "tenants": {"acme": {"teams": {}}},
    "grants": [{"id": "w", "tenant": "acme", "domain": "weights", "model": "llama-3", "roles": ["operator"]}],
}
CARD = dict.fromkeys(("title", "limitations", "training_data", "evaluation", "contact", "risk_class"), "said") | {
    "intended_purposes": ["search"]
}
Call = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def portcullis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command with --json in a folder that is set up; gives exit status, what it printed, and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("operator.yaml").write_text(yaml.safe_dump(CONFIG))
    Path("portcullis.yaml").write_text(yaml.safe_dump({"tenant": "acme", "config": ["operator.yaml"]}))
    Path("plain").mkdir()
    Path("plain", "config.json").write_text('{"layers": 2}')
    Path("plain", "weights.bin").write_bytes(os.urandom(3_000_000))

    def call(*arguments: str) -> tuple[int, Any, str]:
        try:
            run([*arguments, "--json"])
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return status, json.loads(captured.out) if captured.out else None, captured.err

    return call


def rooms(work: Callable[[Management], Any]) -> Any:
    """Does in the state folder what other commands are for."""

    async def whole() -> Any:
        management = await build(Session().settings, {})
        try:
            return await work(management)
        finally:
            await management.close()

    return asyncio.run(whole())


async def register(management: Management) -> None:
    by = management.operator("test")
    await management.datasets.register(ModelRef("web", "1"), by=by, origin="crawl", basis="given")
    await management.models.register(REF, by=by, datasets=[ModelRef("web", "1")])
    await management.models.set_card(REF, CARD, by=by)


async def approve_twice(management: Management, digest: str) -> None:
    async with management.engine() as engine:
        for person in ("ann", "bob"):
            key = Ed25519PrivateKey.generate()
            pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            await management.approvers.register_approver(person, pem, by=management.operator("test"))
            envelope = approve(key, tenant="acme", model=REF, manifest_digest=digest, issued_unix=1)
            await management.approvals(engine).submit("acme", envelope)


async def records(management: Management) -> list[dict[str, Any]]:
    management.sequencer.integrate_if_free()
    return list(Reader(Path(management.settings.evidence.dir)).records())


def test_from_plain_to_sealed_to_signed_to_opened(portcullis: Call) -> None:
    rooms(register)
    assert portcullis("weights", "keygen")[1]["kek"].startswith("local-")
    assert portcullis("weights", "keygen", "--signing", "release.pem")[1]["public"] == "release.pem.pub"
    status, sealed, _ = portcullis("weights", "seal", "plain", "sealed", "--model", str(REF))
    assert (status, sealed["files"], sealed["uri"]) == (0, 2, f"sealed://sealed@{sealed['manifest']}")
    assert rooms(lambda m: m.registry.model("acme", REF)).manifest_digest == sealed["manifest"]

    status, denied, _ = portcullis("weights", "open", "sealed", "opened", "--model", str(REF))
    assert (status, denied["decision"]["violations"][0]["rule"]) == (1, "weights/key-release")
    assert (denied["decision"]["allow"], denied["error"]["code"]) == (False, "weights/key-release")
    assert "approved by 0 people" in denied["error"]["message"]
    assert not Path("opened").exists()

    rooms(lambda m: approve_twice(m, sealed["manifest"]))
    assert portcullis("weights", "sign", "sealed", "--key", "release.pem")[0] == 0
    status, verified, _ = portcullis("weights", "verify", sealed["uri"], "--key", "release.pem.pub")
    assert (status, verified["signature"]) == (0, "verified")
    status, seen, _ = portcullis("weights", "inspect", "sealed")
    assert (status, seen["signed"], [file["path"] for file in seen["files"]]) == (0, True, ["config.json", "weights.bin"])
    status, opened, _ = portcullis("weights", "open", sealed["uri"], "opened", "--model", str(REF))
    assert (status, opened["opened"], opened["decision"]["allow"]) == (0, "opened", True)
    assert {path.name: path.read_bytes() for path in Path("opened").iterdir()} == {
        path.name: path.read_bytes() for path in Path("plain").iterdir()
    }
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0, "no core dump could hold the key"
    found = [record["decision"]["allow"] for record in rooms(records) if record["kind"] == "key_release"]
    assert found == [False, True]


@pytest.fixture
def sealed(portcullis: Call) -> Path:
    for command in (
        ("keygen",), ("keygen", "--signing", "release.pem"), ("seal", "plain", "sealed"), ("sign", "sealed", "--key", "release.pem"),
    ):  # fmt: skip
        assert portcullis("weights", *command)[0] == 0
    return Path("sealed")


def _change(folder: Path) -> None:
    with (folder / "weights.bin.floe").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"x")


def _stranger(folder: Path) -> None:
    Path("release.pem.pub").unlink()
    Path("release.pem").unlink()
    signing.generate(Path("release.pem"))


NOT_VERIFIED: dict[str, Callable[[Path], object]] = {
    "a changed byte": _change,
    "a file more": lambda folder: (folder / "extra.py").write_text("import os"),
    "a file less": lambda folder: (folder / "config.json.floe").unlink(),
    "no signature": lambda folder: (folder / "model.sig").unlink(),
    "somebody else's key": _stranger,
}


@pytest.mark.parametrize("name", NOT_VERIFIED)
def test_row_17_what_does_not_verify_ends_with_1(name: str, sealed: Path, portcullis: Call) -> None:
    NOT_VERIFIED[name](sealed)
    status, told, _ = portcullis("weights", "verify", "sealed", "--key", "release.pem.pub")
    assert (status, told["error"]["code"]) in {(1, "seal_broken"), (1, "bad_signature")}


def test_another_manifest_than_the_one_named(sealed: Path, portcullis: Call) -> None:
    other = "sha256:" + "0" * 64
    for arguments in (("verify", "sealed", "--digest", other), ("verify", f"sealed://sealed@{other}")):
        assert portcullis("weights", *arguments)[0] == 1
    assert portcullis("weights", "open", f"sealed://sealed@{other}", "out", "--model", str(REF))[0] == 1
    assert portcullis("weights", "verify", "sealed", "--digest", "sha256:0")[0] == 2
    ours = portcullis("weights", "inspect", "sealed")[1]["manifest"]
    assert portcullis("weights", "verify", f"sealed://sealed@{ours}", "--digest", other)[0] == 2


def test_a_broken_folder_is_not_signed(sealed: Path, portcullis: Call) -> None:
    (sealed / "model.sig").unlink()
    _change(sealed)
    assert portcullis("weights", "sign", "sealed", "--key", "release.pem")[0] == 1
    assert not (sealed / "model.sig").exists()


def test_wrong_usage_ends_with_2_and_leaves_nothing(portcullis: Call) -> None:
    assert portcullis("weights", "seal", "plain", "sealed")[1]["error"]["message"].endswith("weights keygen")
    portcullis("weights", "keygen")
    for arguments in (
        ("seal", "plain", "sealed", "--model", "llama-3"),
        ("seal", "plain", "sealed", "--model", str(REF)),
        ("seal", "nowhere", "sealed"),
        ("seal", "plain", "plain"),
        ("open", "plain", "out", "--model", str(REF)),
        ("open", "plain", "plain", "--model", str(REF)),
        ("inspect", "nowhere"),
        ("verify", "sealed://plain"),
    ):
        assert portcullis("weights", *arguments)[0] == 2, arguments
    assert {path.name for path in Path().iterdir()} == {".portcullis", "operator.yaml", "portcullis.yaml", "plain"}


def test_sealed_but_not_registered_says_how_to_go_on(portcullis: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log fails between sealing and registering: the sealed folder stays, and the message says how it comes to count."""

    async def fails(*_: Any, **__: Any) -> None:
        raise EvidenceUnavailable("the evidence log cannot be written")

    rooms(register)
    portcullis("weights", "keygen")
    monkeypatch.setattr(Models, "set_manifest", fails)
    status, told, err = portcullis("weights", "seal", "plain", "sealed", "--model", str(REF))
    assert (status, told["error"]["code"]) == (3, "evidence_unavailable")
    manifest = portcullis("weights", "inspect", "sealed")[1]["manifest"]
    assert f"model register {REF} --manifest {manifest}" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_row_19_ended_in_the_middle_it_leaves_nothing(number: signal.Signals, portcullis: Call, tmp_path: Path) -> None:
    process = sealing(portcullis, tmp_path)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert {path.name for path in tmp_path.iterdir()} == {".portcullis", "operator.yaml", "portcullis.yaml", "plain"}


def test_row_19_what_a_killed_run_left_goes_with_the_next_one(portcullis: Call, tmp_path: Path) -> None:
    process = sealing(portcullis, tmp_path)
    (working,) = tmp_path.glob(".sealed.partial-*")
    sweep(tmp_path / "sealed")
    assert working.exists(), "nobody takes away what a run is writing"
    process.kill()
    process.wait()
    (left,) = tmp_path.glob(".sealed.partial-*")
    Path("plain", "big.bin").unlink()
    others = [tmp_path / name for name in (".sealed.partial-notes", f".other{left.name.removeprefix('.sealed')}")]
    for other in others:
        other.mkdir()
    assert portcullis("weights", "seal", "plain", "sealed")[0] == 0
    assert not left.exists()
    assert all(other.exists() for other in others), "they are somebody else's"


def test_row_19_plain_weights_that_were_left_go_whatever_is_decided(sealed: Path, portcullis: Call, tmp_path: Path) -> None:
    left = tmp_path / f".opened.partial-{uuid7()}"
    left.mkdir(mode=0o700)
    (left / "weights.bin").write_bytes(b"plain")
    assert portcullis("weights", "open", str(sealed), "opened", "--model", str(REF))[0] == 1
    assert not left.exists()


def test_row_19_what_cannot_be_told_from_a_run_at_work_is_reported(
    sealed: Path, portcullis: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without locks (NFS), or somebody else's folder."""

    def no_locks(*_: Any) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    left = tmp_path / f".opened.partial-{uuid7()}"
    left.mkdir(mode=0o700)
    arguments = ("weights", "open", str(sealed), "opened", "--model", str(REF))
    for change in ((fcntl, "flock", no_locks), (os, "geteuid", lambda: 12345)):
        with monkeypatch.context() as patched:
            patched.setattr(*change)
            status, told, _ = portcullis(*arguments)
        assert (status, told["error"]["where"]) == (3, left.name)
        assert "may hold plain weights: delete it by hand" in told["error"]["message"]
        assert left.exists()


def sealing(portcullis: Call, tmp_path: Path) -> subprocess.Popen[bytes]:
    """`weights seal` in the middle of a large file."""
    portcullis("weights", "keygen")
    with Path("plain", "big.bin").open("wb") as file:
        file.truncate(3_000_000_000)
    arguments = [sys.executable, "-m", "cli.main", "weights", "seal", "plain", "sealed"]
    process = subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": str(ROOT)})
    until = time.monotonic() + 20
    while not list(tmp_path.glob(".sealed.partial-*/*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    return process


def test_a_plain_folder_is_signed_and_verified_by_its_signature_alone(portcullis: Call) -> None:
    portcullis("weights", "keygen", "--signing", "release.pem")
    Path("plain", "keys.json").write_text("{}")
    Path("plain", "manifest.json").write_text('{"format": "of its own"}')
    assert portcullis("weights", "sign", "plain", "--key", "release.pem")[0] == 0
    verify = ("weights", "verify", "plain", "--key", "release.pem.pub")
    status, told, _ = portcullis(*verify)
    assert (status, told) == (0, {"manifest": None, "files": 4, "signature": "verified"})
    status, told, _ = portcullis("weights", "verify", "plain")
    assert (status, "give --key" in told["error"]["message"]) == (2, True)
    digest = "sha256:" + "0" * 64
    assert portcullis(*verify, "--digest", digest)[0] != 0, "no manifest has this digest"
    assert portcullis("weights", "verify", f"sealed://plain@{digest}", "--key", "release.pem.pub")[0] != 0
    Path("plain", "keys.json").write_text("[]")
    assert portcullis(*verify)[0] == 1


def test_a_sealed_folder_does_not_pass_for_a_plain_one(sealed: Path, portcullis: Call) -> None:
    (sealed / "manifest.json").unlink()
    assert portcullis("weights", "verify", "sealed", "--key", "release.pem.pub")[0] == 1
    assert portcullis("weights", "verify", "sealed")[0] == 2
