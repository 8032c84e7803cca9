"""What doors hand in: kept whole, sealed, bounded, and never half."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.canonical import canonical
from core.decision import Violation
from core.errors import BadInput, Broken, EvidenceUnavailable, NotFound
from evidence.bundles import Bundles
from evidence.keys import tenant_folder
from evidence.payloads import Payloads
from evidence.reader import Reader
from evidence.recorder import EvidenceRecorder
from tests.unit.evidence.rig import BUNDLE, REVISION, Rig, decide, entry

INPUT = {"now_unix": 1, "request": {"route": "chat", "model": "m\u00fc\ue000\U0001f600", "\ue000": 1, "\U0001f600": 2}}


def leaves(rig: Rig) -> list[dict]:
    rig.integrate()
    log = rig.log()
    size = log.audit().size
    return [json.loads(leaf) for _, leaf in log.entries(0, size, size)]


async def test_a_decision_is_recorded_without_messages(rig: Rig):
    violation = Violation(
        "gateway/purpose", "enforce", "purpose", {"asked": "x"}, "high", "SECRET MESSAGE", "do it", ("eu-ai-act/14", "a")
    )
    decision = decide(INPUT, violations=(violation,))
    record_id = await rig.recorder.decision(
        "inference.intent",
        decision,
        INPUT,
        actor="ref:a",
        tenant="acme",
        subject="m@1",
        digests={"request": "sha256:" + "0" * 64},
        details={"status": 403},
    )
    (record,) = leaves(rig)
    assert record["id"] == record_id
    assert record["seq"] == 0
    assert record["time"] == rig.clock.now
    assert record["decision"]["violations"] == [
        {"rule": "gateway/purpose", "mode": "enforce", "path": "purpose", "args": {"asked": "x"}}
    ]
    assert "SECRET" not in json.dumps(record)
    assert record["digests"] == {"input": decision.input_digest, "request": "sha256:" + "0" * 64}
    assert record["controls"] == ["a", "eu-ai-act/14"]
    assert record["details"] == {"status": 403}
    assert Payloads(rig.folder).get("acme", decision.input_digest) == canonical(INPUT)


async def test_details_are_there_only_when_there_are_some(rig: Rig):
    await rig.recorder.event(replace(entry(), details={}))
    assert "details" not in leaves(rig)[0]


async def test_an_input_is_not_kept_in_the_clear(rig: Rig):
    await rig.recorder.decision("admission", decide(INPUT), INPUT, actor="a", tenant="acme", subject="s")
    for file in (rig.folder / "inputs").rglob("*"):
        if file.is_file():
            assert b"chat" not in file.read_bytes()
            assert "acme" not in str(file)
            assert file.stat().st_mode & 0o77 == 0


async def test_an_input_of_another_decision_is_refused(rig: Rig):
    with pytest.raises(EvidenceUnavailable, match="not the one"):
        await rig.recorder.decision("admission", decide(INPUT), {**INPUT, "now_unix": 2}, actor="a", tenant="acme", subject="s")
    assert leaves(rig) == []


async def test_a_decision_whose_input_is_no_json(rig: Rig):
    decision = decide({}, input_digest="")
    await rig.recorder.decision("admission", decision, {"x": float("nan")}, actor="a", tenant="acme", subject="s")
    assert leaves(rig)[0]["digests"] == {}


@pytest.mark.parametrize("length", [1, 300], ids=["in the leaf", "too large for it"])
async def test_each_use_of_an_exemption_is_named_in_the_leaf(rig: Rig, length: int):
    used = Violation("gateway/purpose", "exempted", "purpose", {"x": "y" * 200 * length}, exemption="EX-1")
    await rig.recorder.decision("admission", decide(INPUT, warnings=(used,)), INPUT, actor="a", tenant="acme", subject="s")
    (record,) = leaves(rig)
    assert [entry["exemption"] for entry in record["decision"]["warnings"]] == ["EX-1"]


async def test_a_decision_too_large_for_a_leaf_is_kept_beside_the_log(rig: Rig):
    many = tuple(Violation("admission/x", "enforce", f"spec.{n}", {"asked": "y" * 200}) for n in range(400))
    await rig.recorder.decision("admission", decide(INPUT, violations=many), INPUT, actor="a", tenant="acme", subject="s")
    (record,) = leaves(rig)
    assert record["decision"]["violation_count"] == 400
    assert len(record["decision"]["violations"]) == 20
    whole = json.loads(Payloads(rig.folder).get("acme", record["digests"]["decision"]))
    assert len(whole["violations"]) == 400


BAD_ENTRIES = {
    "unknown kind": entry(kind="gossip"),
    "too large": replace(entry(), details={"x": "y" * 70_000}),
    "huge integer": replace(entry(), details={"x": 2**60}),
    "NaN": replace(entry(), details={"x": float("nan")}),
    "deeply nested": replace(entry(), details={"x": json.loads("[" * 70 + "]" * 70)}),
    "bytes": replace(entry(), details={"x": b"y"}),
    "lone surrogate": replace(entry(), subject="\ud800"),
}


@pytest.mark.parametrize("bad", BAD_ENTRIES.values(), ids=BAD_ENTRIES)
async def test_what_cannot_be_recorded_is_refused(rig: Rig, bad):
    with pytest.raises(EvidenceUnavailable):
        await rig.recorder.event(bad)
    assert leaves(rig) == []


async def test_strict(tmp_path: Path):
    recorder = EvidenceRecorder(tmp_path, durability="strict")
    await recorder.event(entry())
    await recorder.decision("admission", decide(INPUT), INPUT, actor="a", tenant="acme", subject="s")
    recorder.close()
    assert len(leaves(Rig(tmp_path))) == 2


def test_payloads_are_bound_to_tenant_and_digest(tmp_path: Path):
    store = Payloads(tmp_path)
    one, two = store.put("acme", b"one"), store.put("acme", b"two")
    store.put("zeta", b"zeta")
    with pytest.raises(NotFound):
        store.get("zeta", one)
    store.path("acme", two).replace(store.path("acme", one))
    with pytest.raises(Broken):
        Payloads(tmp_path).get("acme", one)
    store.path("zeta", one).parent.mkdir(parents=True, exist_ok=True)
    store.path("acme", one).replace(store.path("zeta", one))
    with pytest.raises(Broken):
        store.get("zeta", one)


@pytest.mark.parametrize("at", [0, 12, -1])
def test_a_changed_payload_does_not_open_and_is_not_taken_for_kept(tmp_path: Path, at):
    store = Payloads(tmp_path)
    digest = store.put("acme", b"payload")
    path = store.path("acme", digest)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Broken, match="changed or damaged"):
        store.get("acme", digest)
    path.write_bytes(bytes(data[:5]))
    Payloads(tmp_path).put("acme", b"payload")  # torn by a crash: written again
    assert store.get("acme", digest) == b"payload"


def test_a_payload_whose_key_is_gone(tmp_path: Path):
    digest = Payloads(tmp_path).put("acme", b"payload")
    (tmp_path / "keys" / "inputs" / f"{tenant_folder('acme')}.key").unlink()
    with pytest.raises(NotFound, match="key is gone"):
        Payloads(tmp_path).get("acme", digest)
    assert not list((tmp_path / "keys" / "inputs").iterdir())


def test_bundles(tmp_path: Path):
    bundles = Bundles(tmp_path)
    bundles.keep(REVISION, BUNDLE)
    bundles.keep(REVISION, BUNDLE)
    assert bundles.load(REVISION) == BUNDLE
    with pytest.raises(Broken, match="the files are revision"):
        bundles.keep("sha256:" + "0" * 64, BUNDLE)
    with pytest.raises(Broken, match="not a file name"):
        bundles.keep("sha256:" + "0" * 64, {"../x": b""})
    with pytest.raises(NotFound, match="was not kept"):
        bundles.load("sha256:" + "0" * 64)
    next((tmp_path / "bundles").rglob("*.rego")).write_bytes(b"package y\n")
    with pytest.raises(Broken):
        bundles.load(REVISION)


@pytest.mark.parametrize("number", [1.0, 0.5, 1e16, 1e20, 1e21, -1e17, 1e-7, 2**53 - 1, -0.0])
async def test_any_number_that_is_recorded_gets_into_the_log(rig: Rig, number):
    await rig.recorder.event(replace(entry(), details={"x": number}))
    (record,) = leaves(rig)
    assert record["kind"] == "access"
    assert record["details"]["x"] == number


async def test_a_note_lies_beside_the_log_and_its_record_tells_nothing_of_it(rig: Rig):
    text = "incident call with jane.roe@example.org"
    first = await rig.recorder.note("incident", actor="ref:" + "a" * 32, tenant="acme", subject="llama@7", text=text)
    await rig.recorder.note("incident", actor="ref:" + "a" * 32, tenant="acme", subject="llama@7", text=text)
    rig.integrate()
    one, two = Reader(rig.folder).records(kind="incident")
    assert one["id"] == first
    assert one["digests"]["note"] != two["digests"]["note"], "the digest is salted: who guesses the text cannot confirm it"
    assert json.loads(Payloads(rig.folder).get("acme", one["digests"]["note"]))["text"] == text
    assert not any(b"jane" in path.read_bytes() for path in rig.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["approval", "admission", "consent", "made-up", ""])
async def test_a_note_passes_for_nothing_else(rig: Rig, kind):
    with pytest.raises(BadInput, match="review, incident, drill, training, override"):
        await rig.recorder.note(kind, actor="ref:" + "a" * 32, tenant="acme", subject="llama@7", text="x")
    assert rig.integrate() == 0
    assert not (rig.folder / "inputs").exists()
