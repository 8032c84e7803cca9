"""Full disks, short writes, torn tails, failed syncs: nothing half-written counts and nothing acknowledged goes."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from core.errors import EvidenceUnavailable
from evidence.spool import Spool, frame, spool_files, unframe


@pytest.fixture(params=["batched", "strict"])
def spool(request, tmp_path: Path):
    made = Spool(tmp_path / "spool", durability=request.param)
    yield made
    made.close()


def whole(spool: Spool) -> list[bytes]:
    return [line.record for file in spool_files(spool.folder) for line in file.lines()]


def test_frame_round_trip():
    assert unframe(frame(b'{"a":1}')[:-1]) == b'{"a":1}'


@pytest.mark.parametrize("at", range(len(frame(b'{"a":1}')) - 1))
def test_a_line_with_any_byte_changed_is_no_record(at):
    line = bytearray(frame(b'{"a":1}')[:-1])
    line[at] ^= 1
    assert unframe(bytes(line)) is None
    assert unframe(bytes(line[:at])) is None


def test_a_full_disk_records_nothing_and_says_so(spool: Spool, monkeypatch):
    spool.append(b'{"n":1}')
    real = os.write

    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EvidenceUnavailable, match="No space left"):
        spool.append(b'{"n":2}')
    monkeypatch.setattr(os, "write", real)
    spool.append(b'{"n":3}')
    assert sorted(whole(spool)) == [b'{"n":1}', b'{"n":3}']


def test_a_short_write_is_cut_off(spool: Spool, monkeypatch):
    spool.append(b'{"n":1}')
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:10]))
    with pytest.raises(EvidenceUnavailable, match="No space left"):
        spool.append(b'{"n":2}')
    monkeypatch.setattr(os, "write", real)
    spool.append(b'{"n":3}')
    assert sorted(whole(spool)) == [b'{"n":1}', b'{"n":3}']
    for file in spool_files(spool.folder):
        assert file.path.read_bytes().endswith(b"\n")


def test_a_short_write_that_cannot_even_be_cut_spoils_nothing_after_it(spool: Spool, monkeypatch):
    spool.append(b'{"n":1}')
    real = os.write

    def refuse(fd, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:10]))
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(EvidenceUnavailable):
            spool.append(b'{"n":2}')
    spool.append(b'{"n":3}')
    assert sorted(whole(spool)) == [b'{"n":1}', b'{"n":3}']


def test_strict_without_fsync_is_not_recorded(tmp_path: Path, monkeypatch):
    spool = Spool(tmp_path / "spool", durability="strict")
    spool.append(b'{"n":1}')
    real = os.fsync

    def broken(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(EvidenceUnavailable, match="Input/output error"):
        spool.append(b'{"n":2}')
    monkeypatch.setattr(os, "fsync", real)
    spool.append(b'{"n":3}')
    assert sorted(whole(spool)) == [b'{"n":1}', b'{"n":3}']
    spool.close()


def test_strict_syncs_before_it_returns_and_batched_soon_after(tmp_path: Path, monkeypatch):
    synced = threading.Event()
    real = os.fsync

    def watch(fd):
        real(fd)
        synced.set()

    monkeypatch.setattr(os, "fsync", watch)
    strict = Spool(tmp_path / "a", durability="strict")
    strict.append(b"{}")
    assert synced.is_set()
    batched = Spool(tmp_path / "b")
    batched.append(b"{}")
    synced.clear()
    batched.append(b"{}")
    assert synced.wait(10)
    strict.close()
    batched.close()


def test_a_torn_tail_is_not_a_record(spool: Spool):
    spool.append(b'{"n":1}')
    spool.close()
    file = spool_files(spool.folder)[0]
    for torn in (frame(b'{"n":2}')[:-1], frame(b'{"n":2}')[:20]):
        file.path.write_bytes(frame(b'{"n":1}') + torn)
        assert [line.record for line in file.lines()] == [b'{"n":1}']


def test_a_file_is_removed_only_when_done_and_let_go(spool: Spool):
    spool.append(b"{}")
    file = spool_files(spool.folder)[0]
    assert not file.remove_if_finished()
    file.mark(next(file.lines()).end)
    assert not file.remove_if_finished()
    spool.close()
    assert file.remove_if_finished()
    assert list(spool.folder.iterdir()) == []


def test_a_file_let_go_but_not_done_stays(spool: Spool):
    spool.append(b"{}")
    spool.close()
    assert not spool_files(spool.folder)[0].remove_if_finished()


def test_large_files_are_followed_by_new_ones(spool: Spool, monkeypatch):
    monkeypatch.setattr("evidence.spool.MAX_SEGMENT_BYTES", 500)
    for number in range(20):
        spool.append(b'{"n":%d}' % number)
    assert len(spool_files(spool.folder)) > 2
    assert len(whole(spool)) == 20


def test_threads(spool: Spool, monkeypatch):
    monkeypatch.setattr("evidence.spool.MAX_SEGMENT_BYTES", 2000)
    threads = [
        threading.Thread(target=lambda k=k: [spool.append(b'{"n":%d}' % (k * 25 + n)) for n in range(25)]) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(whole(spool)) == sorted(b'{"n":%d}' % n for n in range(100))


def test_a_closed_spool_refuses(spool: Spool):
    spool.close()
    with pytest.raises(EvidenceUnavailable, match="closed"):
        spool.append(b"{}")


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceUnavailable):
        Spool(tmp_path / "file" / "spool")
