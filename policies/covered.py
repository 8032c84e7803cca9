"""Which lines of the rules their tests evaluated, as regorus counts them.

A rule's lines count only where its own folder's tests reached them; a library's wherever any test did. A line of a body counts when
it was evaluated, the line of a head when the head was, which is after its body held. regorus counts by line, so the modules are
evaluated with each body on a line of its own; a line counts when all that stands on it does. And it evaluates a whole package for a
rule that is named through an import, so imports are written out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from core.errors import ConfigError
from policies.embedded import build
from policies.program import Node, bounds, read_module
from policies.syntax import dotted, line_of, parse
from policies.tree import Source


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """One module. `rule` is None for a library. Lines begin at 1."""

    file: str
    rule: str | None
    covered: tuple[int, ...]
    missed: tuple[int, ...]

    @property
    def percent(self) -> float:
        lines = len(self.covered) + len(self.missed)
        return 100.0 * len(self.covered) / lines if lines else 100.0


class Coverage:
    """Evaluates tests over modules that are told to count. Of the thread that made it, as regorus's engines are."""

    def __init__(self, sources: Sequence[Source], modules: Mapping[str, str]) -> None:
        split = {source.path: _split(source) for source in sources}
        self._sources = {source.path: source for source in sources if not source.is_test}
        self._origin = {path: origin for path, (_, origin) in split.items()}
        self._covered: dict[str, set[int]] = {path: set() for path in self._sources}
        self._lines: dict[str, set[int]] = {path: set() for path in self._sources}
        engine, problem = build({**modules, **{path: text for path, (text, _) in split.items()}})
        if engine is None:
            raise ConfigError(f"the rules do not load for their coverage: {problem}", where="policies")
        engine.set_enable_coverage(True)
        self._engine = engine

    def add(self, test: str, tested: str | None) -> None:
        """Evaluates one test of the rule `tested` (None: a library's test). What it answers is not minded here."""
        engine = self._engine.clone()
        engine.set_input_json("{}")
        with suppress(RuntimeError):
            engine.eval_rule_as_json(test)
        files: list[Mapping[str, Any]] = json.loads(engine.get_coverage_report_as_json())["files"]
        for found in files:
            source = self._sources.get(found["path"])
            if source is None:
                continue
            self._lines[source.path].update(found["covered"], found["not_covered"])
            if source.rule_id is None or source.rule_id == tested:
                self._covered[source.path].update(found["covered"])

    def files(self) -> list[FileCoverage]:
        """Every module, by place."""
        found = []
        for path, source in sorted(self._sources.items()):
            origin = self._origin[path]
            missed = {origin[line] for line in self._lines[path] - self._covered[path]}
            covered = {origin[line] for line in self._covered[path]} - missed
            if not self._lines[path]:
                missed = _statements(source)
            found.append(FileCoverage(source.file, source.rule_id, tuple(sorted(covered)), tuple(sorted(missed))))
        return found


def _split(source: Source) -> tuple[str, list[int]]:
    """The module with imports written out and a new line before each body; of each line (from 1) the line that it comes from."""
    text = source.text.encode()
    syntax = parse(source.path, source.text)
    edits: list[tuple[int, int, bytes]] = []
    for rule in syntax.rules:
        edits += [(*bounds(text, body["query"])[:1] * 2, b"\n") for body in _bodies(rule)]
        for variable in _variables(rule):
            path = syntax.aliases.get(variable["value"], ())
            if path[:1] == ("data",):
                span = variable["span"]
                edits.append((span["start"], span["end"], dotted(path).encode()))
    done, pieces, origin, line = 0, [], [0], 1
    for start, end, put in sorted(set(edits)):
        pieces += [text[done:start], put]
        line = _follow(origin, line, text[done:start], broken=put == b"\n")
        done = end
    _follow(origin, line, text[done:], broken=True)
    return b"".join([*pieces, text[done:]]).decode(), origin


def _follow(origin: list[int], line: int, piece: bytes, *, broken: bool) -> int:
    """Notes the lines that end in `piece`, and the one that `broken` ends behind it; gives the line that it ends on."""
    ended = piece.count(b"\n")
    origin += range(line, line + ended)
    if broken:
        origin.append(line + ended)
    return line + ended


def _bodies(rule: Node) -> list[Node]:
    return [body for body in rule.get("Spec", {}).get("bodies", ()) if body["query"]["stmts"]]


def _variables(node: Any) -> Iterator[Node]:
    """Every variable below a node."""
    if isinstance(node, list):
        for item in node:
            yield from _variables(item)
    elif isinstance(node, Mapping):
        for kind, value in node.items():
            if kind == "Var":
                yield value
            else:
                yield from _variables(value)


def _statements(source: Source) -> set[int]:
    """The lines of a module that no test came near: regorus's report leaves it out."""
    definitions = [definition for found in read_module(source).rules.values() for definition in found]
    lines = {definition.line for definition in definitions}
    return lines.union(
        line_of(statement) for definition in definitions for body in definition.bodies for statement in body.statements
    )


def ranges(lines: Iterable[int]) -> str:
    """`1-3, 7`."""
    found: list[list[int]] = []
    for line in lines:
        if found and line == found[-1][-1] + 1:
            found[-1][1:] = [line]
        else:
            found.append([line])
    return ", ".join("-".join(str(line) for line in part) for part in found)
