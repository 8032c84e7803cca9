"""The module of each domain that joins its rules into one decision: generated when rules are loaded, never kept.

Generated because a call by name (`data.portcullis.rules.admission["gpu-quota"].deny`) is several times quicker than one through
`data.x[rule]`, and because adding a rule must edit no list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.decision import DOMAINS, NEEDS_GRANT, STOPS, Domain
from policies.syntax import dotted


@dataclass(frozen=True, slots=True)
class Member:
    """A rule as the aggregator needs it: its id and which of `deny` and `grant` it defines."""

    id: str
    deny: bool
    grant: bool

    @property
    def reference(self) -> str:
        domain, name = self.id.split("/")
        return dotted(("data", "portcullis", "rules", domain, name))


_HEAD = """\
# METADATA
# title: The decision of the domain {domain}
# description: Generated from the rule folders when they are loaded (policies/aggregator.py).
package portcullis.{domain}

import data.portcullis.lib.exemptions
import data.portcullis.lib.modes
import data.portcullis.lib.obligations

decision := {{
	"allow": allow,
	"evaluated": evaluated,
	"grants": sort([grant | some grant in granted]),
	"violations": [entry | some key in sort([[e.rule, e.path, e] | some e in violations]); entry := key[2]],
	"warnings": [entry | some key in sort([[e.rule, e.path, e] | some e in warnings]); entry := key[2]],
	"obligations": obligations.obligations,
}}

default allow := false

allow if {{
	count(input.mandatory) > 0
	every rule in input.mandatory {{
		rule in evaluated
	}}{grant}
	count(violations) == 0
}}

violations contains entry if {{
	some found in denials
	not exempted(found.rule)
	entry := object.union(found, {{"mode": mode(found.rule)}})
	entry.mode == "enforce"
}}

warnings contains entry if {{
	some found in denials
	not exempted(found.rule)
	entry := object.union(found, {{"mode": mode(found.rule)}})
	entry.mode in {{"warn", "dryrun"}}
}}

warnings contains entry if {{
	some found in denials
	exempted(found.rule)
	mode(found.rule) != "off"
	entry := object.union(found, {{"mode": "exempted", "exemption": exemptions.id(found.rule)}})
}}

# An emergency stop knows no mode and no exemption.
stops := {stops}

exempted(rule) if {{
	not rule in stops
	is_string(exemptions.id(rule))
}}

default mode(_) := "enforce"

mode(rule) := found if {{
	not rule in stops
	found := modes.mode(rule)
	found in {{"warn", "dryrun", "off"}}
}}

denial(rule, element) := object.union({{"rule": rule, "path": path(element), "args": args(element)}}, message(element))

default path(_) := ""

path(element) := element.path if {{
	is_object(element)
	is_string(element.path)
}}

default args(_) := {{}}

args(element) := {{name: listed(value) | some name, value in element.args}} if {{
	is_object(element)
	is_object(element.args)
}}

# A set is an array in JSON, and each engine writes it in an order of its own.
listed(value) := sort(value) if is_set(value)

listed(value) := value if not is_set(value)

default message(_) := {{}}

message(element) := {{"message": element.message}} if {{
	is_object(element)
	is_string(element.message)
}}
"""


def path_of(domain: Domain) -> str:
    """Where the generated module stands in a bundle."""
    return f"generated/{domain}.rego"


def generate(members: Sequence[Member]) -> Mapping[str, str]:
    """The module of every domain, by path. A domain without rules gets one that always denies."""
    return {
        path_of(domain): _module(domain, sorted((m for m in members if m.id.startswith(f"{domain}/")), key=lambda m: m.id))
        for domain in DOMAINS
    }


def _module(domain: Domain, members: Sequence[Member]) -> str:
    grant = "\n\tcount(granted) > 0" if domain in NEEDS_GRANT else ""
    stops = ", ".join(f'"{rule}"' for rule in sorted(STOPS))
    parts = [_HEAD.format(domain=domain, grant=grant, stops=f"{{{stops}}}")]
    parts.append(_evaluated(members))
    parts.append(_union("denials", [_denial(m) for m in members if m.deny]))
    parts.append(_union("granted", [_grant(m) for m in members if m.grant]))
    return "\n".join(parts)


def _evaluated(members: Sequence[Member]) -> str:
    """The ids whose `checked` holds, in order: an array of arrays, because Wasm sorts a set of 200 in more time than it takes to fill it.

    Each inner one is a comprehension, which is empty and never undefined, whatever the rule is.
    """
    if not members:
        return "evaluated := [rule | some rule in input.mandatory; false]\n"
    parts = "".join(f'\t\t["{m.id}" | {m.reference}.checked == true],\n' for m in members)
    return f"evaluated := [rule |\n\tsome found in [\n{parts}\t]\n\tsome rule in found\n]\n"


def _union(name: str, definitions: Sequence[str]) -> str:
    """A set by name; the empty one keeps an open element type, or OPA's type checker refuses what reads it."""
    empty = f"{name} contains element if {{\n\tsome element in input.mandatory\n\tfalse\n}}"
    return "\n\n".join(definitions or [empty]) + "\n"


def _denial(member: Member) -> str:
    return f'denials contains denial("{member.id}", element) if some element in {member.reference}.deny'


def _grant(member: Member) -> str:
    return (
        f'granted contains concat(":", ["{member.id}", id]) if {{\n\t"{member.id}" in input.mandatory\n'
        f"\tsome id in {member.reference}.grant\n\tis_string(id)\n}}"
    )
