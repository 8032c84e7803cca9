"""The runner of `policy test`: every `test_…` rule of the `_test.rego` files, in this process, so no OPA program is needed.

A test passes only when it is true. Undefined, false, or an error is a failure that says which, and shows what was expected and found
where it compares. The same files run under `opa test`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadInput, ConfigError
from policies.check import load_tree
from policies.covered import Coverage, FileCoverage
from policies.embedded import build
from policies.failure import why
from policies.syntax import Path as Package
from policies.syntax import Syntax, dotted, engine_problem, parse
from policies.tree import SHIPPED, Source, read_tree

PREFIX = "test_"
SKIPPED_PREFIX = "todo_"
_UNDEFINED = '"<undefined>"'


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test. `passed` is None for a skipped one; `detail` says why it did not pass; `duration` in seconds."""

    __test__ = False  # not a pytest class

    name: str
    passed: bool | None
    detail: str
    file: str
    duration: float


@dataclass(frozen=True, slots=True)
class _Test:
    package: Package
    rule: str
    source: Source
    problem: str

    @property
    def name(self) -> str:
        return dotted(("data", *self.package, self.rule))


@dataclass(frozen=True, slots=True)
class TestRun:
    """Every chosen test, and with `coverage` what they evaluated (empty without)."""

    __test__ = False  # not a pytest class

    results: tuple[TestResult, ...]
    files: tuple[FileCoverage, ...]


def run(root: Path | None = None, extra: Sequence[Path] = (), only: str | None = None) -> list[TestResult]:
    """The result of every test below `root` (the shipped rules when None) and the extra folders.

    `only` keeps the tests whose name or file contains it. Raises ConfigError when the rules themselves do not pass
    `policy check`, when a test file cannot be read, and when there is no test at all.
    """
    return list(run_all(root, extra, only).results)


def run_all(
    root: Path | None = None, extra: Sequence[Path] = (), only: str | None = None, *, coverage: bool = False
) -> TestRun:
    """As `run`, with the coverage if it is asked for; tests that `only` leaves out cover nothing."""
    tree = read_tree(root, extra)
    modules = dict(load_tree(root, extra).bundle.modules)
    tests = [test for source in tree.tests for test in _tests(source)]
    if not tests:
        raise ConfigError("no test_… rule was found in any _test.rego file", where=str(root or "policies/rego"))
    modules.update({source.path: source.text for source in tree.tests})
    chosen = [test for test in tests if only is None or only in test.name or only in test.source.file]
    results = _run(modules, chosen)
    return TestRun(tuple(results), tuple(_covered(tree.sources, modules, chosen)) if coverage else ())


def changes(
    root: Path | None = None, extra: Sequence[Path] = (), *, wait: Callable[[], None] = lambda: time.sleep(0.5)
) -> Iterator[None]:
    """Once at the start, and then each time when a .rego file was written, added or taken away. `wait` passes between two looks."""
    seen = None
    while True:
        now = _written(root or SHIPPED, *extra)
        if now != seen:
            seen = now
            yield
        wait()


def _written(*folders: Path) -> frozenset[tuple[str, int, int]]:
    found = set()
    for folder in folders:
        for file in folder.rglob("*.rego"):
            try:
                about = file.stat()
            except FileNotFoundError:
                continue  # an editor replaces files; the next look sees the new one
            found.add((str(file), about.st_mtime_ns, about.st_size))
    return frozenset(found)


def _tests(source: Source) -> list[_Test]:
    try:
        syntax = parse(source.path, source.text)
    except BadInput as error:
        raise ConfigError(error.message, where=source.file) from error
    return [
        _Test(syntax.package, name, source, _problem(syntax, name, times))
        for name, times in Counter(head.name for head in syntax.heads).items()
        if name.startswith((PREFIX, SKIPPED_PREFIX))
    ]


def _problem(syntax: Syntax, name: str, times: int) -> str:
    if times > 1:
        return f"{times} tests have this name, so one could hide another's failure"
    kind = next(head.kind for head in syntax.heads if head.name == name)
    return "" if kind == "complete" else f"a test is `{name} if …`; this is a {kind} rule"


def _covered(sources: Sequence[Source], modules: Mapping[str, str], tests: Sequence[_Test]) -> list[FileCoverage]:
    coverage = Coverage(sources, modules)
    for test in tests:
        if not test.problem and not test.rule.startswith(SKIPPED_PREFIX):
            coverage.add(test.name, test.source.rule_id)
    return coverage.files()


def _run(modules: Mapping[str, str], tests: Sequence[_Test]) -> list[TestResult]:
    engine, problem = build(modules)
    if engine is None:
        raise ConfigError(f"the tests do not load together with the rules: {problem}", where="policies")
    results = []
    for test in tests:
        start = time.perf_counter()
        passed, detail = _evaluate(engine, test)
        duration = time.perf_counter() - start
        if passed is False and not test.problem:
            reason = why(modules, test.source, test.rule)
            detail = f"{detail}; {reason}" if reason else detail
        results.append(TestResult(test.name, passed, detail, test.source.file, duration))
    return results


def _evaluate(engine: Any, test: _Test) -> tuple[bool | None, str]:
    if test.rule.startswith(SKIPPED_PREFIX):
        return None, "skipped: its name starts with todo_"
    if test.problem:
        return False, test.problem
    try:
        clone = engine.clone()
        clone.set_input_json("{}")
        value = clone.eval_rule_as_json(test.name)
    except (RuntimeError, ValueError) as error:
        return False, engine_problem(str(error))
    if value == "true":
        return True, ""
    return False, "undefined: its body does not hold" if value == _UNDEFINED else f"it is {value[:200]}, not true"
