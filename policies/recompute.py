"""Deciding recorded inputs again, under bundles that do not run (yet): in this process, or in several when there is much to do.

Nothing is remembered: each input is decided afresh. The interpreter holds the interpreter lock, so what it has to decide beyond the
first inputs goes to worker processes; a Wasm module is quick enough alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from core.canonical import canonical
from core.decision import MANDATORY, Domain
from core.errors import BadInput, EngineUnavailable
from core.jsonread import loads_object
from policies.check import Loaded
from policies.embedded import Embedded
from policies.engine import Engine
from policies.memory import Memory
from policies.wasm import Wasm

Job = tuple[Domain, bytes]
Unjudged = Literal["", "unreadable", "schema", "mandatory"]
"""Why no rule can judge an input under this version; empty where rules did."""
ALONE = 1_000
"""Inputs that are decided in this process before workers are started: fewer than this take as long as starting them."""
MAX_WORKERS = 8


class Outcome(NamedTuple):
    """What a decision comes to: the parts that tell one outcome from another, in an order of their own.

    Entries are canonical JSON of {args, mode, path, rule}. Which rules were evaluated is no part: a new rule that finds nothing
    changes nothing for anybody. Nor is the exemption that covers an entry: it comes with the input, and early records do not name it.
    """

    allow: bool
    violations: tuple[bytes, ...]
    warnings: tuple[bytes, ...]
    grants: tuple[str, ...]
    obligations: bytes

    @property
    def denied_by(self) -> tuple[str, ...]:
        return tuple(sorted({rule_of(entry) for entry in self.violations}))

    @property
    def engine_failed(self) -> bool:
        return any(rule.startswith("engine/") for rule in self.denied_by)


def outcome(document: Mapping[str, Any]) -> Outcome:
    """The outcome that a decision document states, the log's or `Decision.as_json`. BadInput when it is none."""
    try:
        return Outcome(
            document["allow"] is True,
            _entries(document["violations"]),
            _entries(document["warnings"]),
            tuple(sorted(map(str, document["grants"]))),
            canonical(document["obligations"]),
        )
    except (KeyError, TypeError) as error:
        raise BadInput("is no decision document") from error


def rule_of(entry: bytes) -> str:
    return str(json.loads(entry)["rule"])


def _entries(found: Sequence[Mapping[str, Any]]) -> tuple[bytes, ...]:
    return tuple(sorted(canonical({name: entry[name] for name in ("args", "mode", "path", "rule")}) for entry in found))


@dataclass(frozen=True, slots=True)
class Judged:
    """One input decided: an outcome per bundle (none when `unjudged`), and what it is about. Few facts, shared between inputs."""

    unjudged: Unjudged
    outcomes: tuple[Outcome, ...]
    team: str = ""
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle to decide by: its rules, and its Wasm module where it brings one."""

    loaded: Loaded
    wasm: bytes | None = None
    deadline_ms: int = 1_000

    def engine(self) -> Engine:
        """A Wasm engine where there is a module, else the embedded one; it remembers nothing. ConfigError as those."""
        if self.wasm is None:
            return Engine(self.loaded, Embedded(self.loaded.bundle.modules, deadline_ms=self.deadline_ms), memory=Memory(0))
        return Engine(self.loaded, Wasm(self.wasm, deadline_ms=self.deadline_ms), memory=Memory(0))


class Judge:
    """Decides inputs under each of several bundles, in this process."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.engines = [candidate.engine() for candidate in candidates]

    def close(self) -> None:
        for engine in self.engines:
            engine.close()

    def __call__(self, job: Job) -> Judged:
        domain, data = job
        try:
            document = loads_object(data)
        except BadInput:
            return Judged("unreadable", ())
        outcomes = tuple(outcome(engine.decide(domain, document).as_json()) for engine in self.engines)
        if outcomes[0].denied_by == ("input/schema",):
            return Judged("schema", ())
        team, models = _about(domain, document)
        if set(document["mandatory"]) != set(MANDATORY[domain]):
            return Judged("mandatory", (), team, models)
        return Judged("", outcomes, team, models)


def _about(domain: Domain, document: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The team and the models of an input that fits its schema."""
    request = document["request"]
    if domain == "admission":
        named = {f"{use['name']}@{use['version']}" for use in request.get("models", ()) if {"name", "version"} <= use.keys()}
        return document["config"].get("team", ""), tuple(sorted(named))
    return request["principal"].get("team", ""), (f"{request['model']}@{request['version']}",)


class Recompute:
    """`Judge` over many inputs: `submit` some, collect what they came to, submit the next. Close it when done (`with`)."""

    def __init__(self, candidates: Sequence[Candidate], *, alone: int = ALONE, processes: int | None = None) -> None:
        """`processes`: how many workers may be started; as many as this process has cores when None, none below two."""
        self._candidates = tuple(candidates)
        self._judge = Judge(candidates)
        interpreted = any(candidate.wasm is None for candidate in candidates)
        cores = len(os.sched_getaffinity(0)) if processes is None else processes
        self._wanted = min(cores, MAX_WORKERS) if interpreted and cores > 1 else 0
        self._left = alone
        self._workers: list[_Worker] = []

    @property
    def engines(self) -> list[Engine]:
        return self._judge.engines

    @property
    def workers(self) -> int:
        return len(self._workers)

    def submit(self, jobs: Sequence[Job]) -> Callable[[], list[Judged]]:
        """Starts on `jobs`; what is returned waits for the answers, in order. EngineUnavailable when a worker died."""
        if self._left > 0 or not self._wanted:
            self._left -= len(jobs)
            done = [self._judge(job) for job in jobs]
            return lambda: done
        if not self._workers:
            self._workers = [_Worker(self._candidates) for _ in range(self._wanted)]
        share = -(-len(jobs) // len(self._workers))
        asked = [(worker, jobs[at * share : (at + 1) * share]) for at, worker in enumerate(self._workers)]
        for worker, part in asked:
            worker.ask(part)
        return lambda: list(chain.from_iterable([worker.answer() for worker, _ in asked]))

    def close(self) -> None:
        self._judge.close()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Worker:
    """A process with a judge of its own, asked over a pipe: one question, one answer, so that neither side fills the pipe unread."""

    def __init__(self, candidates: tuple[Candidate, ...]) -> None:
        # Spawned, not forked: the engines here have threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, candidates), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, jobs: Sequence[Job]) -> None:
        try:
            self._pipe.send(list(jobs))
        except OSError as error:
            raise EngineUnavailable("a worker process ended before it had decided", where="policies") from error

    def answer(self) -> list[Judged]:
        try:
            found: list[Judged] = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise EngineUnavailable("a worker process ended before it had decided", where="policies") from error
        return found

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()
        self._process.close()


def _work(pipe: Connection, candidates: tuple[Candidate, ...]) -> None:
    """A worker's life: answers until the other end is closed. Ctrl-C is for the process that was started by a person."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    judge = Judge(candidates)
    while True:
        try:
            jobs: list[Job] = pipe.recv()
        except EOFError:
            return
        pipe.send([judge(job) for job in jobs])
