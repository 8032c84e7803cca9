"""How a change becomes a revision: what is read again, what is kept, and what calls get meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.principal import Principal
from policies import config_sources
from policies.config_overlay import Layer, revision
from policies.config_sources import Built, Files
from policies.store import ConfigStore
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder

OPERATOR = Principal("person:olga", "user", "acme", roles=frozenset({"operator"}))
TENANTS = {"acme": {"teams": {"vision": {"namespaces": ["vision"], "requests_per_minute": 1}}}}


def layers(**changed: Any) -> list[Layer]:
    return [Layer("file", {"tenants": TENANTS, "requests_per_minute": 60}), Layer("database", changed)]


def test_what_a_change_does_not_touch_is_taken_over() -> None:
    first = Built.of(layers(), None, None)
    mode = {"gateway/purpose": {"rule": "gateway/purpose", "mode": "warn"}}
    second = Built.of(layers(modes=mode), None, first)
    assert second.document.tenants is first.document.tenants
    assert [rule.mode for rule in second.document.modes] == ["warn"]
    third = Built.of(layers(), None, second)
    assert third.document.modes == []
    assert third.revision == first.revision != second.revision


@pytest.mark.parametrize("changed", [{}, {"requests_per_minute": 61}, {"tenants": {"acme": {"required_approvals": 3}}}])
def test_a_built_document_is_what_a_fresh_one_would_be(changed: dict[str, Any]) -> None:
    fresh = Built.of(layers(**changed), None, None)
    after = Built.of(layers(**changed), None, Built.of(layers(), None, None))
    assert (after.document, after.revision) == (fresh.document, fresh.revision)
    assert fresh.revision == revision(fresh.merged)


def test_true_is_not_one() -> None:
    """`==` takes them for the same; what was checked as a number must not stand for it."""
    first = Built.of(layers(requests_per_minute=1), None, None)
    with pytest.raises(ConfigError, match="integer"):
        Built.of(layers(requests_per_minute=True), None, first)


def test_what_is_taken_over_is_still_held_against_what_changed() -> None:
    grant = {"id": "g", "tenant": "acme", "domain": "gateway", "model": "m", "teams": ["vision"]}
    first = Built.of(layers(grants={"g": grant}), None, None)
    without = [Layer("file", {"tenants": {"acme": {}}}), Layer("database", {"grants": {"g": grant}})]
    with pytest.raises(ConfigError, match="no team vision"):
        Built.of(without, None, first)


def test_only_files_that_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = config_sources.read_file
    monkeypatch.setattr(config_sources, "read_file", lambda path, shipped: read.append(path.name) or original(path, shipped))
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("requests_per_minute: 5")
    files = Files([tmp_path])
    files.layers()
    read.clear()
    assert files.layers() == files.layers()
    assert read == []
    (tmp_path / "b.yaml").write_text("requests_per_minute: 50")
    assert files.layers()[-1].keyed == {"requests_per_minute": 50}
    assert read == ["b.yaml"]
    (tmp_path / "a.yaml").unlink()
    assert len(files.layers()) == len(Files([]).layers()) + 1


class Slow:
    """A store whose builds wait until they are let go, and a clock in hand."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("policies.store.time.monotonic", lambda: self.now)
        self.gate = threading.Event()
        self.gate.set()
        self.one, self.two = (
            ConfigStore(
                database,
                commitments=MemoryCommitments(),
                recorder=MemoryRecorder(),
                files=[],
                clock=FixedClock(),
                max_age_seconds=age,
            )
            for age in (0, 0.5)
        )
        build = self.two._build
        self.entered = threading.Event()

        def held(*found: Any) -> Any:
            self.entered.set()
            self.gate.wait()
            return build(*found)

        monkeypatch.setattr(self.two, "_build", held)

    async def limit(self) -> int:
        return await self.two.requests_per_minute("acme", None, "K1")


@pytest.fixture
async def slow(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slow]:
    made = Slow(database, monkeypatch)
    yield made
    made.gate.set()


async def test_old_answers_are_given_while_a_build_lasts_and_not_beyond_the_second(slow: Slow) -> None:
    assert await slow.limit() == 60
    await slow.one.set("requests_per_minute", 7, author=OPERATOR, reason="less")
    slow.gate.clear()
    slow.now += 0.6
    assert await slow.limit() == 60, "the build lasts, and the promised second is not over"
    slow.now += 0.31
    waiting = asyncio.create_task(slow.limit())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done(), "from here on an old answer would break the promise"
    slow.gate.set()
    assert await waiting == 7


async def test_a_change_of_ones_own_is_seen_at_once_even_while_a_build_lasts(slow: Slow) -> None:
    assert await slow.limit() == 60
    await slow.one.set("requests_per_minute", 7, author=OPERATOR, reason="less")
    slow.gate.clear()
    slow.now += 0.6
    await slow.limit()
    slow.now += 0.1
    await slow.two.set("requests_per_minute", 8, author=OPERATOR, reason="more")
    slow.gate.set()
    assert await slow.limit() == 8


async def test_callers_that_give_up_do_not_end_the_build_of_others(slow: Slow) -> None:
    slow.gate.clear()
    first = asyncio.create_task(slow.limit())
    second = asyncio.create_task(slow.limit())
    while not slow.entered.is_set():
        await asyncio.sleep(0)
    first.cancel()
    slow.gate.set()
    assert await second == 60


async def test_a_broken_source_ends_the_old_answers(slow: Slow, tmp_path: Path) -> None:
    assert await slow.limit() == 60
    slow.two._files = Files([tmp_path / "gone"])
    slow.now += 0.6
    with pytest.raises(ConfigError):
        await slow.limit()
