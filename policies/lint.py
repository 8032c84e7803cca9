"""Finds where a rule says nothing because something is undefined, and where the engines then differ: `policy check` and every load of a tree.

Each code was tried in OPA 1.22, in Wasm and in regorus (tests/unit/policies/traps.py has the cases, tests/e2e/test_traps.py runs them):

| code | what happens |
|---|---|
| `undefined-under-not` | OPA and Wasm evaluate what stands under `not` outside it: undefined there, the body is silent; regorus: true |
| `undefined-in-literal` | a call without an answer takes the whole array, object or set with it, or drops a comprehension's member |
| `optional-compared` | a comparison in `deny` with a field that is not there does not hold: nobody is denied |
| `vanishing-denial` | a denial whose path or args name a field that is not there is no denial |
| `unchecked-optional` | `deny` reads a field that may be missing, and neither `checked` nor another `deny` minds |
| `unknown-path` | the input's schema has no such field: always undefined |

Read with `policies.defined`. Bundles that were built already are not linted: old evidence must stay replayable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace

from core.decision import DOMAINS
from core.errors import BadInput
from policies.defined import (
    TYPE_TESTS,
    Budget,
    Need,
    Scope,
    Value,
    covered,
    index_needs,
    may_be_undefined,
    needs,
    proved,
    proved_by,
    resolve,
    value_of,
)
from policies.program import (
    COMPREHENSIONS,
    LITERALS,
    REFERENCES,
    Body,
    Definition,
    Module,
    Node,
    Program,
    comprehension,
    literal,
    nested,
    operands,
    split,
)
from policies.shapes import Place, Presence, Shapes, Step, show_place
from policies.syntax import Syntax, dotted, flatten, line_of
from policies.tree import Source

CODES: Mapping[str, str] = {
    "undefined-under-not": (
        "under `not`, {found} may be undefined; OPA and Wasm then drop the whole body, regorus holds it true. "
        "Write a helper rule (`good if …`) and `not good`, or prove before that it is there"
    ),
    "undefined-in-literal": (
        "{found} may have no answer, and then the whole literal around it is undefined. "
        "Give the function a default, or call it in a statement of its own before"
    ),
    "optional-compared": (
        "{found} may be missing, and then this comparison holds for nobody and nothing is denied. "
        "Test for it before (is_string({found}) …), or deny its absence, or require it in `checked`"
    ),
    "vanishing-denial": (
        "{found} may be missing, and then there is no denial at all. Prove before that it is there, or read it with object.get"
    ),
    "unchecked-optional": (
        "deny reads {found}, which may be missing, and `checked` does not mention it. "
        "Require it in `checked`, deny its absence, or test for it before"
    ),
    "unknown-path": "the input of {domain} has no {found}: always undefined. See policies/schemas/{domain}.json for its fields",
}
"""What each finding says; what to write instead is part of it."""

ROOTS = ("checked", "deny", "grant")
COMPARISONS = frozenset({"BoolExpr", "ArithExpr", "BinExpr", "Membership"})

Body_ = tuple[Definition, Body]


@dataclass(frozen=True, slots=True, order=True)
class Trap:
    file: str
    line: int
    code: str
    message: str


def lint(read: Mapping[Source, Syntax]) -> list[Trap]:
    """Every trap of a tree that passed the other checks. BadInput where a module is too tangled to be followed."""
    program = Program.of(read)
    lint_ = _Lint(program)
    for module in program.modules:
        lint_.rule_module(module)
    for module in program.modules:
        lint_.rest(module)
    return sorted(lint_.found)


def shapes_of(source: Source) -> Shapes:
    """A rule's input is its domain's; a library's may be any."""
    domain = source.path.split("/")[1] if source.rule_id else None
    return Shapes(tuple(one for one in DOMAINS if domain in {None, one}))


