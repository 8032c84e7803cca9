"""regorus's interpreter in this process: for commands, tests and `check`. Doors have it in one of its own (`policies.confined`).

A regorus engine may only be touched by the thread that made it (anything else panics), so one thread owns it and evaluates
what it is handed, one after the other. The interpreter lock is held during an evaluation anyway, so one thread loses nothing.
Nothing can stop it: an evaluation that took more processor time than the deadline is a denial afterwards.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import regorus

from core.decision import Domain
from core.errors import ConfigError
from policies.evaluate import EngineFailure
from policies.syntax import engine_place, engine_problem


@dataclass(frozen=True, slots=True)
class Answered:
    text: str | None
    problem: str
    place: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Job:
    rule: str
    document: str
    answer: Future[Answered]


class Embedded:
    """`Evaluator` over modules (path → text). ConfigError when they do not load together."""

    name = "embedded"

    def __init__(self, modules: Mapping[str, str], *, deadline_ms: int = 1_000) -> None:
        self._deadline_ms = deadline_ms
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        ready: Future[str] = Future()
        arguments = (dict(modules), self._jobs, ready)
        self._thread = threading.Thread(target=_work, args=arguments, name="policy-engine", daemon=True)
        self._thread.start()
        # A weak finalizer, so that an engine nobody closes does not keep its thread for ever.
        self._stop = weakref.finalize(self, self._jobs.put, None)
        problem = ready.result()
        if problem:
            raise ConfigError(f"these rules do not load together: {problem}", where="policies")

    def evaluate(self, domain: Domain, document: bytes) -> Any:
        return self.ask(f"data.portcullis.{domain}.decision", document)

    def ask(self, rule: str, document: bytes) -> Any:
        """The value of any rule of these modules (`data.a.b`) over `document`. EngineFailure as `evaluate`."""
        if not self._stop.alive:
            raise EngineFailure("engine/unavailable", problem="the engine has been closed")
        job = _Job(rule, document.decode(), Future())
        self._jobs.put(job)
        answer = self._wait(job.answer)
        if answer.text is not None and answer.seconds * 1000 > self._deadline_ms:
            raise EngineFailure("engine/timeout", deadline_ms=self._deadline_ms)
        return read(answer.text, answer.place)

    def _wait(self, answer: Future[Answered]) -> Answered:
        """The answer, or a failure once nobody is left to give one (a forked process has no copy of the thread)."""
        while self._thread.is_alive():
            try:
                return answer.result(timeout=1)
            except TimeoutError:
                continue
        if answer.done():
            return answer.result()
        raise EngineFailure("engine/unavailable", problem="the engine's thread has ended")

    async def evaluate_async(self, domain: Domain, document: bytes) -> Any:
        """The same: handing over to the loop would wait for the same interpreter lock."""
        return self.evaluate(domain, document)

    def close(self) -> None:
        self._stop()


def read(text: str | None, place: str) -> Any:
    """The decision document of an evaluation; EngineFailure when there is none."""
    if text is None:
        raise EngineFailure("engine/error", problem=f"evaluation failed at {place}" if place else "evaluation failed")
    try:
        return json.loads(text)
    except ValueError as error:
        raise EngineFailure("engine/error", problem="the answer is not JSON") from error


def _work(modules: Mapping[str, str], jobs: SimpleQueue[_Job | None], ready: Future[str]) -> None:
    """The owner thread: loads, then evaluates until it is handed None."""
    engine, problem = build(modules)
    ready.set_result(problem)
    if problem:
        return
    while (job := jobs.get()) is not None:
        job.answer.set_result(run(engine, job.rule, job.document))


def build(modules: Mapping[str, str]) -> tuple[Any, str]:
    """An engine of the calling thread over these modules, to be cloned for each evaluation; or None and what is wrong.

    It has answered once, which is when regorus analyses the modules: else every clone would, and a decision take 1.3 ms instead of 0.3.
    """
    engine = regorus.Engine()
    try:
        for path, text in sorted(modules.items()):
            engine.add_policy(path, text)
        engine.eval_query("true")
    except (RuntimeError, ValueError) as error:
        return None, engine_problem(str(error))
    return engine, ""


def run(engine: Any, rule: str, document: str) -> Answered:
    """One evaluation, on a clone, so that nothing of one input can be seen by the next.

    Answers with texts, never with the exception: its frames hold the engine, which must not die in another thread.
    """
    start = time.thread_time()
    text: str | None = None
    problem = ""
    try:
        clone = engine.clone()
        clone.set_input_json(document)
        text = clone.eval_rule_as_json(rule)
    except BaseException as error:  # a panic in Rust is no Exception, and the asker must get an answer whatever happened
        problem = str(error)
    return Answered(text, engine_problem(problem) if problem else "", engine_place(problem), time.thread_time() - start)
