"""What a term needs so that it is not undefined, and what a statement that holds proves to be there.

An abstract reading of Rego: a variable stands for the place in the input that it was taken from, a parameter for the place of its
argument, so that `named(use)` proves `use.name` and `models.ref(model)` needs `model.version`, across modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from core.errors import BadInput
from policies.program import (
    COMPREHENSIONS,
    LITERALS,
    REFERENCES,
    Body,
    Definition,
    Module,
    Node,
    Program,
    field_of,
    indices,
    literal,
    operands,
    split,
    written,
)
from policies.shapes import INPUT, Part, Place, Presence, Shapes, Step, show_place
from policies.syntax import flatten, line_of

MAX_DEPTH = 25
MAX_STEPS = 200_000
"""Terms looked at for one module; what needs more is refused, so that no rule can keep the linter busy."""

TYPE_TESTS = frozenset(
    {"is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A variable that stands for an object literal."""

    term: Node
    scope: Scope


Value = Place | Bound


class Need(NamedTuple):
    """Something that must be defined. `place` is None where it is a call's answer; a `bound` variable has a value already."""

    place: Place | None
    text: str
    line: int
    bound: bool = False


@dataclass
class Budget:
    """Names for values without a place, and the count of what was looked at."""

    serial: Iterator[int] = field(default_factory=count)
    steps: int = 0

    def spend(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise BadInput("calls so many helpers inside helpers that it cannot be checked; write it flatter")


@dataclass(frozen=True, eq=False)
class Scope:
    """Where a term stands: its module, the schema of the input, and what its variables are."""

    program: Program
    module: Module
    shapes: Shapes
    budget: Budget
    variables: Mapping[str, Value]
    depth: int = 0

    def local(self, name: str) -> Place:
        return (Step("local", f"{name}#{next(self.budget.serial)}"),)

    def each(self, place: Place, name: str) -> Place:
        return (*place, Step("each", f"{name}#{next(self.budget.serial)}"))

    def of(self, definition: Definition, args: Sequence[Value | None]) -> Scope:
        """The scope inside a definition, its parameters standing for `args`."""
        variables: dict[str, Value] = {}
        for parameter, given in zip(definition.args, args, strict=False):
            kind, node = split(parameter)
            if kind == "Var":
                variables[node["value"]] = self.local(node["value"]) if given is None else given
            else:
                _bind_pattern(parameter, self, variables)
        if self.depth >= MAX_DEPTH:
            raise BadInput(f"calls helpers more than {MAX_DEPTH} deep; write it flatter")
        return Scope(self.program, definition.module, self.shapes, self.budget, variables, self.depth + 1)

    def inside(self, statements: Sequence[Node]) -> Scope:
        """The scope of a body: with the variables that its statements bind."""
        variables = dict(self.variables)
        scope = Scope(self.program, self.module, self.shapes, self.budget, variables, self.depth)
        for statement in statements:
            kind, node = literal(statement)
            if kind == "SomeIn":
                bind_iteration(node, scope, variables)
            elif kind == "SomeVars":
                variables.update({name: scope.local(name) for name in (_span_text(span, scope) for span in node["vars"])})
            elif kind == "Expr" and split(node["expr"])[0] == "AssignExpr":
                _bind_assignment(split(node["expr"])[1], scope, variables)
        return scope

    def within(self, every: Node) -> Scope:
        """The scope of the body of an `every`."""
        variables = dict(self.variables)
        domain = resolve(every["domain"], self)
        value = _span_text(every["value"], self)
        variables[value] = self.each(domain, value) if isinstance(domain, tuple) else self.local(value)
        if every["key"] is not None:
            key = _span_text(every["key"], self)
            variables[key] = self.local(key)
        scope = Scope(self.program, self.module, self.shapes, self.budget, variables, self.depth)
        return scope.inside(every["query"]["stmts"])

    def callees(self, call: Node) -> list[Definition]:
        """The definitions that a call means; none for a built-in."""
        return self.definitions(flatten(call["fcn"]))[0]

    def definitions(self, path: tuple[str | None, ...]) -> tuple[list[Definition], tuple[str | None, ...]]:
        first = path[0]
        if first is None or first in self.variables:
            return [], ()
        if first in self.module.aliases:
            path = (*self.module.aliases[first], *path[1:])
        elif first != "data":
            own = self.program.by_package.get(self.module.package, {})
            return (own[first], path[1:]) if first in own else ([], ())
        return self.program.find(path)


def _span_text(span: Node, scope: Scope) -> str:
    return scope.module.source.text.encode()[span["start"] : span["end"]].decode()


def bind_iteration(node: Node, scope: Scope, variables: dict[str, Value]) -> None:
    """`some k, v in collection`."""
    kind, value = split(node["value"])
    collection = resolve(node["collection"], scope)
    if kind == "Var":
        name = value["value"]
        variables[name] = scope.each(collection, name) if isinstance(collection, tuple) else scope.local(name)
    else:
        _bind_pattern(node["value"], scope, variables)
    if node["key"] is not None:
        _bind_pattern(node["key"], scope, variables)


def _bind_assignment(node: Node, scope: Scope, variables: dict[str, Value]) -> None:
    kind, left = split(node["lhs"])
    if kind != "Var":
        _bind_pattern(node["lhs"], scope, variables)
        return
    name = left["value"]
    if node["op"] != "ColEq" and (name in variables or name == "input" or scope.definitions((name,))[0]):
        return
    given = value_of(node["rhs"], scope)
    variables[name] = scope.local(name) if given is None else given


def _bind_pattern(pattern: Node, scope: Scope, variables: dict[str, Value]) -> None:
    kind, node = split(pattern)
    if kind == "Var":
        if node["value"] not in variables:
            variables[node["value"]] = scope.local(node["value"])
        return
    for part in operands(pattern):
        _bind_pattern(part, scope, variables)


# --- values --------------------------------------------------------------------------------------------------------


def value_of(term: Node, scope: Scope) -> Value | None:
    """What a variable stands for that is given this term; None where nothing is known of it."""
    kind, _ = split(term)
    if kind in REFERENCES:
        return resolve(term, scope)
    return Bound(term, scope) if kind == "Object" else None


def resolve(term: Node, scope: Scope) -> Value | None:
    """The place that a reference names; a literal where it is one, None where it starts from a call or an unknown part of one."""
    kind, node = split(term)
    if kind == "Var":
        return _variable(node["value"], scope)
    if kind not in {"RefDot", "RefBrack"}:
        return None
    path = flatten(term)
    found, rest = scope.definitions(path) if path[0] is not None else ([], ())
    if found:
        return (_rule(found), *_tail(term, len(rest), scope))
    below = resolve(node["refr"], scope)
    part = _part(term, scope)
    if isinstance(below, Bound):
        inner = field_of(split(below.term)[1]["fields"], part) if isinstance(part, str) else None
        return value_of(inner, below.scope) if inner is not None else None
    return None if below is None else (*below, part)


def _variable(name: str, scope: Scope) -> Value:
    if name in scope.variables:
        return scope.variables[name]
    if name == "input":
        return INPUT
    if name in scope.module.aliases and scope.module.aliases[name][0] == "input":
        return tuple(part if part is not None else Step("at", "?") for part in scope.module.aliases[name])
    found, _ = scope.definitions((name,))
    return (_rule(found),) if found else (Step("local", name),)


def _rule(found: Sequence[Definition]) -> Step:
    return Step("rule", ".".join(str(part) for part in (*found[0].module.package, found[0].name)))


def _tail(term: Node, length: int, scope: Scope) -> list[Part]:
    parts: list[Part] = []
    for _ in range(length):
        parts.append(_part(term, scope))
        term = split(term)[1]["refr"]
    return parts[::-1]


def _part(term: Node, scope: Scope) -> Part:
    kind, node = split(term)
    if kind == "RefDot":
        return str(node["field"][1])
    kind, index = split(node["index"])
    if kind in {"String", "RawString"}:
        return str(index["value"])
    if kind == "Number":
        return Step("index", str(index["value"]))
    if kind == "Var" and index["value"] == "_":
        return Step("each", f"_#{next(scope.budget.serial)}")
    place = resolve(node["index"], scope) if kind in REFERENCES else None
    return Step("at", show_place(place) if isinstance(place, tuple) else f"…#{next(scope.budget.serial)}")


# --- needs ---------------------------------------------------------------------------------------------------------


def needs(term: Node, scope: Scope) -> Iterator[Need]:
    """Everything that must be defined so that the term is. A comprehension is always defined."""
    scope.budget.spend()
    kind, node = split(term)
    if kind in REFERENCES:
        yield from _reference_needs(term, scope)
    elif kind == "Call":
        for parameter in node["params"]:
            yield from needs(parameter, scope)
        yield from _answer_needs(term, scope)
    elif kind not in COMPREHENSIONS:
        for part in operands(term):
            yield from needs(part, scope)


def index_needs(term: Node, scope: Scope) -> Iterator[Need]:
    """What the computed parts of a reference need; the reference itself may be undefined."""
    for index in indices(term):
        yield from needs(index, scope)


def _reference_needs(term: Node, scope: Scope) -> Iterator[Need]:
    yield from index_needs(term, scope)
    place = resolve(term, scope)
    if isinstance(place, Bound):
        return
    if place is None:
        yield Need(None, _text(term, scope), line_of(term))
        return
    first = place[0]
    if isinstance(first, Step) and first.kind == "rule" and len(place) == 1:
        found, _ = scope.definitions(flatten(term))
        if found and _always(found) is not None:
            value = found[0].value
            yield from needs(value, scope.of(found[0], ())) if value is not None else ()
            return
    kind, node = split(term)
    yield Need(place, _text(term, scope), line_of(term), bound=kind == "Var" and node["value"] in scope.variables)


def _answer_needs(term: Node, scope: Scope) -> Iterator[Need]:
    """What a call's answer needs beyond its arguments. A built-in of the list is total over values of its types."""
    _, node = split(term)
    found = scope.callees(node)
    if not found or any(definition.default for definition in found):
        return
    definition = _always(found)
    if definition is None:
        yield Need(None, _text(term, scope), line_of(term))
    elif definition.value is not None:
        line = line_of(term)
        inner = scope.of(definition, [value_of(argument, scope) for argument in node["params"]])
        for need in needs(definition.value, inner):
            yield need._replace(line=line)


def _always(found: Sequence[Definition]) -> Definition | None:
    """The one definition of a rule or function that has no condition."""
    one = found[0] if len(found) == 1 else None
    plain = one is not None and all(split(argument)[0] == "Var" for argument in one.args)
    return one if one is not None and plain and not one.bodies and not one.collects else None


def _text(term: Node, scope: Scope) -> str:
    """How the term is written."""
    return written(scope.module.source.text.encode(), term)


# --- what is there -------------------------------------------------------------------------------------------------


def covered(place: Place, present: AbstractSet[Place]) -> bool:
    """Whether one of the places that are there is this one or lies below it."""
    return any(one[: len(place)] == place for one in present)


def may_be_undefined(need: Need, scope: Scope, present: AbstractSet[Place]) -> bool:
    """Strictly: only what the schema requires, what was proved, and bound variables are sure."""
    place = need.place
    if place is None:
        return True
    if need.bound or covered(place, present):
        return False
    first = place[0]
    if first == "input":
        return any(not covered(prefix, present) for prefix in scope.shapes.unsure_prefixes(place, Presence.DEFAULTED))
    if isinstance(first, Step) and first.kind == "rule" and len(place) == 1:
        found, _ = scope.program.find(("data", *_rule_path(first, scope)))
        return not any(definition.collects or definition.default for definition in found)
    return len(place) > 1


def _rule_path(step: Step, scope: Scope) -> tuple[str, ...]:
    for package, rules in scope.program.by_package.items():
        prefix = ".".join(str(part) for part in package)
        name = step.name.removeprefix(f"{prefix}.")
        if name != step.name and name in rules:
            return (*(str(part) for part in package), name)
    return ()


def proved(statement: Node, scope: Scope) -> set[Place]:
    """What is there once this statement holds."""
    kind, node = literal(statement)
    if kind == "Expr":
        return proved_by(node["expr"], scope, holds=True)
    if kind == "SomeIn":
        return proved_by(node["collection"], scope)
    if kind == "Every":
        inner = scope.within(node)
        found = proved_by(node["domain"], scope)
        for each in node["query"]["stmts"]:
            found |= proved(each, inner)
        return found
    return set()


def proved_by(term: Node, scope: Scope, *, holds: bool = False) -> set[Place]:
    """What is there when the term is defined; with `holds`, when it is true."""
    found = {need.place for need in needs(term, scope) if need.place is not None}
    kind, node = split(term)
    if kind in REFERENCES:
        definitions, rest = scope.definitions(flatten(term)) if not _shadowed(term, scope) else ([], ())
        if definitions and not rest:
            found |= _proved_by_rule(definitions, (), scope, holds=holds)
    elif kind == "Call":
        args = [value_of(argument, scope) for argument in node["params"]]
        found |= _proved_by_rule(scope.callees(node), args, scope, holds=holds)
    if kind not in COMPREHENSIONS:
        for part in operands(term):
            found |= proved_by(part, scope)
    return found


def _shadowed(term: Node, scope: Scope) -> bool:
    first = flatten(term)[0]
    return first is None or first in scope.variables


def _proved_by_rule(
    definitions: Sequence[Definition], args: Sequence[Value | None], scope: Scope, *, holds: bool
) -> set[Place]:
    """What every one of the definitions proves; a default gives a value without proving anything, unless it must be true."""
    alternatives: list[set[Place]] = []
    for definition in definitions:
        if definition.collects:
            return set()
        if definition.default:
            if not (holds and definition.value == _false(definition.value)):
                return set()
            continue
        inner = scope.of(definition, args)
        alternatives += [
            _proved_by_body(definition, body, inner) for body in definition.bodies or [Body((), None, is_else=False)]
        ]
    return set.intersection(*alternatives) if alternatives else set()


def _false(value: Node | None) -> Node | None:
    return value if value is not None and split(value)[0] == "Bool" and split(value)[1].get("value") is False else None


def _proved_by_body(definition: Definition, body: Body, scope: Scope) -> set[Place]:
    scope.budget.spend()
    inner = scope.inside(body.statements)
    found: set[Place] = set()
    for statement in body.statements:
        found |= proved(statement, inner)
    value = body.value or definition.value
    if value is not None:
        found |= {need.place for need in needs(value, inner) if need.place is not None}
    return found


def is_literal(term: Node) -> bool:
    return split(term)[0] in LITERALS