class _Lint:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.found: set[Trap] = set()
        self.reached: set[Definition] = set()
        self.seen: set[object] = set()

    def scope(self, module: Module) -> Scope:
        return Scope(self.program, module, shapes_of(module.source), Budget(), {})

    def rule_module(self, module: Module) -> None:
        """A rule from where decisions reach it; helpers in the light of what they are called with."""
        if module.source.rule_id is None:
            return
        scope = self.scope(module)
        with _named(module):
            for name in ROOTS:
                for definition in module.rules.get(name, ()):
                    self.definition(definition, (), scope, frozenset())
            _Denials(self, module, scope).look()

    def rest(self, module: Module) -> None:
        """What no rule calls: libraries that the aggregators call, and helpers without a caller."""
        with _named(module):
            for definitions in module.rules.values():
                for definition in definitions:
                    if definition not in self.reached:
                        self.definition(definition, [None] * len(definition.args), self.scope(module), frozenset())

    def add(self, scope: Scope, line: int, code: str, found: str) -> None:
        domain = "/".join(scope.shapes.domains) if len(scope.shapes.domains) == 1 else "any domain"
        message = CODES[code].format(found=_short(found), domain=domain)
        self.found.add(Trap(scope.module.source.file, line, code, message))

    # --- every body ------------------------------------------------------------------------------------------------

    def definition(
        self, definition: Definition, args: Sequence[Value | None], outer: Scope, present: AbstractSet[Place]
    ) -> None:
        key = (definition, tuple(args), frozenset(present), outer.shapes)
        if key in self.seen:
            return
        self.seen.add(key)
        self.reached.add(definition)
        scope = outer.of(definition, args)
        present = present | {arg for arg in args if isinstance(arg, tuple)}
        for body in definition.bodies or [Body((), None, is_else=False)]:
            head = [term for term in (definition.key, body.value or definition.value) if term is not None]
            self.body(body.statements, head, scope.inside(body.statements), present)

    def body(self, statements: Sequence[Node], head: Iterable[Node], scope: Scope, present: AbstractSet[Place]) -> None:
        """`scope` has the body's variables; `present` is what the surroundings proved."""
        proofs = [proved(statement, scope) for statement in statements]
        for i, statement in enumerate(statements):
            others = set(present).union(*(proof for j, proof in enumerate(proofs) if j != i))
            self.statement(statement, scope, others)
        everything = set(present).union(*proofs)
        for term in head:
            self.term(term, scope, everything)

    def statement(self, statement: Node, scope: Scope, present: set[Place]) -> None:
        kind, node = literal(statement)
        if kind == "NotExpr":
            self.negated(node["expr"], scope, present)
            self.term(node["expr"], scope, present)
        elif kind == "Expr":
            self.term(node["expr"], scope, present)
        elif kind == "SomeIn":
            self.term(node["collection"], scope, present)
        elif kind == "Every":
            self.term(node["domain"], scope, present)
            self.body(node["query"]["stmts"], (), scope.within(node), present | proved_by(node["domain"], scope))

    def negated(self, term: Node, scope: Scope, present: set[Place]) -> None:
        for need in _needs_under_not(term, scope):
            if may_be_undefined(need, scope, present) and not _absent(need, scope):
                self.add(scope, line_of(term), "undefined-under-not", need.text)

    def term(self, term: Node, scope: Scope, present: AbstractSet[Place]) -> None:
        scope.budget.spend()
        kind, _ = split(term)
        if kind in REFERENCES:
            self.reference(term, scope, present)
        elif kind == "Call":
            self.call(term, scope, present)
        elif kind in LITERALS:
            self.calls_inside(operands(term), scope, present)
        elif kind in COMPREHENSIONS:
            head, statements = comprehension(term)
            inner = scope.inside(statements)
            self.body(statements, head, inner, present)
            there = set(present).union(*(proved(statement, inner) for statement in statements))
            self.calls_inside(head, inner, there)
            return
        for part in operands(term):
            self.term(part, scope, present)

    def calls_inside(self, members: Iterable[Node], scope: Scope, present: AbstractSet[Place]) -> None:
        for member in members:
            if split(member)[0] == "Call":
                for need in needs(member, scope):
                    if need.place is None and may_be_undefined(need, scope, present):
                        self.add(scope, line_of(member), "undefined-in-literal", need.text)

    def reference(self, term: Node, scope: Scope, present: AbstractSet[Place]) -> None:
        first = flatten(term)[0]
        if first is not None and first not in scope.variables:
            for definition in scope.definitions(flatten(term))[0]:
                if not definition.args:
                    self.definition(definition, (), scope, _global(present))
        self.known(resolve(term, scope), line_of(term), scope)

    def known(self, place: Value | None, line: int, scope: Scope) -> None:
        if isinstance(place, tuple) and place[0] == "input" and scope.shapes.presence(place) is Presence.ABSENT:
            self.add(scope, line, "unknown-path", show_place(place))

    def call(self, term: Node, scope: Scope, present: AbstractSet[Place]) -> None:
        _, node = split(term)
        args = [value_of(argument, scope) for argument in node["params"]]
        for definition in scope.callees(node):
            self.definition(definition, args, scope, present)
        self.known(_got(term, scope), line_of(term), scope)


