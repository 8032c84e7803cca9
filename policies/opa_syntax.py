"""The syntax tree of a module as an OPA server gives it (`GET /v1/policies`, field `ast`), reduced like regorus's.

It is the compiled tree: imports are resolved, `data.…` is written out, operators are calls (`plus`, `div`). Every kind of term and
of expression is known by name here; another one is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.syntax import Head, Path, Syntax, Use, UseKind

_PLAIN_TERMS = frozenset({"null", "boolean", "number", "string", "var"})
_COMPREHENSIONS = frozenset({"arraycomprehension", "setcomprehension", "objectcomprehension"})
_EXPRESSION = frozenset({"index", "terms", "negated", "generated", "with", "location"})
_RULE = frozenset({"head", "body", "else", "default", "annotations", "location"})
_HEAD = frozenset({"name", "ref", "args", "key", "value", "assign", "location"})


def read(ast: Mapping[str, Any]) -> Syntax:
    """The module's syntax. Never raises for a strange tree: what is not understood becomes a `syntax` use."""
    walk = _Walk()
    try:
        walk.module(ast)
    except (RecursionError, KeyError, TypeError, AttributeError, IndexError, ValueError):
        walk.use("syntax", ("unreadable",))
    return walk.syntax


class _Walk:
    def __init__(self) -> None:
        self.syntax = Syntax()

    def use(self, kind: UseKind, path: Path) -> None:
        self.syntax.uses.append(Use(kind, path, 0))

    def module(self, ast: Mapping[str, Any]) -> None:
        package = _parts(ast["package"]["path"])
        self.syntax.package = package[1:]
        for rule in ast.get("rules") or []:
            self._rule(rule)

    def _known(self, node: Mapping[str, Any], names: frozenset[str]) -> None:
        for name in sorted(node.keys() - names):
            self.use("syntax", (str(name),))

    def _rule(self, rule: Mapping[str, Any]) -> None:
        self._known(rule, _RULE)
        head = rule["head"]
        self._known(head, _HEAD)
        self.syntax.heads.append(Head(str(head["name"]), "function" if head.get("args") else "complete", 0))
        terms = [*(head.get("args") or []), head.get("key"), head.get("value"), *head["ref"][1:]]
        self._terms([term for term in terms if term is not None])
        self._body(rule.get("body") or [])
        if rule.get("else") is not None:
            self._rule(rule["else"])

    def _body(self, body: list[Any]) -> None:
        for expression in body:
            self._expression(expression)

    def _expression(self, expression: Mapping[str, Any]) -> None:
        self._known(expression, _EXPRESSION)
        if expression.get("with"):
            self.use("with", ())
            for item in expression["with"]:
                self._terms([item["target"], item["value"]])
        terms = expression["terms"]
        if isinstance(terms, list):
            self._call(terms)
        elif "symbols" in terms:
            self._terms(terms["symbols"])
        elif "domain" in terms:
            self._term(terms["domain"])
            self._body(terms["body"])
        else:
            self._term(terms)

    def _call(self, terms: list[Any]) -> None:
        operator, *arguments = terms
        self.use("call", _parts(operator["value"]))
        self._terms(arguments)

    def _term(self, term: Mapping[str, Any]) -> None:
        kind: str = term["type"]
        value: Any = term.get("value")
        if kind == "ref":
            if (path := _parts(value)) and path[0] == "data":
                self.use("data", path)
            self._terms(value)
        elif kind == "call":
            self._call(value)
        elif kind in {"array", "set"}:
            self._terms(value)
        elif kind == "object":
            for pair in value:
                self._terms(pair)
        elif kind in _COMPREHENSIONS:
            self._terms([value[name] for name in ("term", "key", "value") if value.get(name) is not None])
            self._body(value["body"])
        elif kind not in _PLAIN_TERMS:
            self.use("syntax", (kind,))

    def _terms(self, terms: list[Any]) -> None:
        for term in terms:
            self._term(term)


def _parts(terms: list[Any]) -> Path:
    """A reference's parts. The first one is a variable; later ones count only where they are constant text."""
    return tuple(
        str(term["value"]) if term["type"] == "string" or (i == 0 and term["type"] == "var") else None
        for i, term in enumerate(terms)
    )
