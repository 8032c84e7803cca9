"""Which parts of the input a rule reads, found in its syntax tree: helpers and functions are followed to where they read.

An over-approximation by design: every branch is walked, so a path may be named that this one input never led to. What a rule
reads is never left out, but for names that no module of the bundle defines (those are built-ins, which read their arguments).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from policies.program import Body, Definition, Module, Node, Program, field_of, written
from policies.syntax import Path, dotted, flatten, parse
from policies.tree import Source

Pattern = tuple[str | None, ...]
"""A path below `input`; None stands for every element of a list or every key of an object."""
Package = tuple[str, ...]
Scalar = str | int | float | bool | None

TYPES = {
    "is_string": "text", "is_number": "a number", "is_boolean": "true or false", "is_array": "a list", "is_object": "an object",
}  # fmt: skip
MAX_DEPTH = 40
ALWAYS = Body((), None, is_else=False)
"""The body of a definition that has none: it holds always."""


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression may be: something that stands in the input (`refs`), or something made of such parts."""

    refs: frozenset[Pattern] = frozenset()
    fields: tuple[tuple[str, Value], ...] = ()
    inside: Value | None = None
    constants: frozenset[Scalar] = frozenset()

    def part(self, name: str | None) -> Value:
        """`self.name`, or any element where `name` is None."""
        found = [Value(frozenset((*ref, name) for ref in self.refs))]
        found += [value for key, value in self.fields if name in (None, key)]
        return merged([*found, self.inside] if self.inside else found)


NOTHING = Value()


def merged(values: Iterable[Value]) -> Value:
    """A value that may be any of `values`."""
    given = [value for value in values if value != NOTHING]
    if len(given) < 2:
        return given[0] if given else NOTHING
    names = {name for value in given for name, _ in value.fields}
    inside = [value.inside for value in given if value.inside is not None]
    return Value(
        frozenset().union(*(value.refs for value in given)),
        tuple(
            (name, merged(dict(value.fields)[name] for value in given if name in dict(value.fields))) for name in sorted(names)
        ),
        merged(inside) if inside else None,
        frozenset().union(*(value.constants for value in given)),
    )


@dataclass
class Reads:
    """What one part of a rule reads. `wanted`: the types that `is_…` asks for; `pairs`: what is compared with what."""

    paths: dict[Pattern, None] = field(default_factory=dict)
    wanted: dict[Pattern, str] = field(default_factory=dict)
    pairs: set[tuple[Pattern, Pattern]] = field(default_factory=set)
    constants: dict[Pattern, set[Scalar]] = field(default_factory=dict)

    def add(self, other: Reads) -> None:
        self.paths |= other.paths
        self.wanted |= other.wanted
        self.pairs |= other.pairs
        for pattern, constants in other.constants.items():
            self.constants.setdefault(pattern, set()).update(constants)


@dataclass(frozen=True)
class Branch:
    """One definition of `deny` or `grant`: its statements as they are written, what it reads, and the reason it gives."""

    line: int
    statements: tuple[str, ...]
    lines: tuple[int, ...]
    reads: Reads
    reason: str | None


class RuleReader:
    """Answers what the rules of a bundle read."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        """BadInput for a module that is not Rego; a loaded bundle has none."""
        read = {Source(path, text, path): parse(path, text) for path, text in sorted(modules.items())}
        self.program = Program.of(read)
        self._bytes = {source: source.text.encode() for source in read}

    def reads(self, package: Package, name: str) -> Reads:
        """What every definition of `name` in `package` reads."""
        found = Reads()
        for definition in self._definitions(package, name):
            walk = _Walk(self, found)
            walk.use(walk.definition(definition, ()))
        return found

    def branches(self, package: Package, name: str) -> list[Branch]:
        """Every definition of the partial set `name`, in the order written."""
        return [
            self._branch(definition, body)
            for definition in self._definitions(package, name)
            for body in definition.bodies or [ALWAYS]
        ]

    def imports(self, package: Package) -> list[str]:
        """The import lines of the package's modules, for a module that is put beside them."""
        modules = (module for module in self.program.modules if module.package == package)
        lines = (f"import {dotted(path)} as {name}" for module in modules for name, path in module.aliases.items())
        return list(dict.fromkeys(lines))

    def text(self, module: Module, span: Mapping[str, Any]) -> str:
        """The text of a span."""
        return written(self._bytes[module.source], {"span": span})

    def _definitions(self, package: Package, name: str) -> list[Definition]:
        return self.program.by_package.get(package, {}).get(name, [])

    def _branch(self, definition: Definition, body: Body) -> Branch:
        reads = Reads()
        walk = _Walk(self, reads)
        walk.use(walk.definition(replace(definition, bodies=[body]), ()))
        spans = [statement["span"] for statement in body.statements]
        return Branch(
            definition.line,
            tuple(self.text(definition.module, span) for span in spans),
            tuple(int(span["line"]) for span in spans),
            reads,
            _reason(definition, body),
        )


