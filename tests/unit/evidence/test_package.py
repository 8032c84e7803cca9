"""Export, then break every part: an honest package verifies, nothing else does."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core.canonical import canonical, sha256
from core.decision import Violation
from core.errors import BadInput, Broken, NotFound
from evidence import verifier
from evidence.commitments import SaltedCommitments
from evidence.notes import Signer
from evidence.package import Exported, export
from evidence.verifier import Verification, VerificationFailed, manifest_text, pack, unpack, verify, verify_bytes
from tests.conftest import ROOT
from tests.unit.evidence.rig import BUNDLE, ORIGIN, REVISION, Rig, decide


async def story(rig: Rig, *, actor: str = "ref:" + "a" * 32) -> None:
    """Two tenants, decisions with inputs, more than one checkpoint."""
    rig.recorder.keep_bundle(REVISION, BUNDLE)
    for number in range(6):
        document = {"now_unix": number, "request": {"route": "chat", "n": number}}
        bad = (Violation("gateway/purpose", "enforce", "purpose", {"n": number}),) if number % 2 else ()
        tenant = "zeta" if number == 2 else "acme"
        await rig.recorder.decision(
            "inference.intent", decide(document, violations=bad), document, actor=actor, tenant=tenant, subject="m@1"
        )
        rig.clock.now += 10
    rig.integrate()


async def made(rig: Rig, tmp_path: Path, **more) -> Exported:
    return await export(tmp_path / "package.zip", rig.folder, origin=ORIGIN, clock=rig.clock, **more)


def checked(rig: Rig, exported: Exported, **more) -> Verification:
    return verify(exported.path, rig.key(), **more)


async def test_a_package_verifies_alone(rig: Rig, tmp_path: Path):
    await story(rig)
    exported = await made(rig, tmp_path)
    result = checked(rig, exported)
    assert result.verified
    assert (result.records, result.withheld, result.first, result.last) == (6, 0, 0, 5)
    assert (result.inputs, result.bundles) == (6, 1)
    with zipfile.ZipFile(exported.path) as archive:  # and it is a zip that others can read
        assert archive.testzip() is None
        assert {"checkpoint", "records.jsonl", "manifest.json", "keys/log.pub", f"bundles/{REVISION[7:]}/.manifest"} <= set(
            archive.namelist()
        )


async def test_equal_content_is_equal_bytes(rig: Rig, tmp_path: Path):
    await story(rig)
    assert (await made(rig, tmp_path)).digest == (await made(rig, tmp_path)).digest


async def test_one_tenant_sees_only_its_own_and_still_no_gap(rig: Rig, tmp_path: Path):
    await story(rig)
    exported = await made(rig, tmp_path, tenant="acme")
    result = checked(rig, exported)
    assert (result.tenant, result.records, result.withheld) == ("acme", 5, 1)
    assert b"zeta" not in exported.path.read_bytes()


async def test_a_window(rig: Rig, tmp_path: Path):
    start = rig.clock.now
    await story(rig)
    result = checked(rig, await made(rig, tmp_path, since=start + 10, until=start + 40))
    assert (result.first, result.last, result.records) == (1, 3, 3)
    with pytest.raises(NotFound, match="nothing was written"):
        await made(rig, tmp_path, since=start + 1000)
    with pytest.raises(NotFound, match="tenant 'nobody'"):
        await made(rig, tmp_path, tenant="nobody")


async def test_without_a_pinned_key_it_is_not_verified(rig: Rig, tmp_path: Path):
    await story(rig)
    exported = await made(rig, tmp_path)
    result = verify(exported.path, None)
    assert not result.verified
    assert result.summary.startswith("consistent, signer not pinned")


async def test_the_earlier_checkpoint(rig: Rig, tmp_path: Path):
    await story(rig)
    earlier = rig.log().checkpoint_note()
    await rig.events(5)
    rig.integrate()
    with pytest.raises(VerificationFailed, match="no consistency proof from size 6"):
        checked(rig, await made(rig, tmp_path), earlier=earlier)
    exported = await made(rig, tmp_path, earlier=earlier)
    assert checked(rig, exported, earlier=earlier).earlier_size == 6
    signer = Signer(ORIGIN, bytes.fromhex((rig.folder / "keys" / "log.key").read_text()))
    forked = signer.checkpoint(6, b"\x01" * 32)
    with pytest.raises(VerificationFailed, match="rewritten"):
        checked(rig, exported, earlier=forked)
    with pytest.raises(VerificationFailed, match="cannot extend"):
        checked(rig, exported, earlier=signer.checkpoint(40, b"\x01" * 32))
    with pytest.raises(Broken, match="rolled back"):
        await made(rig, tmp_path, earlier=signer.checkpoint(40, b"\x01" * 32))
    with pytest.raises(BadInput, match="not a checkpoint"):
        await made(rig, tmp_path, earlier=b"nonsense")


async def test_every_byte_matters(rig: Rig, tmp_path: Path):
    """Every position of a small package would take long, so: all of its first and last kilobytes, and a thousand in between."""
    await rig.events(2)
    rig.integrate()
    exported = await made(rig, tmp_path)
    data, key = exported.path.read_bytes(), rig.key()
    verify_bytes(data, key)
    dice = random.Random(3)
    positions = {*range(600), *range(len(data) - 900, len(data)), *dice.sample(range(len(data)), 1500)}
    for position in sorted(positions):
        changed = bytearray(data)
        changed[position] ^= 1 << dice.randrange(8)
        with pytest.raises(VerificationFailed):
            verify_bytes(bytes(changed), key)
    for cut in dice.sample(range(len(data)), 50):
        with pytest.raises(VerificationFailed):
            verify_bytes(data[:cut], key)
    with pytest.raises(VerificationFailed):
        verify_bytes(data + b"\0", key)


def resigned(files: dict[str, bytes], signer: Signer) -> bytes:
    """The package as its maker would have signed it: everything outside the tree can be made to fit by whoever has the key."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {n: sha256(d) for n, d in files.items() if n not in ("manifest.json", "manifest.note")}
    files = {**files, "manifest.json": canonical(manifest)}
    files["manifest.note"] = signer.sign(manifest_text(signer.name, files["manifest.json"]))
    return pack(files)


