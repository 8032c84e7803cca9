"""The interpreter in a process of its own: the same decisions, and a rule that does not end or eats memory is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.canonical import canonical
from core.errors import ConfigError
from policies.check import Loaded, load_tree
from policies.confined import Confined
from policies.embedded import Embedded
from policies.engine import Engine
from policies.evaluate import EngineFailure
from policies.memory import Memory
from tests.corpus import cases
from tests.unit.policies import trees

Make = Callable[..., Engine]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return trees.hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def make(hostile: Loaded) -> Iterator[Make]:
    made: list[Engine] = []

    def build(**options: Any) -> Engine:
        made.append(Engine(hostile, Confined(hostile.bundle.modules, **options), memory=Memory(0)))
        return made[-1]

    yield build
    for engine in made:
        engine.close()


def pid(engine: Engine) -> int:
    return int(engine._evaluator._child._process.pid)  # type: ignore[attr-defined]


def test_it_answers_as_the_interpreter_in_this_process() -> None:
    modules = load_tree().bundle.modules
    confined, inside = Confined(modules), Embedded(modules)
    chosen = [case for case in cases() if "schema" not in case.expect][::25]
    for case in chosen:
        document = canonical(case.input)
        assert confined.evaluate(case.domain, document) == inside.evaluate(case.domain, document)
    confined.close()
    inside.close()


def test_a_rule_that_does_not_end_is_stopped_and_the_next_decision_is_made(make: Make) -> None:
    engine = make(deadline_ms=400)
    first = pid(engine)
    denied = engine.decide("admission", trees.looping())
    assert (denied.allow, denied.code) == (False, "engine/timeout")
    assert engine.decide("admission", trees.admission_input(1)).allow
    assert pid(engine) != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


async def test_the_door_lives_while_a_rule_does_not_end(make: Make) -> None:
    """The event loop goes on, which it cannot where the interpreter lock is held."""
    engine = make(deadline_ms=400)
    stuck = asyncio.ensure_future(engine.decide_async("admission", trees.looping()))
    turns = 0
    while not stuck.done():
        turns += 1
        await asyncio.sleep(0.01)
    assert (await stuck).code == "engine/timeout"
    assert turns > 3


async def test_who_waits_behind_it_is_answered_within_the_deadline_too(make: Make) -> None:
    engine = make(deadline_ms=400)
    decisions = await asyncio.gather(*(engine.decide_async("admission", trees.looping(i)) for i in range(20)))
    assert {decision.code for decision in decisions} == {"engine/timeout"}
    assert max(decision.duration_us for decision in decisions) < 20 * 400_000 / 2, "not one deadline after the other"


def test_a_rule_that_eats_memory_is_stopped_and_the_next_decision_is_made(make: Make) -> None:
    engine = make(deadline_ms=20_000, max_memory=96 * 1024 * 1024)
    denied = engine.decide("admission", trees.eating())
    assert (denied.allow, denied.code) == (False, "engine/error")
    assert "memory" in denied.reason
    assert engine.decide("admission", trees.admission_input(1)).allow


def test_one_that_was_killed_is_started_again(make: Make) -> None:
    engine = make()
    os.kill(pid(engine), signal.SIGKILL)
    os.waitid(os.P_PID, pid(engine), os.WEXITED | os.WNOWAIT)
    assert engine.decide("admission", trees.admission_input(1)).allow


def test_an_error_in_a_rule_is_a_denial_with_its_place(tmp_path: Path) -> None:
    body = "default checked := false\n\nchecked := true\n\ndeny contains {} if input.request.namespace + 1 > 2\n"
    loaded = load_tree(trees.write(tmp_path, trees.files(admission__gpu_quota=body)))
    engine = Engine(loaded, Confined(loaded.bundle.modules))
    decision = engine.decide("admission", trees.admission_input(1))
    engine.close()
    assert decision.code == "engine/error"
    assert "gpu-quota" in decision.reason


def test_rules_that_do_not_load_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not load together"):
        Confined({"a.rego": "package portcullis.admission\n\ndecision := {\n"})


def test_a_closed_engine_says_so_and_leaves_no_process(make: Make) -> None:
    engine = make()
    child = pid(engine)
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert engine.decide("admission", trees.admission_input(1)).code == "engine/unavailable"


def test_it_sees_nothing_of_the_doors_environment(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTCULLIS_TOKEN", "canary-4711")
    assert b"canary-4711" not in Path(f"/proc/{pid(make())}/environ").read_bytes()


ORPHAN = """
import sys, threading
from policies.confined import Confined
engine = Confined({"a.rego": open(sys.argv[1]).read()}, deadline_ms=3000)
print(engine._child._process.pid, flush=True)
if sys.argv[2] == "busy":
    threading.Thread(target=engine.evaluate, args=("admission", open(sys.argv[3], "rb").read())).start()
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_it_does_not_outlive_the_door(tmp_path: Path, state: str) -> None:
    """Killed at once; busy in an evaluation, the child ends by its own alarm."""
    loop = "package portcullis.admission\n\ndecision := {1 | some a in input.l; some b in input.l; some c in input.l; a+b+c == -1}\n"
    (tmp_path / "a.rego").write_text(loop)
    (tmp_path / "i.json").write_bytes(canonical({"l": list(range(2000))}))
    command = [sys.executable, "-c", ORPHAN, str(tmp_path / "a.rego"), state, str(tmp_path / "i.json")]
    door = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert door.stdin is not None
    assert door.stdout is not None
    child = int(door.stdout.readline())
    before, until = _ticks(child), time.monotonic() + 20
    while state == "busy" and _ticks(child) < before + 30:
        assert time.monotonic() < until, "it evaluates nothing"
        time.sleep(0.02)
    door.kill()
    door.wait()
    door.stdin.close()
    door.stdout.close()
    until = time.monotonic() + 20
    while _lives(child):
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.02)


def _ticks(process: int) -> int:
    """Processor time it used so far, in hundredths of a second (proc_pid_stat(5), field 14)."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[11])


def _lives(process: int) -> bool:
    """A zombie, which only waits to be collected by whoever inherited it, does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_forked_process_is_told(make: Make) -> None:
    engine = make()
    child = os.fork()
    if child == 0:
        try:
            engine._evaluator.evaluate("admission", b"{}")
        except EngineFailure as failure:
            os._exit(7 if failure.rule == "engine/unavailable" else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