def _reason(definition: Definition, body: Body) -> str | None:
    """The text of `args.reason` where the definition writes it out."""
    args = _field(definition.key or {}, "args")
    if args is not None and "Var" in args:
        name = args["Var"]["value"]
        args = next((right for left, right in _assignments(body) if left == name), None)
    reason = _field(args or {}, "reason")
    return str(reason["String"]["value"]) if reason is not None and "String" in reason else None


def _field(node: Node, name: str) -> Node | None:
    return field_of(node.get("Object", {}).get("fields", ()), name)


def _assignments(body: Body) -> Iterable[tuple[str, Node]]:
    for statement in body.statements:
        assigned = statement["literal"].get("Expr", {}).get("expr", {}).get("AssignExpr")
        if assigned and "Var" in assigned["lhs"]:
            yield assigned["lhs"]["Var"]["value"], assigned["rhs"]


Scope = dict[str, Value]


class _Walk:
    """One walk from a definition; what it reads goes into `reads`."""

    def __init__(self, reader: RuleReader, reads: Reads) -> None:
        self.reader = reader
        self.program = reader.program
        self.reads = reads
        self._known: dict[tuple[Path, str, tuple[Value, ...]], Value] = {}
        self._depth = 0

    def use(self, value: Value) -> None:
        """The value is looked at."""
        for ref in value.refs:
            if ref:
                self.reads.paths[ref] = None
        for _, part in value.fields:
            self.use(part)
        if value.inside is not None:
            self.use(value.inside)

    # --- definitions ----------------------------------------------------------------------------------------------

    def named(self, package: Path, name: str, arguments: tuple[Value, ...]) -> Value:
        """The rule or function `name` of `package`, over these arguments."""
        key = (package, name, arguments)
        if key in self._known or self._depth > MAX_DEPTH:
            return self._known.get(key, NOTHING)
        self._known[key] = NOTHING
        self._depth += 1
        found = [self.definition(one, arguments) for one in self.program.by_package.get(package, {}).get(name, [])]
        self._depth -= 1
        self._known[key] = merged(found)
        return self._known[key]

    def definition(self, definition: Definition, arguments: tuple[Value, ...]) -> Value:
        scope: Scope = {}
        for parameter, argument in zip(definition.args, arguments, strict=False):
            self._bind(parameter, argument, scope)
        found = []
        for body in definition.bodies or [ALWAYS]:
            inner = dict(scope)
            self._query(definition.module, body.statements, inner)
            made = body.value or definition.value or definition.key
            if made is not None:
                value = self._expression(definition.module, made, inner)
                found.append(Value(inside=value) if definition.collects else value)
        return merged(found)

    def _query(self, module: Module, statements: Sequence[Node], scope: Scope) -> None:
        # Twice: a statement may use what a later one binds.
        for _ in range(2):
            for statement in statements:
                self._literal(module, statement["literal"], scope)

    def _literal(self, module: Module, literal: Mapping[str, Any], scope: Scope) -> None:
        ((kind, node),) = literal.items()
        if kind in {"Expr", "NotExpr"}:
            self.use(self._expression(module, node["expr"], scope))
        elif kind == "SomeIn":
            self._iterate(module, node["collection"], node["value"], node["key"], scope)
        elif kind == "Every":
            inner = dict(scope)
            source = self._expression(module, node["domain"], scope)
            self.use(source)
            inner[self.reader.text(module, node["value"])] = source.part(None)
            self._query(module, node["query"]["stmts"], inner)

    def _iterate(self, module: Module, collection: Any, value: Any, key: Any, scope: Scope) -> None:
        source = self._expression(module, collection, scope)
        self.use(Value(source.refs))
        if key is not None:
            self._bind(key, NOTHING, scope)
        self._bind(value, source.part(None), scope)

    def _bind(self, target: Mapping[str, Any], value: Value, scope: Scope) -> None:
        ((kind, node),) = target.items()
        if kind == "Var":
            scope[node["value"]] = value
        elif kind == "Array":
            for item in node["items"]:
                self._bind(item, value.part(None), scope)
        elif kind == "Object":
            for _, name, item in node["fields"]:
                self._bind(item, value.part(_constant(name)), scope)

    # --- expressions ----------------------------------------------------------------------------------------------

    def _expression(self, module: Module, expression: Mapping[str, Any], scope: Scope) -> Value:
        ((kind, node),) = expression.items()
        if kind in {"Var", "RefDot", "RefBrack"}:
            return self._reference(module, expression, scope)
        if kind in {"String", "RawString", "Number", "Bool"}:
            return Value(constants=frozenset({node["value"]}))
        if kind in {"Array", "Set"}:
            return Value(inside=merged(self._expression(module, item, scope) for item in node["items"]))
        if kind == "Object":
            return self._object(module, node, scope)
        if kind in {"ArrayCompr", "SetCompr", "ObjectCompr"}:
            inner = dict(scope)
            self._query(module, node["query"]["stmts"], inner)
            return Value(inside=self._expression(module, node["value" if kind == "ObjectCompr" else "term"], inner))
        if kind == "Call":
            return self._call(module, node, scope)
        if kind == "Membership":
            return self._membership(module, node, scope)
        if kind in {"BoolExpr", "AssignExpr", "ArithExpr", "BinExpr"}:
            return self._binary(module, kind, node, scope)
        return NOTHING

    def _object(self, module: Module, node: Mapping[str, Any], scope: Scope) -> Value:
        fields = {}
        others = []
        for _, key, item in node["fields"]:
            value = self._expression(module, item, scope)
            name = _constant(key)
            if name is None:
                others.append(value)
            else:
                fields[name] = value
        return Value(fields=tuple(sorted(fields.items(), key=lambda pair: pair[0])), inside=merged(others) if others else None)

    def _binary(self, module: Module, kind: str, node: Mapping[str, Any], scope: Scope) -> Value:
        right = self._expression(module, node["rhs"], scope)
        if kind == "AssignExpr" and (node["op"] == "ColEq" or _free(node["lhs"], scope)):
            self._bind(node["lhs"], right, scope)
            return NOTHING
        left = self._expression(module, node["lhs"], scope)
        if kind == "BinExpr":  # a union or an intersection of sets
            return merged([left, right])
        self.use(left)
        self.use(right)
        self._compared(left, right)
        return NOTHING

    def _membership(self, module: Module, node: Mapping[str, Any], scope: Scope) -> Value:
        element = self._expression(module, node["value"], scope)
        collection = self._expression(module, node["collection"], scope)
        self.use(element)
        self.use(collection)
        self._compared(element, collection.part(None))
        return NOTHING

    def _compared(self, left: Value, right: Value) -> None:
        for one, other in ((left, right), (right, left)):
            self.reads.pairs |= {(a, b) for a in one.refs for b in other.refs}
            for ref in one.refs:
                self.reads.constants.setdefault(ref, set()).update(other.constants)
                if other.inside is not None:
                    self.reads.constants[ref].update(other.inside.constants)

    def _call(self, module: Module, node: Mapping[str, Any], scope: Scope) -> Value:
        path = flatten(node["fcn"])
        arguments = tuple(self._expression(module, parameter, scope) for parameter in node["params"])
        target = self._target(module, path, scope)
        if target is not None:
            return self.named(target[0], target[1], arguments)
        if path == ("object", "get") and len(arguments) == 3:
            return merged([arguments[0].part(_constant(node["params"][1])), arguments[2]])
        for argument in arguments:
            self.use(argument)
        if len(path) == 1 and path[0] in TYPES:
            self.reads.wanted |= dict.fromkeys(arguments[0].refs, TYPES[path[0]])
        return NOTHING

    def _reference(self, module: Module, expression: Mapping[str, Any], scope: Scope) -> Value:
        parts = flatten(expression)
        base = _base(expression)
        self._indices(module, expression, scope)
        if base is None:
            return self._expression(module, _innermost(expression), scope)
        if base in scope:
            value, rest = scope[base], parts[1:]
        elif base == "input":
            value, rest = Value(frozenset({()})), parts[1:]
        else:
            target = self._target(module, parts, scope)
            if target is None:
                return self._aliased_input(module, parts)
            value, rest = self.named(target[0], target[1], ()), target[2]
        for part in rest:
            value = value.part(part)
        return value

    def _aliased_input(self, module: Module, parts: Path) -> Value:
        full = self._full(module, parts)
        return Value(frozenset({tuple(full[1:])})) if full and full[0] == "input" else NOTHING

    def _full(self, module: Module, parts: Path) -> Path:
        """The reference with an imported name written out."""
        name = parts[0]
        return (*module.aliases[name], *parts[1:]) if name is not None and name in module.aliases else parts

    def _target(self, module: Module, parts: Path, scope: Scope) -> tuple[Path, str, Path] | None:
        """The package and name of the rule that a reference starts with, and what stands behind; None where no module defines it."""
        name = parts[0]
        if name is None or name in scope:
            return None
        if name not in module.aliases and name in self.program.by_package.get(module.package, {}):
            return module.package, name, parts[1:]
        full = self._full(module, parts)
        found, rest = self.program.find(full) if full[0] == "data" else ([], ())
        return (found[0].module.package, found[0].name, rest) if found else None

    def _indices(self, module: Module, expression: Mapping[str, Any], scope: Scope) -> None:
        """What is computed inside brackets is read; a name that nothing has bound yet runs over all."""
        ((kind, node),) = expression.items()
        if kind == "RefBrack" and not _free(node["index"], scope):
            self.use(self._expression(module, node["index"], scope))
        if kind in {"RefDot", "RefBrack"}:
            self._indices(module, node["refr"], scope)


def _free(expression: Mapping[str, Any], scope: Scope) -> bool:
    return "Var" in expression and expression["Var"]["value"] not in scope


def _constant(expression: Mapping[str, Any]) -> str | None:
    text = expression.get("String") or expression.get("RawString")
    return str(text["value"]) if text else None


def _innermost(expression: Mapping[str, Any]) -> Mapping[str, Any]:
    ((kind, node),) = expression.items()
    return _innermost(node["refr"]) if kind in {"RefDot", "RefBrack"} else expression


def _base(expression: Mapping[str, Any]) -> str | None:
    found = _innermost(expression).get("Var")
    return None if found is None else str(found["value"])
