"""The inference log: one line per call, redacted or without content, and never a word that was said in the clear."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.settings import parse, rooted
from gateway.compose import build
from gateway.log import KEPT, MAX_KEPT_BYTES, InferenceLog
from gateway.telemetry import Metrics
from redaction.channel import Channel, Done, command
from redaction.policy import read_policy
from tests.simulators.ports import MemoryModels
from tests.unit.gateway.conftest import Rig

ECHO = """
import sys
from redaction import frames
out = sys.stdout.buffer
out.write(frames.encode({"ready": True})); out.flush()
while (message := frames.read(sys.stdin.buffer)) is not None:
    out.write(frames.encode(message)); out.flush()
"""

RECORD: dict[str, Any] = dict.fromkeys(KEPT, "x") | {
    "bytes": 300,
    "served": "m",
    "request": {"model": "m", "user": "jane.roe@example.org", "messages": [{"role": "user", "content": "CANARY jane.roe@example.org"}]},
    "response": {"text": ["CANARY 4111 1111 1111 1111"]},
}  # fmt: skip


class Answering:
    """A redactor that answers what the test says."""

    def __init__(self, reason: Any = None, answer: Any = None) -> None:
        self.reason = reason
        self.answer = answer or {"request": "r", "response": "s"}
        self.seen: list[Any] = []

    def submit(self, document: Any, done: Done) -> None:
        self.seen.append(document)
        done(None if self.reason else self.answer, self.reason)

    async def close(self) -> None:
        """Nothing to end."""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("reason", ["starting", "died", "slow", "full", "failed", "too_large", "closing"])
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


@pytest.mark.parametrize(
    "answer", ["text", [1], {"request": 1}, {"request": 1, "response": 2, "status": 200}, {"content": "none"}]
)
async def test_an_answer_of_another_shape_cannot_write_over_what_happened(tmp_path: Path, answer: Any) -> None:
    log = InferenceLog(tmp_path / "a.jsonl", read_policy("patterns"), Answering(answer=answer), Metrics())
    log.offer(RECORD)
    await log.close()
    assert lines(tmp_path / "a.jsonl") == [dict.fromkeys(KEPT, "x") | {"content": "withheld", "withheld_because": "failed"}]


async def test_what_is_said_at_length_is_withheld_before_it_is_looked_at(tmp_path: Path) -> None:
    for policy, reason in (("patterns", "too_large"), ("default", None)):
        redactor = Answering()
        log = InferenceLog(tmp_path / f"{policy}.jsonl", read_policy(policy), redactor, Metrics())
        log.offer(RECORD | {"bytes": MAX_KEPT_BYTES + 1})
        await log.close()
        assert lines(tmp_path / f"{policy}.jsonl")[0].get("withheld_because") == reason
        assert bool(redactor.seen) == (reason is None), "of a withheld content the shape is always small"


ASK: dict[str, Any] = {
    "model": "llama-3", "user": "jane.roe@example.org", "metadata": {"team": "AKIAZQ3DRSTUVWXY2345", "CANARY of mine": "x"},
    "messages": [{"role": "user", "content": "CANARY jane.roe@example.org 4111 1111 1111 1111 AKIAZQ3DRSTUVWXY2345"}],
}  # fmt: skip
TOKENS = ("CANARY ", "jane", ".roe@", "example", ".org", " 4111 1111", " 1111 1111")
RAW = ("jane", "4111", "AKIAZ", "example.org")


class Shared:
    """One redactor for several logs, for its start takes two seconds."""

    def __init__(self, channel: Channel) -> None:
        self.submit = channel.submit

    async def close(self) -> None:
        """The channel's owner closes it."""


async def ask(rig: Rig) -> None:
    """One call answered whole and one streamed, both with personal data cut into tokens."""
    rig.whole["choices"] = [{"message": {"content": "".join(TOKENS)}, "logprobs": {"content": [{"token": t} for t in TOKENS]}}]
    rig.chunks[:] = [{"choices": [{"index": 0, "delta": {"content": token}}]} for token in TOKENS]
    for stream in (False, True):
        async with rig.post({**ASK, "stream": stream}) as response:
            assert response.status == 200
            assert "jane" in await response.text()


