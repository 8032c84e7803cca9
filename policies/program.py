"""All rules of a tree by name, with the parts of each definition that the linter follows: arguments, value, bodies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.syntax import Path, Syntax, flatten, line_of, parse
from policies.tree import Source

Node = Mapping[str, Any]
"""A term of regorus's tree: one key, its kind."""

COMPREHENSIONS = frozenset({"ArrayCompr", "SetCompr", "ObjectCompr"})
REFERENCES = frozenset({"Var", "RefDot", "RefBrack"})
LITERALS = frozenset({"Array", "Set", "Object"})


@dataclass(frozen=True, slots=True)
class Body:
    """Statements that must all hold. `value`: what an `else` gives instead of the head's value."""

    statements: Sequence[Node]
    value: Node | None
    is_else: bool


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """One head with its bodies; no body means that it holds always."""

    name: str
    module: Module
    line: int
    args: Sequence[Node]
    key: Node | None
    value: Node | None
    bodies: Sequence[Body]
    default: bool

    @property
    def collects(self) -> bool:
        """A set or object by members: defined whatever happens."""
        return self.key is not None


@dataclass(eq=False)
class Module:
    source: Source
    package: Path
    aliases: Mapping[str, Path]
    rules: dict[str, list[Definition]] = field(default_factory=dict)


@dataclass
class Program:
    modules: list[Module]
    by_package: dict[Path, dict[str, list[Definition]]]

    @classmethod
    def of(cls, read: Mapping[Source, Syntax]) -> Program:
        """Of every module that decisions are made of; tests are left out."""
        program = cls([], {})
        for source, syntax in read.items():
            if source.is_test:
                continue
            module = _module(source, syntax)
            for name, definitions in module.rules.items():
                program.by_package.setdefault(syntax.package, {}).setdefault(name, []).extend(definitions)
            program.modules.append(module)
        return program

    def find(self, path: Path) -> tuple[list[Definition], Path]:
        """The definitions that `data.…` names, and what of the path is left; none when it names no rule."""
        for length in range(len(path) - 1, 0, -1):
            rules = self.by_package.get(path[1:length])
            name = path[length]
            if rules is not None and name is not None and name in rules:
                return rules[name], path[length + 1 :]
        return [], ()


def read_module(source: Source) -> Module:
    """One file by itself, a test too. BadInput where it cannot be parsed."""
    return _module(source, parse(source.path, source.text))


def _module(source: Source, syntax: Syntax) -> Module:
    module = Module(source, syntax.package, syntax.aliases)
    for rule in syntax.rules:
        definition = _definition(rule, module)
        module.rules.setdefault(definition.name, []).append(definition)
    return module


def _definition(rule: Node, module: Module) -> Definition:
    if "Default" in rule:
        head = rule["Default"]
        args, key, value, bodies = head["args"], None, head["value"], []
    else:
        ((_, head),) = rule["Spec"]["head"].items()
        args, key = head.get("args") or [], head.get("key")
        assign = head.get("assign")
        value = assign["value"] if assign else None
        bodies = [_body(body) for body in rule["Spec"]["bodies"]]
    path = flatten(head["refr"])
    if not args and key is None and len(path) > 1:
        key = head["refr"]["RefBrack"]["index"] if "RefBrack" in head["refr"] else {"String": {"value": path[-1]}}
    return Definition(path[0] or "", module, line_of(head), args, key, value, bodies, "Default" in rule)


def _body(body: Node) -> Body:
    assign = body.get("assign")
    return Body(body["query"]["stmts"], assign["value"] if assign else None, bool(body["is_else"]))


# --- terms ---------------------------------------------------------------------------------------------------------


def split(term: Node) -> tuple[str, Any]:
    ((kind, node),) = term.items()
    return kind, node


def operands(term: Node) -> Iterator[Node]:
    """The terms right inside one that are evaluated where it is; a comprehension has none, its body is a scope of its own."""
    kind, node = split(term)
    if kind == "Call":
        yield from node["params"]
    elif kind in {"Array", "Set"}:
        yield from node["items"]
    elif kind == "Object":
        for _, key, value in node["fields"]:
            yield key
            yield value
    elif kind in {"BoolExpr", "ArithExpr", "BinExpr", "AssignExpr"}:
        yield node["lhs"]
        yield node["rhs"]
    elif kind == "Membership":
        yield from (node[part] for part in ("key", "value", "collection") if node[part] is not None)
    elif kind in REFERENCES:
        yield from indices(term)


def indices(reference: Node) -> Iterator[Node]:
    """What is computed inside a reference: indices that are no plain text, and the value it starts from (`f(x).y`)."""
    kind, node = split(reference)
    if kind == "RefBrack" and split(node["index"])[0] not in {"String", "RawString", "Number"}:
        yield node["index"]
    if kind in {"RefDot", "RefBrack"}:
        yield from indices(node["refr"])
    elif kind != "Var":
        yield reference


def comprehension(term: Node) -> tuple[list[Node], Sequence[Node]]:
    """A comprehension's head terms and its statements."""
    _, node = split(term)
    return [node[part] for part in ("term", "key", "value") if part in node], node["query"]["stmts"]


def nested(term: Node) -> Iterator[Node]:
    """The term and all inside it, comprehensions' bodies excepted."""
    yield term
    for part in operands(term):
        yield from nested(part)


def literal(statement: Node) -> tuple[str, Any]:
    """A statement's kind (Expr, NotExpr, SomeIn, SomeVars, Every) and its content."""
    return split(statement["literal"])


def field_of(fields: Iterable[Sequence[Any]], name: str) -> Node | None:
    """The value of a constant key in an object literal."""
    for _, key, value in fields:
        kind, node = split(key)
        if kind == "String" and node["value"] == name:
            found: Node = value
            return found
    return None


def bounds(text: bytes, node: Node) -> tuple[int, int]:
    """Where the span of a node begins and ends in the source. regorus leaves the quotes out of a text's span."""
    span = node["span"] if "span" in node else split(node)[1]["span"]
    start, end = int(span["start"]), int(span["end"])
    if text[start - 1 : start] in {b'"', b"`"}:
        start -= 1
    if text[end : end + 1] in {b'"', b"`"}:
        end += 1
    return start, end


def written(text: bytes, node: Node) -> str:
    """A node as its author wrote it."""
    start, end = bounds(text, node)
    return text[start:end].decode()
