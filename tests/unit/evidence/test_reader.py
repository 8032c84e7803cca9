"""Finding records and proving them."""

from __future__ import annotations

import base64
import shutil
import time
from pathlib import Path

import pytest

from core.errors import InvalidProof, NotFound
from evidence.merkle import verify_inclusion
from evidence.notes import open_checkpoint
from evidence.payloads import Payloads
from evidence.reader import Reader
from evidence.verifier import leaf_hash
from tests.unit.evidence.rig import Rig, decide, entry


async def filled(rig: Rig) -> Reader:
    for number in range(6):
        await rig.recorder.event(
            entry(number, tenant="acme" if number % 2 else "zeta", kind="card" if number < 3 else "consent")
        )
        rig.clock.now += 10
    rig.integrate()
    return Reader(rig.folder)


async def test_filters(rig: Rig):
    start = rig.clock.now
    reader = await filled(rig)

    def seqs(**filters):
        return [record["seq"] for record in reader.records(**filters)]

    assert seqs() == [0, 1, 2, 3, 4, 5]
    assert seqs(kind="card") == [0, 1, 2]
    assert seqs(kind={"card", "consent"}, tenant="acme") == [1, 3, 5]
    assert seqs(since=start + 10, until=start + 30) == [1, 2]
    assert seqs(subject="thing/4") == [4]
    assert [item.seq for item in reader.stored(start=2, end=4)] == [2, 3]


async def test_lazy(rig: Rig):
    reader = await filled(rig)
    assert next(iter(reader.records()))["seq"] == 0


async def test_find(rig: Rig):
    decision = decide({"n": 1})
    record_id = await rig.recorder.decision("admission", decision, {"n": 1}, actor="a", tenant="acme", subject="s")
    await rig.recorder.event(entry(7))
    rig.integrate()
    reader = Reader(rig.folder)
    assert reader.find(record_id).seq == 0
    assert reader.find(decision.decision_id).seq == 0
    for missing in ("nothing", "", "thing/7"):
        with pytest.raises(NotFound):
            reader.find(missing)


async def test_find_looks_where_records_of_that_time_stand(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """A page of the log that is far away in time is not read for a record that is where its id says."""
    now = int(time.time())
    for age in (4_000, 3_000, 2_000, 1_000, 0):
        rig.clock.now = now - age
        ids = await rig.events(256)
        rig.integrate()
    reader = Reader(rig.folder)
    read: list[int] = []
    entries = type(reader.log).entries
    monkeypatch.setattr(
        type(reader.log),
        "entries",
        lambda log, start, end, size: (read.append(start // 256), entries(log, start, end, size))[1],
    )
    assert reader.find(ids[-1]).seq == 5 * 256 - 1
    assert 0 not in read
    assert read[-1] == 4


@pytest.mark.parametrize("skew", [-10_000, 10_000])
async def test_find_finds_what_stands_far_from_its_time(rig: Rig, skew: int):
    """A spool that was integrated late, or a clock that was wrong."""
    rig.clock.now = int(time.time()) + skew
    early = (await rig.events(1))[0]
    rig.clock.now -= 2 * skew
    ids = await rig.events(600)
    rig.integrate()
    reader = Reader(rig.folder)
    assert reader.find(early).record["id"] == early
    assert {reader.find(one).record["id"] for one in (ids[0], ids[-1])} == {ids[0], ids[-1]}


async def test_prove(rig: Rig):
    await filled(rig)
    ids = await rig.events(300)
    rig.integrate()
    reader = Reader(rig.folder)
    proof = reader.prove(ids[255])
    head, _, note = proof.partition("\n\n")
    first, index, *hashes = head.split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    found = reader.find(ids[255])
    assert index == f"index {found.seq}"
    checkpoint = open_checkpoint(note.encode(), reader.log.key)
    verify_inclusion(leaf_hash(found.leaf), found.seq, checkpoint.size, [base64.b64decode(h) for h in hashes], checkpoint.root)


def test_no_log(tmp_path: Path):
    with pytest.raises(NotFound, match="no evidence log"):
        Reader(tmp_path)


async def test_a_broken_public_key(rig: Rig):
    rig.integrate()
    (rig.folder / "keys" / "log.pub").write_text("nonsense")
    with pytest.raises(InvalidProof):
        Reader(rig.folder)


async def test_proofs_outlive_what_is_erased(rig: Rig):
    """failure-cases/lineage-evidence 36: payload and key gone, every proof still verifies."""
    decision = decide({"n": 1})
    record_id = await rig.recorder.decision("admission", decision, {"n": 1}, actor="ref:a", tenant="acme", subject="s")
    rig.integrate()
    shutil.rmtree(rig.folder / "inputs")
    shutil.rmtree(rig.folder / "keys" / "inputs")
    reader = Reader(rig.folder)
    assert reader.log.audit().size == 1
    assert reader.prove(record_id).startswith("c2sp.org/tlog-proof@v1\nindex 0\n")
    with pytest.raises(NotFound):
        Payloads(rig.folder).get("acme", decision.input_digest)
