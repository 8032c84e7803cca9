"""Kill it anywhere: nothing acknowledged is lost, nothing is there twice, the tree never forks."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from core.errors import EvidenceUnavailable, InvalidProof
from evidence.log import Log, tile_path
from evidence.merkle import verify_consistency, verify_inclusion
from evidence.notes import open_checkpoint
from evidence.record import spooled
from evidence.sequencer import LeaseTaken, Sequencer
from evidence.spool import spool_files
from evidence.verifier import leaf_hash
from tests.conftest import ROOT
from tests.unit.evidence.rig import ORIGIN, Rig, entry


def ids(log: Log) -> list[str]:
    checkpoint = log.audit()
    records = [(seq, json.loads(leaf)) for seq, leaf in log.entries(0, checkpoint.size, checkpoint.size)]
    assert [record["seq"] for _, record in records] == list(range(checkpoint.size))
    return [record["id"] for _, record in records]


async def test_records_get_into_the_log(rig: Rig):
    written = await rig.events(3)
    assert rig.integrate() == 3
    assert rig.integrate() == 0
    assert ids(rig.log()) == written


async def test_many_batches_cross_tiles(rig: Rig, monkeypatch):
    monkeypatch.setattr("evidence.sequencer.MAX_BATCH", 100)
    sizes = {}
    written: list[str] = []
    for count in (1, 254, 1, 1, 255, 300):
        written += await rig.events(count)
        rig.integrate()
        checkpoint = rig.log().checkpoint()
        sizes[checkpoint.size] = checkpoint.root
    log = rig.log()
    assert ids(log) == written
    last = log.checkpoint()
    for size, root in sizes.items():
        verify_consistency(size, last.size, log.consistency_proof(size, last.size), root, last.root)
    for seq, leaf in log.entries(0, last.size, last.size):
        if seq % 37 == 0:
            verify_inclusion(leaf_hash(leaf), seq, last.size, log.inclusion_proof(seq, last.size), last.root)
    # Partial tiles give way to full ones, and only then.
    assert not (log.folder / "tile/0/000.p").exists()
    assert (log.folder / tile_path(0, 3, last.size - 768)).exists()
    assert len((log.folder / "tile/0/000").read_bytes()) == 8192


def test_tile_paths_are_those_of_the_specification():
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(0, 273, 112) == "tile/0/273.p/112"
    assert tile_path("entries", 0) == "tile/entries/000"
    assert tile_path(1, 1000) == "tile/1/x001/000"


class Killed(BaseException):
    """Not an Exception: nothing may catch it on the way out, like a kill."""


STEPS = ("collected", "entries", "tiles", "signed", "published", "marked")


@pytest.mark.parametrize("step", STEPS)
async def test_killed_after_each_step(rig: Rig, step: str):
    written = await rig.events(5)
    rig.integrate()
    before = rig.log().checkpoint()
    written += await rig.events(300)

    def stop(name: str) -> None:
        if name == step:
            raise Killed

    for _ in range(2):  # twice at the same place
        with pytest.raises(Killed):
            rig.sequencer(stop).integrate_once()
        written += await rig.events(7)
    rig.integrate()
    log = rig.log()
    assert ids(log) == written
    after = log.checkpoint()
    verify_consistency(before.size, after.size, log.consistency_proof(before.size, after.size), before.root, after.root)


@pytest.mark.parametrize("step", STEPS)
async def test_a_second_root_is_never_signed_for_one_size(rig: Rig, step: str):
    """What was signed as `checkpoint.next` is published before anything else, even when more records have come."""
    await rig.events(3)
    signed: dict[int, bytes] = {}
    killing: str | None = step

    def watch(name: str) -> None:
        if name == "signed":
            note = (rig.folder / "log" / "checkpoint.next").read_bytes()
            size = int(note.split(b"\n")[1])
            assert signed.setdefault(size, note) == note
        if name == killing and size_of(rig):
            raise Killed

    for _ in range(4):
        try:
            rig.sequencer(watch).integrate_once()
        except Killed:
            await rig.events(1)
    killing = None
    rig.sequencer(watch).integrate_once()
    rig.log().audit()


def size_of(rig: Rig) -> int:
    """True once the empty log has been published, so that the first start is not what is killed."""
    return (rig.folder / "log" / "checkpoint").exists()


WRITER = """
import asyncio, sys
from pathlib import Path
from core.record import Entry
from evidence.recorder import EvidenceRecorder
async def main():
    recorder = EvidenceRecorder(Path(sys.argv[1]), durability=sys.argv[2])
    n = 0
    while True:
        n += 1
        record = await recorder.event(Entry("access", "ref:x", "acme", f"t/{n}", details={"pad": "x" * (n % 3000)}))
        sys.stdout.write(record + chr(10)); sys.stdout.flush()
