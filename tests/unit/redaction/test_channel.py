"""The gateway's side of the redactor process: whatever the process does, every document comes back once, and never raw."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import redaction.channel
from redaction import cost, frames
from redaction.channel import Channel, command
from tests.conftest import ROOT

ECHO = """
import sys, time, os
from redaction import frames
def answer(value):
    sys.stdout.buffer.write(frames.encode(value)); sys.stdout.buffer.flush()
answer({"ready": True})
while (message := frames.read(sys.stdin.buffer)) is not None:
    said = message["document"]
    if said == "sleep": time.sleep(60)
    if said == "die": os._exit(9)
    if said == "nonsense": sys.stdout.buffer.write(b"\\x00\\x00\\x00\\x03{{{"); sys.stdout.buffer.flush(); continue
    if said == "endless": sys.stdout.buffer.write(b"\\xff\\xff\\xff\\xff"); sys.stdout.buffer.flush(); continue
    if said == "deep":
        data = b"[" * 200_000; sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data); sys.stdout.buffer.flush(); continue
    if said == "another": answer({"id": message["id"] + 1, "document": "somebody else's"}); continue
    if said == "failed": answer({"id": message["id"], "failed": True}); continue
    answer({"id": message["id"], "document": f"<{said}>"})
"""


class Collected:
    """What came back, in order."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.back: list[tuple[Any, Any]] = []
        self.changed = asyncio.Event()

    def send(self, *documents: Any) -> None:
        for document in documents:
            self.channel.submit(document, self._done)

    def _done(self, document: Any, reason: Any) -> None:
        self.back.append((document, reason))
        self.changed.set()

    async def until(self, count: int) -> list[tuple[Any, Any]]:
        async with asyncio.timeout(30):
            while len(self.back) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.back


@pytest.fixture
async def echo() -> AsyncIterator[Collected]:
    channel = Channel([sys.executable, "-c", ECHO], budget_seconds=5)
    channel.start()
    yield Collected(channel)
    await channel.close(0)


async def test_what_waits_while_it_starts_comes_back_in_order(echo: Collected) -> None:
    echo.send(*range(50))
    assert await echo.until(50) == [(f"<{n}>", None) for n in range(50)]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("die", "died"),
        ("nonsense", "failed"),
        ("endless", "failed"),
        ("deep", "failed"),
        ("another", "failed"),
        ("failed", "failed"),
    ],
)
async def test_one_bad_answer_withholds_one_document_and_no_other(echo: Collected, document: str, reason: str) -> None:
    echo.send("a", document, "b", "c")
    assert await echo.until(4) == [("<a>", None), (None, reason), ("<b>", None), ("<c>", None)]


async def test_one_that_is_slow_past_its_budget_is_withheld_and_the_process_replaced() -> None:
    channel = Channel([sys.executable, "-c", ECHO], budget_seconds=0.5)
    channel.start()
    collected = Collected(channel)
    collected.send("sleep", "b")
    assert await collected.until(2) == [(None, "slow"), ("<b>", None)]
    await channel.close()


async def test_slow_documents_never_set_the_channel_down() -> None:
    channel = Channel([sys.executable, "-c", ECHO], budget_seconds=0.5)
    channel.start()
    collected = Collected(channel)
    slow = redaction.channel.LOSSES + 1
    collected.send(*["sleep"] * slow, "b")
    assert await collected.until(slow + 1) == [(None, "slow")] * slow + [("<b>", None)]
    await channel.close()


