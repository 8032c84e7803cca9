"""Why a test did not pass: the first statement of its body that does not hold, and where it compares two values, both.

The body is evaluated again, one statement more each time, as rules added to the test's own module, so that imports, helpers and
`with` mean what they mean there.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import regorus

from policies.program import LITERALS, Body, Definition, Node, literal, read_module, split, written
from policies.syntax import dotted, line_of
from policies.tree import Source

PROBE = "portcullis_probe"
MAX_LINES = 60


def why(modules: Mapping[str, str], source: Source, rule: str) -> str:
    """The failing statement with its line and, for `a == b`, what was expected and what was found. Empty when it cannot be said."""
    definitions = read_module(source).rules.get(rule, [])
    if len(definitions) != 1 or len(definitions[0].bodies) != 1:
        return ""
    return _Body(modules, source, definitions[0], definitions[0].bodies[0]).told()


class _Body:
    def __init__(self, modules: Mapping[str, str], source: Source, definition: Definition, body: Body) -> None:
        self.modules = modules
        self.source = source
        self.text = source.text.encode()
        self.name = dotted(("data", *definition.module.package, PROBE))
        self.statements = body.statements

    def told(self) -> str:
        number = next((i for i in range(len(self.statements)) if self.value("true", self.statements[: i + 1]) is None), None)
        if number is None:
            return ""
        statement = self.statements[number]
        text = " ".join(written(self.text, statement).split())
        shown = text if len(text) <= 160 else f"{text[:157]}…"
        return f"line {line_of(statement)} does not hold: {shown}{self.difference(number)}"

    def difference(self, number: int) -> str:
        statement = self.statements[number]
        kind, node = literal(statement)
        if kind != "Expr" or split(node["expr"])[0] != "BoolExpr" or split(node["expr"])[1]["op"] != "Eq":
            return ""
        sides = split(node["expr"])[1]
        before = self.statements[:number]
        left, right = (
            self.value(written(self.text, sides[side]) + self.modifiers(statement), before) for side in ("lhs", "rhs")
        )
        expected, found = (left, right) if _is_constant(sides["lhs"]) else (right, left)
        return f"\n{_diff(expected, found)}"

    def value(self, expression: str, before: Sequence[Node]) -> Any:
        """What an expression gives after these statements; None where they do not hold or it is undefined."""
        body = "\n".join([*(written(self.text, statement) for statement in before), f"{PROBE}_value := {expression}"])
        engine = regorus.Engine()
        try:
            for path, text in sorted(self.modules.items()):
                probe = f"\n{PROBE} := {PROBE}_value if {{\n{body}\n}}\n" if path == self.source.path else ""
                engine.add_policy(path, text + probe)
            engine.set_input_json("{}")
            given = json.loads(engine.eval_rule_as_json(self.name))
        except (RuntimeError, ValueError):
            return None
        return None if given == "<undefined>" else given

    def modifiers(self, statement: Node) -> str:
        """` with input as …`, as it is written."""
        found = statement.get("with_mods") or []
        return " " + " ".join(written(self.text, one) for one in found) if found else ""


def _is_constant(term: Node) -> bool:
    return split(term)[0] in LITERALS | {"String", "RawString", "Number", "Bool", "Null"}


def _diff(expected: Any, found: Any) -> str:
    lines = list(difflib.unified_diff(_shown(expected), _shown(found), "expected", "found", lineterm="", n=3))
    more = [f"… {len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else []
    return "\n".join([*lines[:MAX_LINES], *more])


def _shown(value: Any) -> list[str]:
    return ["(undefined)"] if value is None else json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
