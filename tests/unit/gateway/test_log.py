"""The inference log: one line per call, redacted or without content, and never a word that was said in the clear."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from gateway.app import streamed_text
from gateway.log import KEPT, InferenceLog
from gateway.telemetry import Metrics
from redaction.channel import Channel, Done, command
from redaction.policy import read_policy

RECORD: dict[str, Any] = dict.fromkeys(KEPT, "x") | {
    "request": {"model": "m", "user": "jane.roe@example.org", "messages": [{"role": "user", "content": "CANARY jane.roe@example.org"}]},
    "response": {"text": ["CANARY 4111 1111 1111 1111"]},
}  # fmt: skip


class Answering:
    """A redactor that answers what the test says."""

    def __init__(self, reason: Any = None) -> None:
        self.reason = reason
        self.seen: list[Any] = []

    def submit(self, document: Any, done: Done) -> None:
        self.seen.append(document)
        done(None if self.reason else {"request": "r", "response": "s"}, self.reason)

    async def close(self) -> None:
        """Nothing to end."""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("reason", ["died", "slow", "full", "failed", "too_large", "closing"])
async def test_without_a_redactor_the_line_says_what_happened_and_why_no_more(tmp_path: Path, reason: str) -> None:
    metrics = Metrics()
    log = InferenceLog(tmp_path / "a.jsonl", read_policy("patterns"), Answering(reason), metrics)
    log.offer(RECORD)
    await log.close()
    assert lines(tmp_path / "a.jsonl") == [dict.fromkeys(KEPT, "x") | {"content": "withheld", "withheld_because": reason}]
    assert metrics.withheld.labels(reason)._value.get() == 1
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o600


async def test_content_that_is_withheld_never_even_goes_to_the_redactor(tmp_path: Path) -> None:
    redactor = Answering()
    log = InferenceLog(tmp_path / "a.jsonl", read_policy("default"), redactor, Metrics())
    assert not log.keeps_content
    log.offer(RECORD)
    await log.close()
    assert "CANARY" not in json.dumps(redactor.seen)
    (line,) = lines(tmp_path / "a.jsonl")
    assert (line["content"], line["request"]) == ("withheld", "r")


@pytest.mark.parametrize(("policy", "content"), [("default", "withheld"), ("patterns", "redacted")])
async def test_through_the_real_redactor(tmp_path: Path, policy: str, content: str) -> None:
    channel = Channel(command(policy), budget_seconds=30)
    log = InferenceLog(tmp_path / "a.jsonl", read_policy(policy), channel, Metrics())
    channel.start()
    for _ in range(20):
        log.offer(RECORD)
    async with asyncio.timeout(60):
        while len(lines(tmp_path / "a.jsonl")) < 20:
            await asyncio.sleep(0.02)
    await log.close()
    text = (tmp_path / "a.jsonl").read_text()
    assert "jane.roe" not in text
    assert "4111" not in text
    assert ("CANARY" in text) == (content == "redacted")
    for line in lines(tmp_path / "a.jsonl"):
        assert line["content"] == content
        assert line["request"]["user"] == "<EMAIL_ADDRESS>"
        assert "withheld_because" not in line


async def test_a_log_that_cannot_be_written_stops_nothing_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    log = InferenceLog(tmp_path / "a.jsonl", read_policy("default"), Answering(), metrics)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.offer(RECORD)
    assert metrics.unlogged._value.get() == 1
    log.offer(RECORD)
    await log.close()
    assert len(lines(tmp_path / "a.jsonl")) == 1
    with pytest.raises(ConfigError, match="cannot be opened"):
        InferenceLog(tmp_path, read_policy("default"), Answering(), metrics)


def test_a_streams_text_is_put_together_before_it_is_judged() -> None:
    """An address that was cut into tokens is one address again; what is no event, or cut at the end, is passed over."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in ("jane", ".roe@exam", "ple.org")]
    events = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)
    assert streamed_text(events) == ["jane.roe@example.org"]
    assert streamed_text(events + b"data: {broken\n: comment\ndata: [DONE]\n\n" + b'data: {"choices": 3}\n') == [
        "jane.roe@example.org"
    ]
    assert streamed_text(b"") == []