def edit_line(name: str, number: int, change: Callable[[dict], None]):
    def edit(files: dict[str, bytes]) -> None:
        lines = files[name].splitlines()
        record = json.loads(lines[number])
        change(record)
        lines[number] = canonical(record)
        files[name] = b"".join(line + b"\n" for line in lines)

    return edit


def drop_line(name: str, number: int):
    def edit(files: dict[str, bytes]) -> None:
        lines = files[name].splitlines(keepends=True)
        files[name] = b"".join(lines[:number] + lines[number + 1 :])

    return edit


def on_manifest(**changes):
    def edit(files: dict[str, bytes]) -> None:
        files["manifest.json"] = canonical({**json.loads(files["manifest.json"]), **changes})

    return edit


def first_of(files: dict[str, bytes], folder: str) -> str:
    return next(name for name in sorted(files) if name.startswith(folder))


def spaced(files):
    lines = files["records.jsonl"].splitlines(keepends=True)
    files["records.jsonl"] = lines[0].replace(b'":', b'": ', 1) + b"".join(lines[1:])


def swapped(files):
    lines = files["records.jsonl"].splitlines(keepends=True)
    files["records.jsonl"] = lines[1] + lines[0] + b"".join(lines[2:])


def drop_last_and_restate(files):
    drop_line("records.jsonl", 5)(files)
    on_manifest(last=4)(files)


