"""The runner of `policy test`: every `test_…` rule of the `_test.rego` files, in this process, so no OPA program is needed.

A test passes only when it is true. Undefined, false, or an error is a failure that says which. The same files run under `opa test`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import regorus

from core.errors import BadInput, ConfigError
from policies.check import load_tree
from policies.syntax import Path as Package
from policies.syntax import Syntax, dotted, engine_problem, parse
from policies.tree import Source, read_tree

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


def run(root: Path | None = None, extra: Sequence[Path] = (), only: str | None = None) -> list[TestResult]:
    """The result of every test below `root` (the shipped rules when None) and the extra folders.

    `only` keeps the tests whose name or file contains it. Raises ConfigError when the rules themselves do not pass
    `policy check`, when a test file cannot be read, and when there is no test at all.
    """
    tree = read_tree(root, extra)
    modules = dict(load_tree(root, extra).bundle.modules)
    tests = [test for source in tree.tests for test in _tests(source)]
    if not tests:
        raise ConfigError("no test_… rule was found in any _test.rego file", where=str(root or "policies/rego"))
    modules.update({source.path: source.text for source in tree.tests})
    chosen = [test for test in tests if only is None or only in test.name or only in test.source.file]
    return _run(modules, chosen)


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


def _run(modules: Mapping[str, str], tests: Sequence[_Test]) -> list[TestResult]:
    engine, problem = _engine(modules)
    if problem:
        raise ConfigError(f"the tests do not load together with the rules: {problem}", where="policies")
    results = []
    for test in tests:
        start = time.perf_counter()
        passed, detail = _evaluate(engine, test)
        results.append(TestResult(test.name, passed, detail, test.source.file, time.perf_counter() - start))
    return results


def _engine(modules: Mapping[str, str]) -> tuple[regorus.Engine | None, str]:
    engine = regorus.Engine()
    try:
        for path, text in sorted(modules.items()):
            engine.add_policy(path, text)
    except (RuntimeError, ValueError) as error:
        return None, engine_problem(str(error))
    return engine, ""


def _evaluate(engine: regorus.Engine | None, test: _Test) -> tuple[bool | None, str]:
    if test.rule.startswith(SKIPPED_PREFIX):
        return None, "skipped: its name starts with todo_"
    if test.problem or engine is None:
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
