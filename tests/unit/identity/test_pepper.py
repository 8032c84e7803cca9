from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import ConfigError, Unavailable
from identity.keys import ApiKeys
from identity.pepper import load_pepper
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder


def test_a_pepper_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "pepper"
    first = load_pepper(path)
    assert len(first) == 32
    assert load_pepper(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["pepper"]


def test_processes_that_start_together_share_one(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: load_pepper(path), range(32)))) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_pepper_that_others_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "pepper"
    load_pepper(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_pepper(path)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_pepper_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="restore it"):
        load_pepper(path)
    assert path.read_bytes() == content


def test_a_pepper_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "pepper").mkdir(mode=0o700)
    with pytest.raises(Unavailable):
        load_pepper(tmp_path / "pepper")


def test_a_short_pepper_is_refused_by_the_keys() -> None:
    with pytest.raises(ConfigError):
        ApiKeys(
            None,  # type: ignore[arg-type]
            pepper=b"short",
            recorder=MemoryRecorder(),
            commitments=MemoryCommitments(),
            clock=FixedClock(),
        )