FORGERIES = {
    "a verdict": (edit_line("records.jsonl", 1, lambda r: r["decision"].update(allow=True)), "seq 1"),
    "an actor": (edit_line("records.jsonl", 1, lambda r: r.update(actor="ref:" + "b" * 32)), "seq 1"),
    "a time": (edit_line("records.jsonl", 1, lambda r: r.update(time=1)), "seq 1"),
    "a seq": (edit_line("records.jsonl", 5, lambda r: r.update(seq=6)), "seq"),
    "a tenant": (edit_line("records.jsonl", 1, lambda r: r.update(tenant="zeta")), "seq 1"),
    "an unknown field": (edit_line("records.jsonl", 1, lambda r: r.update(extra=1)), "not a record"),
    "an id twice": (edit_line("records.jsonl", 1, lambda r: r.update(id="x")) , "seq 1"),
    "a record left out": (drop_line("records.jsonl", 2), "seq 2 is missing"),
    "a record left out, with its proof": (lambda f: (drop_line("records.jsonl", 2)(f), drop_line("proofs/inclusion.jsonl", 2)(f)), "seq 2 is missing"),
    "the last record left out": (drop_line("records.jsonl", 5), "seq 5 is missing"),
    "the last record left out and the range restated": (drop_last_and_restate, "6 inclusion proofs for 5"),
    "white space in a record": (spaced, "canonical"),
    "records swapped": (swapped, "seq does not rise"),
    "a proof left out": (drop_line("proofs/inclusion.jsonl", 0), "5 inclusion proofs"),
    "proofs swapped": (lambda f: f.update({"proofs/inclusion.jsonl": b"".join(f["proofs/inclusion.jsonl"].splitlines(keepends=True)[::-1])}), "seq"),
    "a withheld leaf in a package of all": (lambda f: f.update({"proofs/withheld.json": canonical({"9": "AAAA"})}), "withholds"),
    "an input": (lambda f: f.update({first_of(f, "inputs/"): b"{}"}), "not what its name says"),
    "an input left out": (lambda f: f.pop(first_of(f, "inputs/")), "the input .* is missing"),
    "an input too many": (lambda f: f.update({"inputs/" + sha256(b"x")[7:]: b"x"}), "of no record"),
    "a rule": (lambda f: f.update({first_of(f, f"bundles/{REVISION[7:]}/rules"): b"package evil\n"}), "bundle .* is not what"),
    "a rule left out": (lambda f: f.pop(first_of(f, f"bundles/{REVISION[7:]}/rules")), "bundle .* is not what"),
    "a bundle left out": (lambda f: [f.pop(n) for n in list(f) if n.startswith("bundles/")], "the bundle .* is missing"),
    "a bundle too many": (lambda f: f.update({"bundles/" + "0" * 64 + "/x": b"x"}), "of no record"),
    "a file of no kind": (lambda f: f.update({"README": b"hello"}), "no place"),
    "the tenant stated": (on_manifest(tenant="acme"), "another tenant"),
    "the format": (on_manifest(format="x"), "not a portcullis"),
    "an unknown statement": (on_manifest(more=1), "unknown fields"),
    "a statement of a wrong type": (on_manifest(first="0"), "wrong type"),
    "a range beyond the log": (on_manifest(last=99), "not in a log of"),
    "names of nobody": (lambda f: f.update({"names.json": canonical({"ref:" + "a" * 32: {"tenant": "acme", "person": "eve", "salt": "AAAA"}})}), "does not open"),
    "names of a wrong form": (lambda f: f.update({"names.json": canonical({"ref:" + "a" * 32: "eve"})}), "expected tenant"),
    "no checkpoint": (lambda f: f.pop("checkpoint"), "checkpoint is missing"),
    "no records": (lambda f: f.pop("records.jsonl"), "records.jsonl is missing"),
    "no proofs": (lambda f: f.pop("proofs/inclusion.jsonl"), "inclusion.jsonl is missing"),
    "no key": (lambda f: f.pop("keys/log.pub"), "keys/log.pub is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
async def test_what_the_holder_of_the_key_cannot_forge_afterwards(rig: Rig, tmp_path: Path, name: str):
    """Even with the log's key in hand, the package must agree with the tree that was signed."""
    await story(rig)
    files = unpack((await made(rig, tmp_path)).path.read_bytes())
    signer = Signer(ORIGIN, bytes.fromhex((rig.folder / "keys" / "log.key").read_text()))
    assert verify_bytes(resigned(dict(files), signer), rig.key()).verified
    forge, message = FORGERIES[name]
    forge(files)
    with pytest.raises(VerificationFailed, match=message):
        verify_bytes(resigned(files, signer), rig.key())


@pytest.mark.parametrize("name", FORGERIES)
async def test_what_a_courier_cannot_change(rig: Rig, tmp_path: Path, name: str):
    """Without the key: the manifest can be made to fit, its signature cannot."""
    await story(rig)
    files = unpack((await made(rig, tmp_path)).path.read_bytes())
    FORGERIES[name][0](files)
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {n: sha256(d) for n, d in files.items() if n not in ("manifest.json", "manifest.note")}
    files["manifest.json"] = canonical(manifest)
    with pytest.raises(VerificationFailed):
        verify_bytes(pack(files), rig.key())


def cut_short(files: dict[str, bytes]) -> None:
    """The last record left out with its proof, its input and the range: consistent in itself, and not what was signed."""
    last = json.loads(files["records.jsonl"].splitlines()[-1])
    drop_last_and_restate(files)
    drop_line("proofs/inclusion.jsonl", 5)(files)
    del files["inputs/" + last["digests"]["input"][7:]]


ONLY_SIGNED = {
    "the moment": on_manifest(created=1),
    "the window": on_manifest(until=5),
    "a shorter range": cut_short,
    "a consistency proof": lambda f: f.update({"proofs/consistency.json": canonical({"3": []})}),
}


@pytest.mark.parametrize("name", ONLY_SIGNED)
async def test_what_only_the_manifests_signature_protects(rig: Rig, tmp_path: Path, name: str):
    await story(rig)
    files = unpack((await made(rig, tmp_path)).path.read_bytes())
    ONLY_SIGNED[name](files)
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {n: sha256(d) for n, d in files.items() if n not in ("manifest.json", "manifest.note")}
    files["manifest.json"] = canonical(manifest)
    with pytest.raises(VerificationFailed, match="signed for another manifest"):
        verify_bytes(pack(files), rig.key())


async def test_a_file_that_is_not_what_the_manifest_says(rig: Rig, tmp_path: Path):
    await story(rig)
    files = unpack((await made(rig, tmp_path)).path.read_bytes())
    for name in set(files) - {"manifest.json", "manifest.note"}:
        changed = {**files, name: files[name] + b" "}
        with pytest.raises(VerificationFailed, match=r"not what manifest\.json says"):
            verify_bytes(pack(changed), rig.key())


@pytest.mark.parametrize("everything", [True, False])
async def test_somebody_elses_key_does_not_verify(rig: Rig, tmp_path: Path, everything: bool):
    """The whole package signed anew under the same name by another key, checkpoint included."""
    await story(rig)
    files = unpack((await made(rig, tmp_path)).path.read_bytes())
    thief = Signer(ORIGIN, b"\x66" * 32)
    checkpoint = rig.log().checkpoint()
    files["checkpoint"] = thief.checkpoint(checkpoint.size, checkpoint.root)
    if everything:
        files["keys/log.pub"] = f"{thief.verifier_key}\n".encode()
    data = resigned(files, thief)
    with pytest.raises(VerificationFailed):
        verify_bytes(data, rig.key())
    if everything:
        assert not verify_bytes(data, None).verified  # consistent, but nobody pinned the thief


async def test_names_only_when_asked_for(rig: Rig, tmp_path: Path, database):
    people = SaltedCommitments(rig.folder, database)
    ref = await people.ref("acme", "person:ada@acme.example")
    await story(rig, actor=ref)
    plain = await made(rig, tmp_path, commitments=people)
    assert b"ada@" not in plain.path.read_bytes()
    assert "names.json" not in unpack(plain.path.read_bytes())
    named = await made(rig, tmp_path, with_names=True, commitments=people)
    assert checked(rig, named).verified
    files = unpack(named.path.read_bytes())
    assert json.loads(files["names.json"])[ref]["person"] == "person:ada@acme.example"
    signer = Signer(ORIGIN, bytes.fromhex((rig.folder / "keys" / "log.key").read_text()))
    files["names.json"] = files["names.json"].replace(b"ada@", b"eve@")
    with pytest.raises(VerificationFailed, match="does not open"):
        verify_bytes(resigned(files, signer), rig.key())
    with pytest.raises(BadInput, match="names were asked for"):
        await made(rig, tmp_path, with_names=True)


async def test_what_is_gone_or_broken_stops_the_export(rig: Rig, tmp_path: Path):
    await story(rig)
    one = next(file for file in (rig.folder / "inputs").rglob("*") if file.is_file())
    data = one.read_bytes()
    one.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Broken, match="changed or damaged"):
        await made(rig, tmp_path)
    one.unlink()
    with pytest.raises(NotFound, match="not kept"):
        await made(rig, tmp_path)
    second = Rig(tmp_path / "second")
    await second.events(1)
    second.integrate()
    second.recorder.close()
    with pytest.raises(BadInput, match="does not exist"):
        await export(tmp_path / "no" / "p.zip", second.folder, origin=ORIGIN)
    assert not (tmp_path / "package.zip").exists()


async def test_a_wrong_clock_is_flagged_and_the_order_stays(rig: Rig, tmp_path: Path):
    """failure-cases/lineage-evidence 34."""
    await rig.events(1)
    rig.clock.now, right = 4_070_908_800, rig.clock.now
    await rig.events(1)
    rig.clock.now = right
    await rig.events(1)
    rig.integrate()
    (warning,) = checked(rig, await made(rig, tmp_path)).warnings
    assert warning.startswith("seq 1 is dated")


def make_bad_zip(kind: str, path: Path) -> None:
    names = {
        "leaves the folder": ["../../etc/passwd"],
        "absolute": ["/etc/passwd"],
        "backslash": ["..\\x"],
        "drive": ["C:x"],
        "dot": ["a/./b"],
        "empty part": ["a//b"],
        "not ASCII": ["m\u00fcll"],
        "twice": ["a", "a"],
    }
    if kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("records.jsonl", b"\0" * 20_000_000)
        return
    if kind == "link":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo("records.jsonl")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
        return
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names[kind]:
            archive.writestr(zipfile.ZipInfo(name), b"x")


@pytest.mark.parametrize(
    "kind", ["leaves the folder", "absolute", "backslash", "drive", "dot", "empty part", "not ASCII", "twice", "bomb", "link"]
)
def test_archives_that_mean_harm(tmp_path: Path, kind: str):
    """failure-cases/lineage-evidence 2."""
    make_bad_zip(kind, tmp_path / "bad.zip")
    with pytest.raises(VerificationFailed):
        verify(tmp_path / "bad.zip", None)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"x" * 100, b"PK\x03\x04" + b"\xff" * 60])
