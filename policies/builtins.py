"""The built-ins that rules may use, and the judgement of everything a module calls. No option widens it.

A built-in is on the list when, for arguments of the right type, it has exactly one answer, the same in every engine and at
every time (total, pure, no I/O). Where it fails instead, engines differ: OPA with strict errors answers 500, regorus raises,
Wasm allows. So there is no division or remainder (zero), no `to_number`, `max` or `min` (undefined on nothing), no
`sprintf`, `regex`, `json`, `time`, `units` or `semver` (parsing is Python's work), no `lower` or `upper` (Go and Rust fold some
letters differently: final sigma), no `replace` (Wasm fails on an empty pattern), no `object.union_n` (Wasm has no answer for
none), no `*` and `product` (beyond 64 bits one engine rounds), no `strings.any_prefix_match` and `strings.any_suffix_match`
(OPA's Wasm leaves them to its host), no `walk` and `numbers.range` (unbounded work), and nothing that reaches out or varies.

tests/e2e/test_builtins.py tries each in three engines. Two things the list cannot say: `count` a collection, never a text (the
interpreter counts a letter beyond 16 bits twice), and give `concat` an array, never a set (Wasm takes it in an order of its own).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policies.syntax import Path, Syntax, Use

ALLOWED: frozenset[str] = frozenset(
    {
        # collections
        "count", "sum", "sort", "union", "intersection",
        "array.concat", "array.reverse", "array.slice",
        "object.get", "object.keys", "object.remove", "object.filter", "object.union",
        # text, compared and cut, never parsed
        "concat", "contains", "startswith", "endswith", "split", "trim", "trim_left", "trim_right", "trim_prefix",
        "trim_suffix",
        # types
        "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name",
        # numbers: integers after the schema check
        "abs",
    }
)  # fmt: skip

OPERATORS: frozenset[str] = frozenset({"+", "-", "|", "&"})

OPERATOR_NAMES: Mapping[str, str] = {
    "plus": "+", "minus": "-", "mul": "*", "or": "|", "and": "&", "div": "/", "rem": "%",
}  # fmt: skip
"""OPA's syntax tree names operators; written as calls they mean the same."""

COMPARISONS: frozenset[str] = frozenset(
    {"assign", "eq", "equal", "neq", "lt", "lte", "gt", "gte", "internal.member_2", "internal.member_3"}
)
"""What OPA's syntax tree writes for `:=`, `=`, `==`, `!=`, `<`, `<=`, `>`, `>=` and `in`."""

NAMESPACES: frozenset[str] = frozenset(
    {
        "array", "base64", "base64url", "bits", "crypto", "glob", "graph", "graphql", "hex", "http", "internal", "io",
        "json", "net", "numbers", "object", "opa", "providers", "rand", "regex", "rego", "semver", "strings", "time",
        "units", "uri", "urlquery", "uuid", "yaml",
    }
)  # fmt: skip
PLAIN: frozenset[str] = frozenset(
    {
        "abs", "all", "and", "any", "assign", "cast_array", "cast_boolean", "cast_null", "cast_object", "cast_set",
        "cast_string", "ceil", "concat", "contains", "count", "div", "endswith", "eq", "equal", "floor", "format_int",
        "gt", "gte", "indexof", "indexof_n", "intersection", "is_array", "is_boolean", "is_null", "is_number",
        "is_object", "is_set", "is_string", "lower", "lt", "lte", "max", "min", "minus", "mul", "neq", "or", "plus",
        "print", "product", "re_match", "rem", "replace", "round", "set_diff", "sort", "split", "sprintf", "startswith",
        "substring", "sum", "to_number", "trace", "trim", "trim_left", "trim_prefix", "trim_right", "trim_space",
        "trim_suffix", "type_name", "union", "upper", "walk",
    }
)  # fmt: skip
RESERVED: frozenset[str] = NAMESPACES | PLAIN | {"data", "input"}
"""Names OPA 1.22 gives a meaning. A rule or import may not take one: engines differ in which of the two a call then means."""

LIB_USERS_ROOT = ("data", "portcullis")
READABLE = frozenset({"lib", "rules"})
"""Below it; the rest are the decisions, which read the rules: a rule that read one would go round in a circle."""


@dataclass(frozen=True, slots=True)
class Objection:
    code: str
    message: str
    line: int


def judge(syntax: Syntax, functions: Mapping[Path, frozenset[str]]) -> list[Objection]:
    """What `syntax` does that no rule may do. `functions`: the functions of each package that is loaded with it."""
    found = [
        Objection("reserved-name", f"the import is called {name}, like a built-in; write `as OTHER`", 0)
        for name in sorted(syntax.aliases.keys() & RESERVED)
    ]
    found += [
        Objection("reserved-name", f"the rule is called {head.name}, like a built-in", head.line)
        for head in syntax.heads
        if head.name in RESERVED
    ]
    for use in syntax.uses:
        objection = _judge(use, syntax, functions)
        if objection is not None:
            found.append(objection)
    return found


def used(syntax: Syntax) -> frozenset[str]:
    """The permitted built-ins and operators in a module that `judge` has nothing against (no rule or import is called like one)."""
    names = {show(use.path) for use in syntax.uses if use.kind in {"call", "operator"}}
    return frozenset({OPERATOR_NAMES.get(name, name) for name in names} & (ALLOWED | OPERATORS))


def _judge(use: Use, syntax: Syntax, functions: Mapping[Path, frozenset[str]]) -> Objection | None:
    shown = show(use.path)
    if use.kind == "with":
        return Objection("with", "`with` replaces what a rule sees; only tests may use it", use.line)
    if use.kind == "syntax":
        return Objection("syntax", f"the construct {shown} is not one that rules may use", use.line)
    if use.kind == "data":
        return _judge_data(use)
    if use.kind == "operator":
        return None if shown in OPERATORS else _refuse(shown, use.line)
    return _judge_call(use, syntax, functions)


def _judge_data(use: Use) -> Objection | None:
    if use.path[:2] == LIB_USERS_ROOT and len(use.path) > 2 and use.path[2] in READABLE:
        return None
    return Objection(
        "data",
        f"{show(use.path)} lies outside data.portcullis.lib and data.portcullis.rules; facts and configuration come in `input`",
        use.line,
    )


def _judge_call(use: Use, syntax: Syntax, functions: Mapping[Path, frozenset[str]]) -> Objection | None:
    path = use.path
    name = show(path)
    if None in path:
        return Objection("call", f"{name} is a computed call; name the function", use.line)
    if path[0] == "data":
        return _judge_data(use) or _defined(path, functions, use.line)
    if path[0] in syntax.aliases:
        return _defined((*syntax.aliases[path[0]], *path[1:]), functions, use.line)
    if len(path) == 1 and path[0] in functions.get(syntax.package, ()):
        return None
    if name in OPERATOR_NAMES:
        return None if OPERATOR_NAMES[name] in OPERATORS else _refuse(OPERATOR_NAMES[name], use.line)
    return None if name in ALLOWED or name in COMPARISONS else _refuse(name, use.line)


def _defined(path: Path, functions: Mapping[Path, frozenset[str]], line: int) -> Objection | None:
    if path[0] == "data" and path[-1] in functions.get(path[1:-1], ()):
        return None
    return Objection("call", f"{show(path)} is not a function of the loaded rules", line)


def _refuse(name: str, line: int) -> Objection:
    return Objection(
        "builtin",
        f"{name} is not on the list of built-ins that rules may use (policies/builtins.py): it can fail, vary or reach out",
        line,
    )


def show(path: Path) -> str:
    return ".".join("[…]" if part is None else part for part in path)
