"""The syntax tree of a Rego module, reduced to what the checks ask: its package, its rules, and everything it calls.

Built from regorus's tree here and from OPA's in `opa_syntax`. Both walks know every node they let through by name: a node
that is new to them is reported as `syntax`, so a later engine's new construct cannot carry a call past the checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import regorus

from core.errors import BadInput

Path = tuple[str | None, ...]
"""A reference's parts; None where a part is computed (`data.x[y]`)."""
UseKind = Literal["call", "operator", "data", "with", "syntax"]
HeadKind = Literal["contains", "function", "complete", "partial"]

_NODES = frozenset(
    {
        "Default", "Spec", "Compr", "Func", "Set", "Expr", "NotExpr", "Every", "SomeIn", "SomeVars", "Var", "String",
        "RawString", "Number", "Bool", "Null", "Array", "Object", "ArrayCompr", "SetCompr", "ObjectCompr", "Call",
        "RefDot", "RefBrack", "BinExpr", "BoolExpr", "ArithExpr", "AssignExpr", "Membership",
    }
)  # fmt: skip
_OPERATORS = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "Mod": "%", "Union": "|", "Intersection": "&"}

KEYWORDS = frozenset(
    {
        "as", "contains", "default", "else", "every", "false", "if", "import", "in", "not", "null", "package", "some", "true", "with",
    }
)  # fmt: skip
MAX_NESTING = 10
_TOKEN = re.compile(r"""\"(?:\\.|[^"\\\n])*"|`[^`]*`|\#[^\n]*|[\[\](){}]""")
"""Text, comments and brackets; what stands inside text or a comment is no bracket."""


@dataclass(frozen=True, slots=True)
class Use:
    """Something a module does that a check may mind.

    `call`: a function or built-in, by the name written; `operator`: arithmetic and set signs; `data`: a reference into
    `data`; `with`: a replaced input, value or built-in; `syntax`: a construct the checks do not know.
    """

    kind: UseKind
    path: Path
    line: int


@dataclass(frozen=True, slots=True)
class Head:
    """One definition of a rule: `contains` (a partial set), `function`, `complete`, or `partial` (`p[x] := …`)."""

    name: str
    kind: HeadKind
    line: int


