"""Deciding recorded inputs again, under bundles that do not run (yet).

Nothing is remembered: each input is decided afresh. A rule that nobody has tried may not end, so it is the engines of doors that decide
here, which stop one. The interpreter works in a process of its own: beyond the first inputs there is one for each core. A Wasm module is
quick enough alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from core.canonical import canonical
from core.decision import MANDATORY, Domain
from core.errors import BadInput
from core.jsonread import loads_object
from policies.check import Loaded
from policies.confined import Confined
from policies.engine import Engine
from policies.memory import Memory
from policies.wasm import Wasm

Job = tuple[Domain, bytes]
Unjudged = Literal["", "unreadable", "schema", "mandatory"]
"""Why no rule can judge an input under this version; empty where rules did."""
ALONE = 1_000
"""Inputs that one judge decides before there are more: fewer take as long as starting another."""
MAX_JUDGES = 8


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
        modules = self.loaded.bundle.modules
        evaluator = (
            Confined(modules, deadline_ms=self.deadline_ms)
            if self.wasm is None
            else Wasm(self.wasm, deadline_ms=self.deadline_ms)
        )
        return Engine(self.loaded, evaluator, memory=Memory(0))


class Judge:
    """Decides inputs under each of several bundles, one after the other."""

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

    def __init__(self, candidates: Sequence[Candidate], *, alone: int = ALONE, judges: int | None = None) -> None:
        """`judges`: how many may decide beside each other; as many as this process has cores when None."""
        self._candidates = tuple(candidates)
        self._judges = [Judge(candidates)]
        interpreted = any(candidate.wasm is None for candidate in candidates)
        self._wanted = min(judges or len(os.sched_getaffinity(0)), MAX_JUDGES) if interpreted else 1
        self._left = alone
        self._threads = ThreadPoolExecutor(self._wanted, thread_name_prefix="whatif")

    @property
    def engines(self) -> list[Engine]:
        return self._judges[0].engines

    @property
    def judges(self) -> int:
        return len(self._judges)

    def submit(self, jobs: Sequence[Job]) -> Callable[[], list[Judged]]:
        """Starts on `jobs`; what is returned waits for what they come to, in order. One submission at a time."""
        if self._left <= 0:
            self._judges += [Judge(self._candidates) for _ in range(self._wanted - len(self._judges))]
        self._left -= len(jobs)
        share = -(-len(jobs) // len(self._judges))
        parts = [jobs[at * share : (at + 1) * share] for at in range(len(self._judges))]
        running = [self._threads.submit(_all, judge, part) for judge, part in zip(self._judges, parts, strict=True)]
        return lambda: list(chain.from_iterable([part.result() for part in running]))

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for judge in self._judges:
            judge.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _all(judge: Judge, jobs: Sequence[Job]) -> list[Judged]:
    return [judge(job) for job in jobs]