async def test_of_a_call_through_the_door_nothing_raw_is_logged(rig: Rig, tmp_path: Path) -> None:
    channel = Channel(command("patterns"), budget_seconds=30)
    channel.start()
    logs = {
        name: InferenceLog(tmp_path / f"{name}.jsonl", read_policy(name), Shared(channel), rig.metrics)
        for name in ("default", "patterns")
    }
    for log in logs.values():
        rig.app.sink = log
        await ask(rig)
    rig.chunks[:] = [{"choices": [{"index": 0, "delta": {"content": "CANARY " + "x" * MAX_KEPT_BYTES}}]}]
    async with rig.post({**ASK, "stream": True}) as response:
        assert len(await response.read()) > MAX_KEPT_BYTES
    await channel.close(60)
    for name, log in logs.items():
        await log.close()
        text = (tmp_path / f"{name}.jsonl").read_text()
        assert not [raw for raw in RAW if raw in text]
        assert ("CANARY" in text) == (name == "patterns")
    withheld, patterns = (lines(tmp_path / f"{name}.jsonl") for name in ("default", "patterns"))
    assert [line["content"] for line in withheld] == ["withheld"] * 2
    long = patterns.pop()
    assert (long["content"], long["withheld_because"]) == ("withheld", "too_large")
    assert [line["content"] for line in patterns] == ["redacted"] * 2
    assert patterns[1]["response"] == {"choices": [{"index": 0, "delta": {"content": "CANARY <EMAIL_ADDRESS> <CREDIT_CARD>"}}]}
    for line in patterns:
        assert (line["request"]["user"], line["request"]["metadata"]["team"]) == ("<EMAIL_ADDRESS>", "<SECRET_KEY>")
    for line in withheld:
        assert (line["request"]["user"], line["request"]["metadata"]) == ({"withheld_characters": 20}, {"withheld_fields": 2})
    assert not [line for line in [*withheld, *patterns] if "withheld_because" in line]


async def test_an_upstreams_count_is_no_place_for_a_number_that_says_something(rig: Rig, tmp_path: Path) -> None:
    card = 4111_1111_1111_1111
    rig.whole["usage"] = {"prompt_tokens": card, "completion_tokens": 2, "total_tokens": -card}
    rig.chunks[:] = [{"choices": [], "usage": rig.whole["usage"]}]
    rig.app.sink = log = InferenceLog(tmp_path / "a.jsonl", read_policy("default"), Answering(), rig.metrics)
    for stream in (False, True):
        async with rig.post({**ASK, "stream": stream}) as response:
            await response.read()
    await log.close()
    assert [line["usage"] for line in lines(tmp_path / "a.jsonl")] == [{"completion_tokens": 2}] * 2


async def test_the_door_answers_without_any_redactor(rig: Rig, tmp_path: Path) -> None:
    channel = Channel(["/nowhere/redactor"])
    channel.start()
    rig.app.sink = log = InferenceLog(tmp_path / "a.jsonl", read_policy("patterns"), channel, rig.metrics)
    await ask(rig)
    await log.close()
    assert [line["withheld_because"] for line in lines(tmp_path / "a.jsonl")] == ["died"] * 2
    assert rig.metrics.withheld.labels("died")._value.get() == 2
    text = (tmp_path / "a.jsonl").read_text()
    assert not [raw for raw in ("CANARY", "<EMAIL", *RAW) if raw in text]


