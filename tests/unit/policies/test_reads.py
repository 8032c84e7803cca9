"""What a rule reads, found in its syntax tree: nothing that decides may be missing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from policies.engine import Engine, load_embedded
from policies.facts import facts
from policies.reads import Pattern, Reads, RuleReader
from tests.corpus import Case, cases

RULE = ("portcullis", "rules", "admission", "r")
LIB = """package portcullis.lib.l

import data.portcullis.lib.m

open(image) if image.registry == input.config.registry

names contains name if some name, _ in input.config.table

chosen := object.get(object.get(input, "facts", {}), "chosen", [])

deep(x) := m.last(x.inner)
"""
OTHER = """package portcullis.lib.m

last(y) := y.leaf
"""
BODIES = {
    "a path": ("deny contains 1 if input.a.b > 1", {"a.b"}),
    "a variable over a list": ("deny contains 1 if { some c in input.list; c.x == 1 }", {"list", "list.*.x"}),
    "an index that nothing bound": ("deny contains 1 if input.list[i].x == 1", {"list.*.x"}),
    "some with an index": ("deny contains 1 if { some i; input.list[i].x }", {"list.*.x"}),
    "brackets with text": ('deny contains 1 if input["a b"].c', {"a b.c"}),
    "a computed key": ("deny contains 1 if input.t[input.k]", {"k", "t.*"}),
    "a function of a library": (
        "deny contains 1 if { some c in input.cs; l.open(c.image) }",
        {"cs", "cs.*.image.registry", "config.registry"},
    ),
    "a function through two libraries": ("deny contains 1 if l.deep(input.z) == 2", {"z.inner.leaf"}),
    "a set of a library": ('deny contains 1 if "x" in l.names', {"config.table"}),
    "object.get": ("deny contains 1 if count(l.chosen) > 0", {"facts.chosen"}),
    "every": ("deny contains 1 if every m in input.ms { m.ok == true }", {"ms", "ms.*.ok"}),
    "a comprehension": ("deny contains 1 if count([p.q | some p in input.ps; p.on]) > 0", {"ps", "ps.*.on", "ps.*.q"}),
    "an object made here": ('deny contains 1 if { o := {"n": input.n, "m": input.m}; o.n == 1 }', {"n"}),
    "an element of a set of objects": (
        'deny contains 1 if { some f in faults; f.n == 1 }\nfaults contains {"n": input.n}',
        {"n"},
    ),
    "a local that hides a rule": ("deny contains 1 if { hidden := input.a; hidden.b }\nhidden := input.other", {"a.b"}),
    "a statement before what it uses": ("deny contains 1 if { c.x == 1; c := input.a }", {"a.x"}),
    "an else": ("deny contains 1 if v == 1\nv := 1 if { input.a } else := 2 if { input.b }", {"a", "b"}),
    "what it only reports": ('deny contains {"path": input.at} if true', {"at"}),
    "a union of sets": ("deny contains 1 if { some f in ({input.a} | {input.b}); f == 1 }", {"a", "b"}),
    "a default function": ("deny contains 1 if f(input.a) == 1\ndefault f(_) := 1\nf(x) := x.b", {"a.b"}),
    "an imported input": ("deny contains 1 if here.b", {"a.b"}),
}


def shown(patterns: Any) -> set[str]:
    return {".".join(part or "*" for part in pattern) for pattern in patterns}


def program(body: str) -> RuleReader:
    head = 'package portcullis.rules.admission["r"]\n\nimport data.portcullis.lib.l\nimport input.a as here\n\n'
    return RuleReader({"r.rego": head + body, "lib/l.rego": LIB, "lib/m.rego": OTHER})


@pytest.mark.parametrize("case", BODIES)
def test_what_a_rule_reads(case: str) -> None:
    body, expected = BODIES[case]
    assert shown(program(body).reads(RULE, "deny").paths) == expected


def test_types_asked_for_and_values_compared() -> None:
    reads = program('deny contains 1 if { is_array(input.a); input.b in input.c; input.d == "x"; input.e in {1, 2} }').reads(
        RULE, "deny"
    )
    assert reads.wanted == {("a",): "a list"}
    assert (("b",), ("c", None)) in reads.pairs
    assert (reads.constants["d",], reads.constants["e",]) == ({"x"}, {1, 2})


def test_each_definition_with_its_statements_and_its_reason() -> None:
    body = 'deny contains {"args": {"reason": "a"}} if {\n\tinput.x == "q" # why\n\tnot input.y\n}\n'
    body += 'deny contains {"args": args} if {\n\targs := {\n\t\t"reason": "b", # one\n\t\t"n": 1,\n\t}\n}\ndeny contains 1'
    first, second, third = program(body).branches(RULE, "deny")
    assert (first.reason, first.statements, first.lines) == ("a", ('input.x == "q"', "not input.y"), (7, 8))
    assert (second.reason, second.statements[0].startswith("args := {")) == ("b", True)
    assert (third.reason, third.statements) == (None, ())


# --- nothing is left out ------------------------------------------------------------------------------------------------

KEPT = [case for case in cases() if not case.expect.get("schema")]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = load_embedded()
    yield made
    made.close()


@pytest.fixture(scope="module")
def read(engine: Engine) -> dict[str, list[Pattern]]:
    program = RuleReader(engine.bundle.modules)
    found = {}
    for rule in engine.catalogue.rules():
        reads = Reads()
        for name in ("checked", "deny", "grant"):
            reads.add(program.reads(("portcullis", "rules", *rule.id.split("/")), name))
        found[rule.id] = list(reads.paths)
    return found


def said(engine: Engine, case: Case, document: dict[str, Any]) -> dict[str, Any] | None:
    """What each rule said; None where the input does not fit any more."""
    decision = engine.decide(case.domain, document)
    if decision.code in {"input/schema", "engine/error"}:
        return None
    rules = [rule.id for rule in engine.catalogue.rules() if rule.domain == case.domain]
    entries = [entry.as_json() for entry in (*decision.violations, *decision.warnings)]
    return {
        rule: (
            rule in decision.evaluated,
            [e for e in entries if e["rule"] == rule],
            [g for g in decision.grants if g.startswith(rule)],
        )
        for rule in rules
    }


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from leaves(item, (*at, key))


@pytest.mark.parametrize("case", KEPT[:: len(KEPT) // 12], ids=str)
def test_taking_away_what_a_rule_does_not_read_changes_nothing_for_it(
    engine: Engine, read: dict[str, list[Pattern]], case: Case
) -> None:
    before = said(engine, case, case.input)
    assert before is not None
    for at in leaves(case.input):
        if at[0] in {"mandatory", "now_unix"} or at[:2] in {("config", "modes"), ("config", "exemptions")}:
            continue  # read by the aggregator for every rule
        changed = copy.deepcopy(case.input)
        target = changed
        for part in at[:-1]:
            target = target[part]
        del target[at[-1]]
        after = said(engine, case, changed)
        for rule in before if after is not None else ():
            if after[rule] != before[rule]:
                named = [one.at for one in facts(case.input, read[rule])]
                near = [one for one in named if one[: len(at)] == at or at[: len(one)] == one]
                assert near, f"{rule} reads {at} and it is not named"