def _got(term: Node, scope: Scope) -> Place | None:
    """Where `object.get(OBJECT, "key", …)` looks, one inside the other too."""
    kind, node = split(term)
    if kind in REFERENCES:
        place = resolve(term, scope)
        return place if isinstance(place, tuple) else None
    if kind != "Call" or flatten(node["fcn"]) != ("object", "get") or len(node["params"]) != 3:
        return None
    place = _got(node["params"][0], scope)
    how, key = split(node["params"][1])
    return (*place, key["value"]) if place is not None and how == "String" else None


def _absent(need: Need, scope: Scope) -> bool:
    """Whether this is reported as an unknown path, the cause of whatever else would be said of it."""
    place = need.place
    return place is not None and place[0] == "input" and scope.shapes.presence(place) is Presence.ABSENT


def _needs_under_not(term: Node, scope: Scope) -> Iterable[Need]:
    """What must be defined for OPA to look at the negation at all. `not ref`, `not ref == ref` and `not f(x)` are safe themselves."""
    kind, node = split(term)
    if kind in REFERENCES:
        return index_needs(term, scope)
    if kind == "BoolExpr" and node["op"] == "Eq":
        sides = [node["lhs"], node["rhs"]]
        return [
            need
            for side in sides
            for need in (index_needs(side, scope) if split(side)[0] in REFERENCES else needs(side, scope))
        ]
    if kind == "Call":
        return [need for parameter in node["params"] for need in needs(parameter, scope)]
    return needs(term, scope)


# --- denials -------------------------------------------------------------------------------------------------------


class _Denials:
    """The `deny` of one rule: does it say nothing where something is missing that nobody minds?"""

    def __init__(self, lint_: _Lint, module: Module, scope: Scope) -> None:
        self.lint = lint_
        self.module = module
        self.scope = scope
        self.required = [_tests(body, scope) for body in _bodies(module.rules.get("checked", ()))]
        self.denied = _absences(_bodies(module.rules.get("deny", ())), scope)
        self.seen: set[object] = set()

    def look(self) -> None:
        for definition, body in _bodies(self.module.rules.get("deny", ())):
            scope = self.scope.inside(body.statements)
            self.body(body.statements, scope, frozenset(), self.denied)
            explicit = _union(_explicit(statement, scope) for statement in body.statements)
            compared = _union(_compared(statement, scope) for statement in body.statements)
            for head in (definition.key, body.value or definition.value):
                if head is not None:
                    self.report(needs(head, scope), "vanishing-denial", scope, explicit | compared, self.denied)

    def body(self, statements: Sequence[Node], scope: Scope, present: AbstractSet[Place], minded: AbstractSet[Place]) -> None:
        proofs = [_explicit(statement, scope) for statement in statements]
        for i, statement in enumerate(statements):
            others = set(present).union(*(proof for j, proof in enumerate(proofs) if j != i))
            self.statement(statement, scope, others, minded)

    def statement(self, statement: Node, scope: Scope, present: set[Place], minded: AbstractSet[Place]) -> None:
        kind, node = literal(statement)
        if kind == "SomeIn":
            self.report(needs(node["collection"], scope), "unchecked-optional", scope, present, minded)
        elif kind == "Every":
            self.report(needs(node["domain"], scope), "unchecked-optional", scope, present, minded)
            self.body(node["query"]["stmts"], scope.within(node), present, minded)
        elif kind == "NotExpr":
            self.helpers(node["expr"], scope, present, holds=False)
        elif kind == "Expr":
            self.expression(node["expr"], scope, present, minded)

    def expression(self, term: Node, scope: Scope, present: set[Place], minded: AbstractSet[Place]) -> None:
        kind, node = split(term)
        if kind == "AssignExpr":
            given = node["rhs"]
            if split(given)[0] in REFERENCES:
                return
            code = "optional-compared" if split(given)[0] in COMPARISONS else "vanishing-denial"
            self.report(needs(given, scope), code, scope, present, minded)
        elif kind in COMPARISONS:
            self.report(needs(term, scope), "optional-compared", scope, present, minded)
        elif kind == "Call" and dotted(flatten(node["fcn"])) not in TYPE_TESTS:
            code = "unchecked-optional" if scope.callees(node) else "optional-compared"
            self.report(needs(term, scope), code, scope, present, minded)
        self.helpers(term, scope, present, holds=True)
        for part in nested(term):
            if split(part)[0] in COMPREHENSIONS:
                _, statements = comprehension(part)
                self.body(statements, scope.inside(statements), present, minded)

    def helpers(self, term: Node, scope: Scope, present: AbstractSet[Place], *, holds: bool) -> None:
        """The bodies of the helper that a statement asks, where a comparison that fails makes `deny` silent."""
        kind, node = split(term)
        if kind in REFERENCES:
            first = flatten(term)[0]
            found = scope.definitions(flatten(term))[0] if first is not None and first not in scope.variables else []
            args: list[Value | None] = []
        elif kind == "Call":
            found, args = scope.callees(node), [value_of(argument, scope) for argument in node["params"]]
        else:
            return
        if any(definition.collects for definition in found):
            return
        key = (tuple(found), tuple(args), frozenset(present), holds)
        if not found or key in self.seen:
            return
        self.seen.add(key)
        inner = scope.of(found[0], args)
        minded = self.denied | _absences(_bodies(found), inner)
        given = {arg for arg in args if isinstance(arg, tuple)}
        for definition, body in _bodies(found):
            own = scope.of(definition, args).inside(body.statements)
            if holds:
                self.body(body.statements, own, present | given, minded)
                continue
            for statement in body.statements:
                how, inside = literal(statement)
                if how == "NotExpr":
                    self.helpers(inside["expr"], own, present, holds=True)

    def report(
        self,
        needed: Iterable[Need],
        code: str,
        scope: Scope,
        present: AbstractSet[Place],
        minded: AbstractSet[Place],
    ) -> None:
        for need in needed:
            if need.place is None or need.place[0] != "input" or _absent(need, scope):
                continue
            for prefix in scope.shapes.unsure_prefixes(need.place, Presence.OPTIONAL):
                if not covered(prefix, present) and not self.handled(prefix, minded):
                    self.lint.add(scope, need.line, code, show_place(prefix))
                    break

    def handled(self, prefix: Place, minded: AbstractSet[Place]) -> bool:
        """Whether `checked` needs it or settles that it is not there, or another `deny` denies that it is not there."""
        plain = _plain(prefix)
        if covered(plain, {_plain(place) for place in minded}):
            return True
        return bool(self.required) and all(
            covered(plain, there) or any(plain[: len(gone)] == gone for gone in absent) for there, absent in self.required
        )