@dataclass(slots=True)
class Syntax:
    package: Path = ()
    aliases: dict[str, Path] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    rules: Sequence[Mapping[str, Any]] = ()
    """regorus's own tree of each rule, for the linter; empty when the syntax came from OPA."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(head.name for head in self.heads)

    @property
    def functions(self) -> frozenset[str]:
        return frozenset(head.name for head in self.heads if head.kind == "function")


def parse(path: str, text: str) -> Syntax:
    """The module's syntax by regorus's parser. BadInput names the line where it is not Rego v1."""
    _check_nesting(path, text)
    document, problem = _tree(path, text)
    if document is None:
        raise BadInput(problem, where=path)
    walk = _Walk(text.encode())
    try:
        walk.module(document[0]["ast"])
    except RecursionError as error:
        raise BadInput("nested too deeply to be checked", where=path) from error
    return walk.syntax


def _check_nesting(path: str, text: str) -> None:
    """regorus tries each bracket as literal and as comprehension: every level doubles the time (16 levels took 3 s)."""
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match.group(0)
        if token in {"[", "{", "("}:
            depth += 1
            if depth > MAX_NESTING:
                line = text.count("\n", 0, match.start()) + 1
                raise BadInput(f"brackets nested deeper than {MAX_NESTING} levels (line {line})", where=path)
        elif token in {"]", "}", ")"}:
            depth -= 1


def _tree(path: str, text: str) -> tuple[Any, str]:
    """The tree, or None and what is wrong.

    No exception leaves with a frame that holds the engine: regorus's engines must die in the thread that made them.
    """
    engine = regorus.Engine()
    try:
        engine.add_policy(path, text)
        return json.loads(engine.get_ast_as_json()), ""
    except (RuntimeError, ValueError) as error:
        return None, engine_problem(str(error))


_ERROR = re.compile(r"^error: (.*)$", re.MULTILINE)
_PLACE = re.compile(r"^--> (\S+):(\d+):\d+$", re.MULTILINE)


def engine_problem(text: str) -> str:
    """The one line that matters of a regorus error, without its stack."""
    message = _ERROR.search(text)
    place = _PLACE.search(text)
    first = message.group(1) if message else text.strip().split("\n", 1)[0]
    return f"{first[:300]} (line {place.group(2)})" if place else first[:300]


def engine_place(text: str) -> str:
    """FILE:LINE of a regorus error; nothing of the values it quotes."""
    place = _PLACE.search(text)
    return f"{place.group(1)}:{place.group(2)}" if place else ""


class _Walk:
    """One module of regorus's tree. A span gives byte offsets into the source."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.syntax = Syntax()

    def module(self, ast: Mapping[str, Any]) -> None:
        self.syntax.package = flatten(ast["package"]["refr"])
        for item in ast["imports"]:
            path = flatten(item["refr"])
            span = item.get("as")
            name = self.source[span["start"] : span["end"]].decode() if span else path[-1]
            if path[:1] == ("data",):
                self._use("data", path, item)
            if path[0] in {"data", "input"} and name is not None:
                self.syntax.aliases[name] = path
            elif path not in {("rego", "v1"), ("future", "keywords")} and path[:2] != ("future", "keywords"):
                self._use("syntax", ("import", *path), item)
        self.syntax.rules = ast["rules"]
        for rule in ast["rules"]:
            self._head(rule)
            self._visit(rule)

    def _head(self, rule: Mapping[str, Any]) -> None:
        if "Default" in rule:
            head: Mapping[str, Any] = rule["Default"]
            kind: HeadKind = "function" if head["args"] else "complete"
        else:
            ((form, head),) = rule["Spec"]["head"].items()
            kind = {"Set": "contains", "Func": "function"}.get(form, "complete")  # type: ignore[assignment]
        path = flatten(head["refr"])
        if kind != "function" and len(path) > 1:
            kind = "partial"
        self.syntax.heads.append(Head(path[0] or "", kind, line_of(head)))

    def _use(self, kind: UseKind, path: Path, node: Any) -> None:
        self.syntax.uses.append(Use(kind, path, line_of(node)))

    def _visit(self, node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                self._visit(item)
        elif isinstance(node, Mapping):
            if node.get("with_mods"):
                self._use("with", (), node)
            for key, value in node.items():
                if key[:1].isupper():
                    self._node(key, value)
                elif isinstance(value, (list, Mapping)):
                    self._visit(value)

    def _node(self, name: str, node: Any) -> None:
        if name not in _NODES:
            self._use("syntax", (name,), node)
        if name == "Call":
            self._use("call", flatten(node["fcn"]), node)
            # A computed part of the name needs no visit: the call is refused for it.
            self._visit(node["params"])
            return
        if name in {"ArithExpr", "BinExpr"}:
            self._use("operator", (_OPERATORS.get(node["op"], node["op"]),), node)
        if name in {"Var", "RefDot", "RefBrack"}:
            path = flatten({name: node})
            if path[:1] == ("data",):
                self._use("data", path, node)
            self._indices({name: node})
            return
        self._visit(node)

    def _indices(self, reference: Mapping[str, Any]) -> None:
        """What is computed inside a reference: indices, and the value it starts from (`f(x).y`)."""
        ((name, node),) = reference.items()
        if name == "RefBrack":
            self._visit(node["index"])
        if name in {"RefDot", "RefBrack"}:
            self._indices(node["refr"])
        elif name != "Var":
            self._visit(reference)


def flatten(reference: Mapping[str, Any]) -> Path:
    """`a.b["c"][x]` as ("a", "b", "c", None)."""
    parts: list[str | None] = []
    while True:
        ((name, node),) = reference.items()
        if name == "RefDot":
            parts.append(node["field"][1])
        elif name == "RefBrack":
            text = node["index"].get("String") or node["index"].get("RawString")
            parts.append(text["value"] if text else None)
        else:
            parts.append(node["value"] if name == "Var" else None)
            return tuple(reversed(parts))
        reference = node["refr"]


def dotted(path: Path) -> str:
    """A reference as `opa fmt` writes it: a dot before a plain name, brackets around any other."""
    parts = [f".{part}" if part is not None and _plain(part) else f"[{json.dumps(part)}]" for part in path]
    return "".join(parts).removeprefix(".")


def _plain(part: str) -> bool:
    return part.isascii() and part.isidentifier() and part not in KEYWORDS


def line_of(node: Any) -> int:
    """The source line of a node of regorus's tree; 0 where it has none."""
    while isinstance(node, Mapping):
        if isinstance(span := node.get("span"), Mapping):
            return int(span["line"])
        node = next((value for value in node.values() if isinstance(value, Mapping)), None)
    return 0