async def test_what_would_outlast_the_budget_is_not_taken_on(echo: Collected) -> None:
    """Whoever sends what is slow must not keep the others waiting: it is known from the bytes."""
    limit = redaction.channel.MAX_SECONDS
    numbers = "1.2.3.4 " * int(limit / cost.NUMERIC / 7)
    keys = {f"k{n}": "v" for n in range(int(limit / cost.STRING / 2))}
    nested = json.dumps(keys)
    dear = [numbers, keys, nested, "\u0661" * int(limit / cost.WIDE / 2), "x" * redaction.channel.MAX_DOCUMENT]
    echo.send(*dear, "b", "word " * (redaction.channel.MAX_DOCUMENT // 6))
    back = await echo.until(len(dear) + 2)
    assert back[: len(dear)] == [(None, "too_large")] * len(dear)
    assert [reason for _, reason in back[len(dear) :]] == [None, None]
    assert cost.seconds(b"x" * redaction.channel.MAX_DOCUMENT) <= limit <= redaction.channel.BUDGET_SECONDS / 2


async def test_kill_dash_nine_loses_nothing(echo: Collected) -> None:
    echo.send("a")
    await echo.until(1)
    process = echo.channel._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    echo.send(*"bcd")
    back = (await echo.until(4))[1:]
    assert all(reason in (None, "died") for _, reason in back)
    assert [document for document, reason in back if reason is None] == [
        f"<{letter}>" for letter, (_, reason) in zip("bcd", back, strict=True) if reason is None
    ]
    echo.send("e")
    assert (await echo.until(5))[-1] == ("<e>", None), "it came back"


async def test_one_that_cannot_start_withholds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in (["/nowhere/redactor"], [sys.executable, "-c", "pass"], [sys.executable, "-c", "print('hello')"]):
        channel = Channel(program)
        channel.start()
        collected = Collected(channel)
        collected.send("a")
        assert (await collected.until(1))[0][1] in ("died", "failed")
        collected.send("b")
        assert collected.back[1:] == [(None, "died")], "no wait while it is down"
        await channel.close()


async def test_one_that_dies_while_nothing_waits_costs_no_document(echo: Collected) -> None:
    echo.send("a")
    await echo.until(1)
    process = echo.channel._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    echo.send("b")
    assert (await echo.until(2))[1] == ("<b>", None)


async def test_what_fails_with_the_answer_ends_no_supervision(echo: Collected, caplog: pytest.LogCaptureFixture) -> None:
    def broken(document: Any, reason: Any) -> None:
        raise KeyError(document)

    echo.channel.submit("CANARY", broken)
    echo.send("b")
    assert await echo.until(1) == [("<b>", None)]
    assert "KeyError" in caplog.text
    assert "CANARY" not in caplog.text


async def test_one_that_never_gives_an_answer_is_started_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOSSES times at once, then with pauses, in which what comes is withheld at once; and it does come back."""
    monkeypatch.setattr(redaction.channel, "FIRST_PAUSE", 0.05)
    started, mended = tmp_path / "started", tmp_path / "mended"
    program = f"""
import pathlib
pathlib.Path({str(started)!r}).open("a").write("x")
broken = not pathlib.Path({str(mended)!r}).exists()
""" + ECHO.replace("    said =", "    if broken: os._exit(1)\n    said =")
    channel = Channel([sys.executable, "-c", program])
    collected = Collected(channel)
    collected.send(*range(5))
    channel.start()
    assert await collected.until(5) == [(None, "died")] * 5
    assert started.read_text() == "x" * redaction.channel.LOSSES
    mended.touch()
    async with asyncio.timeout(30):
        while collected.back[-1] != ("<again>", None):
            collected.send("again")
            await asyncio.sleep(0.02)
    await channel.close()


async def test_the_queue_is_bounded_by_count_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction.channel, "MAX_WAITING", 3)
    channel = Channel([sys.executable, "-c", ECHO])
    collected = Collected(channel)
    collected.send(*"abcde")
    assert collected.back == [(None, "starting")] * 2
    channel.start()
    await collected.until(5)
    collected.back.clear()
    monkeypatch.setattr(redaction.channel, "MAX_WAITING_BYTES", 0)
    monkeypatch.setattr(redaction.channel, "MAX_DOCUMENT", 90)
    collected.send("x" * 40, "x" * 90, {1, 2}, "\ud800")
    assert [reason for _, reason in collected.back] == ["full", "too_large", "failed", "failed"]
    await channel.close()


async def test_closing_redacts_what_it_can_and_withholds_the_rest(echo: Collected) -> None:
    echo.send(*range(20))
    await echo.channel.close()
    assert echo.back == [(f"<{n}>", None) for n in range(20)]
    echo.send("late")
    assert echo.back[-1] == (None, "closing")
    other = Channel([sys.executable, "-c", ECHO])
    other.start()
    slow = Collected(other)
    slow.send("sleep", "b")
    await other.close(0.2)
    assert slow.back == [(None, "closing")] * 2


async def test_the_real_redactor_and_its_limits(capfd: pytest.CaptureFixture[str]) -> None:
    channel = Channel(command("default"), budget_seconds=30)
    channel.start()
    collected = Collected(channel)
    deep: Any = "jane.roe@example.org"
    for _ in range(80):
        deep = [deep]
    collected.send({"user": "jane.roe@example.org", "card": "4111 1111 1111 1111", "n": 3}, deep, "key AKIAZQ3DRSTUVWXY2345")
    back = await collected.until(3)
    assert back[0][0] == {"user": "<EMAIL_ADDRESS>", "card": "<CREDIT_CARD>", "n": 3}
    assert back[1] == (None, "failed")
    assert back[2][0] == "key <SECRET_KEY>"
    await channel.close()
    assert "jane" not in "".join(capfd.readouterr())


def test_the_gateway_imports_no_presidio() -> None:
    """129 MB and two seconds that belong to the child only."""
    program = "import sys, gateway.compose; print([name for name in ('presidio_analyzer', 'spacy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_the_redactor_cannot_be_dumped() -> None:
    program = """
import ctypes, resource
from redaction.worker import keep_in_memory
keep_in_memory()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == ("(0, 0) 0\n" if sys.platform == "linux" else done.stdout)


def test_a_redactor_whose_gateway_is_gone_says_the_errors_type_only() -> None:
    document = {"id": 1, "document": "CANARY " * 50_000}
    serve = "from redaction import worker\nworker.load = lambda _: type('R', (), {'redact_json': lambda self, v: (v, {})})()\n"
    for sent, said in (
        (frames.encode(document), b"BrokenPipeError"),
        (frames.encode(document)[:-9], b"ValueError"),
        (b"\x00\x00\x00\x02{{", b"JSONDecodeError"),
    ):
        read, write = os.pipe()
        with subprocess.Popen(
            [sys.executable, "-c", serve + "import sys; sys.argv = ['', 'default']; worker.main()"],
            stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE, cwd=ROOT,
        ) as process:  # fmt: skip
            os.close(write)
            os.read(read, 64)  # it is ready
            os.close(read)
            _, err = process.communicate(sent)
        assert (process.returncode, err) == (1, b"the redactor ends: " + said + b"\n")


def test_frames() -> None:
    import io

    data = frames.encode({"a": "é"})
    assert frames.read(io.BytesIO(data)) == {"a": "é"}
    assert frames.read(io.BytesIO(b"")) is None
    for cut in range(1, len(data)):
        with pytest.raises(ValueError, match="ends inside"):
            frames.read(io.BytesIO(data[:cut]))
