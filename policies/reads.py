"""Which parts of the input a rule reads, found in its syntax tree: helpers and functions are followed to where they read.

An over-approximation by design: every branch is walked, so a path may be named that this one input never led to. What a rule
reads is never left out, but for names that no module of the bundle defines (those are built-ins, which read their arguments).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.syntax import flatten, tree

Pattern = tuple[str | None, ...]
"""A path below `input`; None stands for every element of a list or every key of an object."""
Package = tuple[str, ...]
Scalar = str | int | float | bool | None

TYPES = {
    "is_string": "text", "is_number": "a number", "is_boolean": "true or false", "is_array": "a list", "is_object": "an object",
}  # fmt: skip
QUOTES = (b'"', b"`")
MAX_DEPTH = 40


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


@dataclass
class Module:
    package: Package
    path: str
    source: bytes
    aliases: dict[str, Package]
    imports: tuple[str, ...]
    rules: dict[str, list[Mapping[str, Any]]]


class Program:
    """The modules of a bundle, as the walks need them."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        """BadInput for a module that is not Rego; a loaded bundle has none."""
        self.packages: dict[Package, list[Module]] = {}
        for path, text in sorted(modules.items()):
            module = _module(path, text)
            self.packages.setdefault(module.package, []).append(module)

    def reads(self, package: Package, name: str) -> Reads:
        """What every definition of `name` in `package` reads."""
        found = Reads()
        for module in self.packages.get(package, []):
            for rule in module.rules.get(name, []):
                walk = _Walk(self, found)
                walk.use(walk.rule(module, rule, ()))
        return found

    def branches(self, package: Package, name: str) -> list[Branch]:
        """Every definition of the partial set `name`, in the order written."""
        return [
            self._branch(module, rule, body)
            for module in self.packages.get(package, [])
            for rule in module.rules.get(name, [])
            for body in rule["bodies"] or [{"query": {"stmts": []}}]
        ]

    def _branch(self, module: Module, rule: Mapping[str, Any], body: Mapping[str, Any]) -> Branch:
        reads = Reads()
        walk = _Walk(self, reads)
        walk.use(walk.rule(module, {**rule, "bodies": [body]}, ()))
        statements = body["query"]["stmts"]
        texts = tuple(_text(module.source, statement["span"]) for statement in statements)
        lines = tuple(int(statement["span"]["line"]) for statement in statements)
        return Branch(int(rule["span"]["line"]), texts, lines, reads, _reason(rule["head"], statements))


def _module(path: str, text: str) -> Module:
    ast = tree(path, text)
    source = text.encode()
    aliases: dict[str, Package] = {}
    imports = []
    for item in ast["imports"]:
        target = flatten(item["refr"])
        span = item.get("as")
        imports.append(_text(source, item["span"]) if "span" in item else "")
        if target[0] in {"data", "input"}:
            aliases[_text(source, span) if span else str(target[-1])] = tuple(str(part) for part in target)
    rules: dict[str, list[Mapping[str, Any]]] = {}
    for item in ast["rules"]:
        ((kind, rule),) = item.items()
        head = rule if kind == "Default" else next(iter(rule["head"].values()))
        rules.setdefault(str(flatten(head["refr"])[0]), []).append(_as_spec(kind, rule))
    package = tuple(str(part) for part in flatten(ast["package"]["refr"]))
    return Module(package, path, source, aliases, tuple(imports), rules)


def _as_spec(kind: str, rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """A default written like any other definition, so that there is one form to walk."""
    if kind != "Default":
        return rule
    form = "Func" if rule["args"] else "Compr"
    head = {"refr": rule["refr"], "args": rule["args"], "assign": {"value": rule["value"]}}
    return {"span": rule["span"], "head": {form: head}, "bodies": []}


def _text(source: bytes, span: Mapping[str, Any]) -> str:
    """The text of a span; where it begins or ends with a string, regorus leaves out the outer quotes."""
    start, end = span["start"], span["end"]
    start -= source[start - 1 : start] in QUOTES
    end += source[end : end + 1] in QUOTES
    return source[start:end].decode()


def _reason(head: Mapping[str, Any], statements: list[Any]) -> str | None:
    """The text of `args.reason` where the definition writes it out."""
    element = next(iter(head.values())).get("key") or {}
    args = _field(element, "args")
    if args is not None and "Var" in args:
        name = args["Var"]["value"]
        args = next((right for left, right in _assignments(statements) if left == name), None)
    reason = _field(args or {}, "reason")
    return str(reason["String"]["value"]) if reason is not None and "String" in reason else None


def _field(node: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    for _, key, value in node.get("Object", {}).get("fields", []):
        if key.get("String", {}).get("value") == name:
            found: Mapping[str, Any] = value
            return found
    return None


def _assignments(statements: list[Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for statement in statements:
        assigned = statement["literal"].get("Expr", {}).get("expr", {}).get("AssignExpr")
        if assigned and "Var" in assigned["lhs"]:
            yield assigned["lhs"]["Var"]["value"], assigned["rhs"]


Scope = dict[str, Value]


class _Walk:
    """One walk from a definition; what it reads goes into `reads`."""

    def __init__(self, program: Program, reads: Reads) -> None:
        self.program = program
        self.reads = reads
        self._known: dict[tuple[Package, str, tuple[Value, ...]], Value] = {}
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

    def named(self, package: Package, name: str, arguments: tuple[Value, ...]) -> Value:
        """The rule or function `name` of `package`, over these arguments."""
        key = (package, name, arguments)
        if key in self._known or self._depth > MAX_DEPTH:
            return self._known.get(key, NOTHING)
        self._known[key] = NOTHING
        self._depth += 1
        found = [
            self.rule(module, rule, arguments)
            for module in self.program.packages.get(package, [])
            for rule in module.rules.get(name, [])
        ]
        self._depth -= 1
        self._known[key] = merged(found)
        return self._known[key]

    def rule(self, module: Module, rule: Mapping[str, Any], arguments: tuple[Value, ...]) -> Value:
        ((form, head),) = rule["head"].items()
        scope: Scope = {}
        for parameter, argument in zip(head.get("args") or [], arguments, strict=False):
            self._bind(parameter, argument, scope)
        found = []
        for body in rule["bodies"] or [{}]:
            inner = dict(scope)
            if "query" in body:
                self._query(module, body["query"], inner)
            assigned = body.get("assign") or head.get("assign")
            if form == "Set":
                found.append(Value(inside=self._expression(module, head["key"], inner)))
            elif assigned:
                value = self._expression(module, assigned["value"], inner)
                found.append(Value(inside=value) if len(flatten(head["refr"])) > 1 else value)
        return merged(found)

    def _query(self, module: Module, query: Mapping[str, Any], scope: Scope) -> None:
        # Twice: a statement may use what a later one binds.
        for _ in range(2):
            for statement in query["stmts"]:
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
            inner[_text(module.source, node["value"])] = source.part(None)
            self._query(module, node["query"], inner)

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
            self._query(module, node["query"], inner)
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
            return self.named(*target, arguments)
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
            value, rest = self.named(*target, ()), self._rest(module, parts, target)
        for part in rest:
            value = value.part(part)
        return value

    def _aliased_input(self, module: Module, parts: tuple[str | None, ...]) -> Value:
        full = self._full(module, parts)
        return Value(frozenset({tuple(full[1:])})) if full and full[0] == "input" else NOTHING

    def _full(self, module: Module, parts: tuple[str | None, ...]) -> tuple[str | None, ...]:
        """The reference with an imported name written out."""
        return (*module.aliases[parts[0]], *parts[1:]) if parts[0] in module.aliases else parts

    def _target(self, module: Module, parts: tuple[str | None, ...], scope: Scope) -> tuple[Package, str] | None:
        """The package and name of the rule that a reference starts with; None where no module defines it."""
        if parts[0] in scope:
            return None
        if parts[0] not in module.aliases and any(parts[0] in m.rules for m in self.program.packages[module.package]):
            return module.package, str(parts[0])
        full = self._full(module, parts)
        if full[0] != "data":
            return None
        for end in range(len(full) - 1, 1, -1):
            package = tuple(str(part) for part in full[1:end])
            if any(full[end] in m.rules for m in self.program.packages.get(package, [])):
                return package, str(full[end])
        return None

    def _rest(self, module: Module, parts: tuple[str | None, ...], target: tuple[Package, str]) -> tuple[str | None, ...]:
        """What stands behind the rule's name in the reference."""
        full = self._full(module, parts)
        return full[len(target[0]) + 2 :] if full[0] == "data" else parts[1:]

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