def test_no_archive_at_all(data: bytes):
    with pytest.raises(VerificationFailed):
        verify_bytes(data, None)


def test_a_package_too_large_is_not_read(tmp_path: Path):
    path = tmp_path / "sparse.zip"
    with path.open("wb") as file:
        file.truncate(verifier.MAX_PACKAGE_BYTES + 1)
    with pytest.raises(VerificationFailed, match="more than"):
        verify(path, None)


def test_the_verifier_needs_nothing_of_ours():
    """Only the standard library and `cryptography`, so that an auditor can carry one file away."""
    tree = ast.parse((ROOT / "evidence" / "verifier.py").read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add((node.module or "").split(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"cryptography"}


async def test_the_verifier_runs_alone(rig: Rig, tmp_path: Path):
    await story(rig)
    exported = await made(rig, tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "verifier.py").write_bytes((ROOT / "evidence" / "verifier.py").read_bytes())
    (alone / "log.pub").write_text(rig.key())
    (alone / "checkpoint").write_bytes(rig.log().checkpoint_note())

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "verifier.py", str(exported.path), *arguments]
        return subprocess.run(command, cwd=alone, capture_output=True, text=True, check=False)

    good = run("--key", "log.pub", "--earlier", "checkpoint")
    assert (good.returncode, good.stdout.split(":")[0]) == (0, "verified")
    unpinned = run()
    assert (unpinned.returncode, unpinned.stdout.split(":")[0]) == (1, "consistent, signer not pinned")
    data = bytearray(exported.path.read_bytes())
    data[len(data) // 2] ^= 1
    exported.path.write_bytes(bytes(data))
    bad = run("--key", "log.pub")
    assert (bad.returncode, bad.stdout.split(":")[0]) == (1, "NOT VERIFIED")
    assert run("--key", "nowhere").returncode == 2