asyncio.run(main())
"""
SEQUENCER = """
import sys, threading
from pathlib import Path
from evidence.sequencer import Sequencer
Sequencer(Path(sys.argv[1]), origin=sys.argv[2]).run(threading.Event(), interval=0.001)
"""


def test_kill_dash_nine(tmp_path: Path):
    """Real processes, real SIGKILL, at random moments: what a writer was told is recorded is in the log, once."""
    folder = tmp_path / "evidence"
    dice = random.Random(7)
    acknowledged: list[str] = []
    heads: dict[int, bytes] = {}
    for turn in range(3):
        outputs = [tmp_path / f"acks-{turn}-{n}" for n in range(2)]
        writers = []
        for number, output in enumerate(outputs):
            with output.open("wb") as out:
                mode = ("batched", "strict")[number]
                writers.append(subprocess.Popen([sys.executable, "-c", WRITER, folder, mode], stdout=out, cwd=ROOT))
        deadline = time.monotonic() + 20
        while not all(output.stat().st_size for output in outputs):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        sequencer = subprocess.Popen([sys.executable, "-c", SEQUENCER, folder, ORIGIN], cwd=ROOT)
        checkpoint = folder / "log" / "checkpoint"
        size = max(heads, default=0)
        while not checkpoint.exists() or int(checkpoint.read_bytes().split(b"\n")[1]) <= size:
            assert sequencer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(dice.uniform(0.0, 0.15))
        for process in (sequencer, *writers):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        head = checkpoint.read_bytes().split(b"\n")
        heads[int(head[1])] = head[2]
        for output in outputs:
            acknowledged += [line for line in output.read_text().split("\n")[:-1] if line]
    Sequencer(folder, origin=ORIGIN).integrate_once()
    log = Rig(folder).log()
    found = ids(log)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    last = log.checkpoint()
    for size, root in heads.items():
        verify_consistency(size, last.size, log.consistency_proof(size, last.size), base64.b64decode(root), last.root)
    assert list((folder / "spool").glob("*.jsonl")) == []


async def test_the_lease(rig: Rig):
    await rig.events(1)
    sequencer = rig.sequencer()
    with sequencer._lease():
        with pytest.raises(LeaseTaken):
            rig.sequencer().integrate_once()
        assert rig.sequencer().integrate_if_free() is None
    assert rig.sequencer().integrate_if_free() == 1


async def test_run_takes_records_as_they_come_until_it_is_stopped(rig: Rig):
    stop = threading.Event()
    thread = threading.Thread(target=rig.sequencer().run, args=(stop,), kwargs={"interval": 0.005})
    thread.start()
    written = await rig.events(4)
    deadline = time.monotonic() + 10
    while _size(rig) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    written += await rig.events(1)
    stop.set()
    thread.join()
    assert ids(rig.log()) == written


def _size(rig: Rig) -> int:
    checkpoint = rig.log().checkpoint()
    return checkpoint.size if checkpoint else 0


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


async def test_a_changed_record_is_found(rig: Rig):
    await rig.events(3)
    rig.integrate()
    change(rig.folder / "log" / "tile/entries/000.p/3")
    with pytest.raises(InvalidProof, match="changed"):
        rig.log().audit()
    with pytest.raises(InvalidProof, match="changed"):
        rig.integrate()


async def test_a_changed_tile_stops_the_sequencer(rig: Rig):
    await rig.events(3)
    rig.integrate()
    change(rig.folder / "log" / "tile/0/000.p/3")
    with pytest.raises(EvidenceUnavailable, match="do not give the root"):
        rig.integrate()


async def test_a_lost_checkpoint_is_not_signed_anew(rig: Rig):
    await rig.events(3)
    rig.integrate()
    (rig.folder / "log" / "checkpoint").unlink()
    with pytest.raises(EvidenceUnavailable, match="lost its checkpoint"):
        rig.integrate()


async def test_a_log_rolled_back_to_a_backup_is_not_extended(rig: Rig, tmp_path: Path):
    await rig.events(3)
    rig.integrate()
    shutil.copytree(rig.folder / "log", tmp_path / "backup")
    await rig.events(3)
    rig.integrate()
    shutil.rmtree(rig.folder / "log")
    shutil.copytree(tmp_path / "backup", rig.folder / "log")
    await rig.events(1)
    with pytest.raises(EvidenceUnavailable, match="rolled back"):
        rig.integrate()


async def test_a_lost_key_is_not_replaced(rig: Rig):
    await rig.events(1)
    rig.integrate()
    (rig.folder / "keys" / "log.key").unlink()
    with pytest.raises(EvidenceUnavailable, match="key is gone"):
        rig.integrate()


async def test_another_origin_is_refused(rig: Rig):
    await rig.events(1)
    rig.integrate()
    with pytest.raises(EvidenceUnavailable, match="another origin"):
        Sequencer(rig.folder, origin="elsewhere.test/log").integrate_once()


async def test_keys_are_private(rig: Rig):
    rig.integrate()
    assert (rig.folder / "keys" / "log.key").stat().st_mode & 0o777 == 0o600


async def test_a_torn_next_checkpoint_is_dropped(rig: Rig):
    await rig.events(2)
    rig.integrate()
    (rig.folder / "log" / "checkpoint.next").write_bytes(b"portcullis.test/log\n9\nAAAA")
    await rig.events(1)
    assert rig.integrate() == 1
    rig.log().audit()


async def test_a_damaged_line_becomes_a_finding(rig: Rig):
    await rig.events(3)
    rig.recorder.close()
    file = next((rig.folder / "spool").glob("*.jsonl"))
    lines = file.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"thing/1", b"thing/7")
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(Killed):
        rig.sequencer(_die_at("published")).integrate_once()
    rig.integrate()
    log = rig.log()
    size = log.audit().size
    kinds = sorted(json.loads(leaf)["kind"] for _, leaf in log.entries(0, size, size))
    assert kinds == ["access", "access", "finding"]


POISON = {
    "no object": b"[]",
    "not a record": b'{"id":"x"}',
    "not canonical": b'{"a": 1}',
    "too large": b'"' + b"x" * 70_000 + b'"',
}


@pytest.mark.parametrize("data", POISON.values(), ids=POISON)
async def test_a_line_that_is_no_record_does_not_stop_the_log(rig: Rig, data: bytes):
    rig.recorder._spool.append(data)
    await rig.events(1)
    assert rig.integrate() == 2
    rig.log().audit()


def test_a_fork_writes_to_a_file_of_its_own(tmp_path: Path):
    script = """