def _bodies(definitions: Iterable[Definition]) -> list[Body_]:
    return [
        (definition, body)
        for definition in definitions
        if not definition.default
        for body in definition.bodies or [Body((), None, is_else=False)]
    ]


def _tests(one: Body_, scope: Scope) -> tuple[set[Place], set[Place]]:
    """What a body of `checked` proves to be there, and what it settles to be absent."""
    definition, body = one
    inner = scope.of(definition, ()).inside(body.statements)
    there = _union(proved(statement, inner) for statement in body.statements)
    value = body.value or definition.value
    if value is not None:
        there |= proved_by(value, inner)
    return {_plain(place) for place in there}, {_plain(place) for place in _absences([(definition, body)], scope)}


def _absences(bodies: Iterable[Body_], scope: Scope) -> set[Place]:
    """What stands under `not` in these bodies: they hold when it is missing. `scope` has the parameters, if there are any."""
    found: set[Place] = set()
    for definition, body in bodies:
        inner = replace(scope, module=definition.module).inside(body.statements)
        for statement in body.statements:
            kind, node = literal(statement)
            if kind == "NotExpr":
                found |= proved_by(node["expr"], inner, holds=True)
    return found


def _explicit(statement: Node, scope: Scope) -> set[Place]:
    """What a statement proves that is there to prove it: a type test, a bare reference, an iteration, a helper."""
    kind, node = literal(statement)
    if kind == "Expr" and split(node["expr"])[0] not in {*REFERENCES, "Call"}:
        return set()
    if kind == "Expr" and split(node["expr"])[0] == "Call":
        call = split(node["expr"])[1]
        if not scope.callees(call) and dotted(flatten(call["fcn"])) not in TYPE_TESTS:
            return set()
    return proved(statement, scope)


def _compared(statement: Node, scope: Scope) -> set[Place]:
    """What a comparison proves: what it needs was reported there already, if it may be missing."""
    kind, node = literal(statement)
    return proved(statement, scope) if kind == "Expr" and split(node["expr"])[0] != "AssignExpr" else set()


def _plain(place: Place) -> Place:
    """A place whatever the names of iterations are."""
    return tuple(Step("each", "") if isinstance(part, Step) and part.kind == "each" else part for part in place)


def _global(present: AbstractSet[Place]) -> frozenset[Place]:
    """What a rule without parameters may rely on: no iteration's element is its own."""
    return frozenset(place for place in present if not any(isinstance(part, Step) for part in place))


def _union(sets: Iterable[set[Place]]) -> set[Place]:
    return set().union(*sets)


@contextmanager
def _named(module: Module) -> Iterator[None]:
    """Names the module in a BadInput that leaves."""
    try:
        yield
    except BadInput as error:
        raise BadInput(error.message, where=module.source.file) from error


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