@pytest.mark.parametrize("policy", ["lax", "own.yaml"])
async def test_a_log_policy_that_cannot_be_used_does_not_start(tmp_path: Path, policy: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("description: x\ncontent: redact\nentities: [E_MAIL]\n")
    name = str(own) if policy == "own.yaml" else policy
    settings = rooted(parse(f"redaction: {{policy: '{name}'}}"), tmp_path / "state")
    with pytest.raises(ConfigError, match="default, patterns" if policy == "lax" else "nothing finds E_MAIL"):
        await build(settings, {}, models=lambda _: MemoryModels())


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
    assert len(lines(tmp_path / "a.jsonl")) == 1
    torn = b'{"id":'

    def half(file: int, data: bytes) -> int:
        return real(file, torn)

    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        log.offer(RECORD)
    log.offer(RECORD)
    assert metrics.unlogged._value.get() == 2
    after = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert (len(after), after[1]) == (3, torn), "a line that was torn spoils no other"
    assert json.loads(after[2])["content"] == "withheld"
    with pytest.raises(ConfigError, match="cannot be opened"):
        InferenceLog(tmp_path, read_policy("default"), Answering(), metrics)
    await log.close()


class Slow(Answering):
    """A redactor that answers when the test says."""

    def submit(self, document: Any, done: Done) -> None:
        self.seen.append(done)


def ended(path: Path) -> list[tuple[str, Any]]:
    return [(line["id"], line.get("withheld_because")) for line in lines(path)]


async def test_an_oversized_record_has_its_place_and_neither_overtakes_nor_delays(tmp_path: Path) -> None:
    path, redactor = tmp_path / "a.jsonl", Slow()
    log = InferenceLog(path, read_policy("patterns"), redactor, Metrics())
    for name, size in (("a", 1), ("large", MAX_KEPT_BYTES + 1), ("b", 1), ("c", 1)):
        log.offer(RECORD | {"id": name, "bytes": size})
    assert ended(path) == [], "it overtakes none"
    a, b, _ = redactor.seen
    b(redactor.answer, None)
    a(redactor.answer, None)
    assert ended(path) == [("a", None), ("large", "too_large"), ("b", None)], "it delays none"
    await log.close()
    assert ended(path)[3:] == [("c", "closing")]


async def test_what_waits_for_an_earlier_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.log.MAX_UNWRITTEN", 2)
    path, redactor = tmp_path / "a.jsonl", Slow()
    log = InferenceLog(path, read_policy("patterns"), redactor, Metrics())
    for name, size in (("a", 1), ("b", 1), ("large", MAX_KEPT_BYTES + 1)):
        log.offer(RECORD | {"id": name, "bytes": size})
    assert ended(path) == [("large", "too_large")]
    await log.close()
    assert [name for name, _ in ended(path)] == ["large", "a", "b"]


async def test_a_redactor_that_refuses_holds_no_later_line_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Raising(Answering):
        def submit(self, document: Any, done: Done) -> None:
            raise KeyError("CANARY")

    log = InferenceLog(tmp_path / "a.jsonl", read_policy("patterns"), Raising(), Metrics())
    log.offer(RECORD)
    await log.close()
    assert lines(tmp_path / "a.jsonl")[0]["withheld_because"] == "failed"
    assert "CANARY" not in caplog.text


async def test_a_number_that_json_does_not_have_spoils_no_line(tmp_path: Path) -> None:
    """Python reads NaN, Infinity and 1e999 out of an upstream's answer, and would write what no other reader takes."""
    seen = {"choices": [{"message": {"content": "x"}, "score": json.loads("NaN")}], "usage": json.loads("1e999")}
    for name, answer in (("patterns", None), ("default", None), ("patterns", {"request": 1, "response": float("nan")})):
        path = tmp_path / f"{name}{answer is None}.jsonl"
        redactor = Answering(answer=answer)
        log = InferenceLog(path, read_policy(name), redactor, Metrics())
        log.offer(RECORD | {"response": seen})
        await log.close()
        json.dumps(redactor.seen, allow_nan=False)
        (line,) = [json.loads(text, parse_constant=pytest.fail) for text in path.read_text().splitlines()]
        assert line.get("withheld_because") == (None if answer is None else "failed")


async def test_a_lone_surrogate_fails_its_own_record_only(tmp_path: Path) -> None:
    channel = Channel([sys.executable, "-c", ECHO])
    channel.start()
    log = InferenceLog(tmp_path / "a.jsonl", read_policy("patterns"), channel, Metrics())
    log.offer(RECORD | {"response": json.loads('{"choices":[{"message":{"content":"\\ud800"}}]}')})
    log.offer(RECORD)
    await log.close()
    assert [line.get("withheld_because") for line in lines(tmp_path / "a.jsonl")] == ["failed", None]


def test_metrics_say_how_the_engine_does() -> None:
    from types import SimpleNamespace

    from prometheus_client import generate_latest

    metrics = Metrics()
    metrics.watch(SimpleNamespace(memory=SimpleNamespace(hits=3, misses=2), failures={"engine/timeout": 4}, paused=True))
    text = generate_latest(metrics.registry).decode()
    assert 'portcullis_gateway_decisions_total{how="remembered"} 3.0' in text
    assert 'portcullis_gateway_decisions_total{how="made"} 2.0' in text
    assert 'portcullis_gateway_engine_failures_total{reason="engine/timeout"} 4.0' in text
    assert "portcullis_gateway_engine_paused 1.0" in text