import os, sys
from pathlib import Path
from evidence.spool import Spool
spool = Spool(Path(sys.argv[1]) / "spool", durability="strict")
spool.append(b'{"n":0}')
child = os.fork()
spool.append(b'{"n":%d}' % (1 if child else 2))
if child:
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, check=True)
    files = spool_files(tmp_path / "spool")
    assert len(files) == 2
    assert sorted(line.record for file in files for line in file.lines()) == [b'{"n":%d}' % n for n in range(3)]


def _die_at(step: str):
    def stop(name: str) -> None:
        if name == step:
            raise Killed

    return stop


async def test_resources(rig: Rig):
    await rig.events(2)
    rig.integrate()
    log = rig.log()
    assert log.resource("checkpoint").startswith(b"portcullis.test/log\n2\n")
    assert len(log.resource("tile/0/000.p/2")) == 64
    for path in (
        "",
        "../keys/log.key",
        "tile/0/../../../keys/log.key",
        "tile/0/000.p/256",
        "tile/64/000",
        "checkpoint.next",
        "tile/0/0",
        "tile/0/000.p",
        "tile/0/000\n",
    ):
        assert log.resource(path) is None


async def test_what_was_signed_and_not_yet_published_binds(rig: Rig):
    """A record with an earlier id comes in between: the log must still extend the tree whose head was signed."""
    await rig.events(3)
    rig.sequencer().integrate_if_free()
    await rig.events(3)
    with pytest.raises(Killed):
        rig.sequencer(_die_at("signed")).integrate_once()
    log = rig.log()
    signed = open_checkpoint((rig.folder / "log" / "checkpoint.next").read_bytes(), log.key)
    rig.recorder._spool.append(spooled(entry(9), record_id="00000000-0000-7000-8000-000000000000", time=1))
    rig.integrate()
    last = log.audit()
    assert (signed.size, last.size) == (6, 7)
    verify_consistency(signed.size, last.size, log.consistency_proof(signed.size, last.size), signed.root, last.root)


async def test_killed_again_and_again_between_publishing_and_marking(rig: Rig, monkeypatch):
    """Lines that one crash left unmarked must not outlive the window of ids in which they are recognised."""
    monkeypatch.setattr("evidence.sequencer.MAX_BATCH", 4)
    monkeypatch.setattr("evidence.sequencer.WIDTH", 0)
    written: list[str] = []
    for _ in range(4):
        written += await rig.events(4)
        with pytest.raises(Killed):
            rig.sequencer(_die_at("published")).integrate_once()
    rig.integrate()
    assert ids(rig.log()) == written


async def test_a_copied_spool_file_brings_nothing_twice(rig: Rig):
    written = await rig.events(3)
    file = next((rig.folder / "spool").glob("*.jsonl"))
    shutil.copy(file, file.with_name("0copy.jsonl"))
    stop = threading.Event()
    turns = []

    def copy_again(step: str) -> None:
        if step == "marked":
            turns.append(step)
            if len(turns) == 1:
                shutil.copy(file, file.with_name("1copy.jsonl"))
            if len(turns) == 3:
                stop.set()

    rig.sequencer(copy_again).run(stop, interval=0.001)
    shutil.copy(file, file.with_name("2copy.jsonl"))
    assert rig.integrate() == 0
    assert ids(rig.log()) == written
