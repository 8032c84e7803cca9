"""`portcullis policy explain`: why a decision came out as it did, in sentences for people who did not write the rules."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from cli.policy import Extra, asked_engine
from cli.session import Session, read_bytes, session, table
from core import jsonread
from core.decision import DOMAINS
from core.errors import BadInput

if TYPE_CHECKING:
    from api.compose import Management
    from api.explain import Explained
    from core.principal import Principal
    from policies.explain import Explanation, Reason, RuleExplained
    from policies.facts import Fact

MAX_READS = 10
NAMED = str.maketrans("{}", "<>")
"""How a message's template shows what it would name: `<model> is revoked`."""
OWN = {"policy/grant": "Nothing grants it", "policy/mandatory": "A rule could not be checked", "input/schema": "The input"}
"""Titles of reasons that no rule gave; the others are the engine's."""
LEGEND = "In the names of facts, `request` is what was asked, `facts` is what was known about it, `config` is what the operator has set."


def explain(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(metavar="ID or DOMAIN", help=f"A decision's or record's id; with -f {', '.join(DOMAINS)}")
    ],
    file: Annotated[str | None, typer.Option("--file", "-f", help="An input as JSON; - for standard input.")] = None,
    engine: Annotated[
        Literal["auto", "embedded", "wasm", "opa"], typer.Option(help="Which engine decides (with -f).")
    ] = "auto",
    bundle: Annotated[Path | None, typer.Option(help="A bundle file instead of the rules in force (with -f).")] = None,
    opa_url: Annotated[str | None, typer.Option(help="The OPA server, for --engine opa (with -f).")] = None,
    extra: Extra = None,
) -> None:
    """Why a decision came out as it did: what each rule read and said, and what would have to change. Exits 0 allowed, 1 denied.

    Example: portcullis policy explain admission -f input.json
    """
    if file is not None:
        from policies.explain import explain as find

        document = jsonread.loads_object(read_bytes(file))
        asked = asked_engine(context, engine, bundle, opa_url, extra)
        try:
            explanation = find(asked, what, document)  # type: ignore[arg-type]  # checked there
        finally:
            asked.close()
        show(session(context), explanation)
        raise typer.Exit(0 if explanation.decision.allow else 1)
    if what in DOMAINS:
        raise BadInput(f"name an input of the domain {what} with -f, or give the id of a decision instead")
    if engine != "auto" or bundle or opa_url or extra:
        raise BadInput("--engine, --bundle, --opa-url and --extra go with -f; a recorded decision has its own policies")
    found = _recorded(session(context), what)
    show(session(context), found.explanation, found)
    raise typer.Exit(0 if found.allow else 1)


def _recorded(here: Session, id: str) -> Explained:
    from api.explain import explained

    async def work(management: Management, _: Principal) -> Explained:
        await asyncio.to_thread(management.sequencer.integrate_if_free)
        async with management.engine() as engine:
            return explained(Path(here.settings.evidence.dir), id, lambda: engine.base)

    return here.run(work)


def show(here: Session, explanation: Explanation, recorded: Explained | None = None) -> None:
    """Prints it: sentences first, then one row per rule."""
    if here.json:
        here.result(explanation.as_json() if recorded is None else {**recorded.as_json(), "record": recorded.record})
        return
    if recorded is not None:
        record = recorded.record
        when = dt.datetime.fromtimestamp(record["time"], dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        here.result(
            f"Decision {record['decision']['decision_id']} of {when} about {record['subject']} (record {record['seq']})."
        )
    here.result("\n".join(sentences(explanation)))
    here.out.print()
    here.result(None, rows(explanation))


def sentences(explanation: Explanation) -> list[str]:
    decision = explanation.decision
    against = [(rule, reason) for rule in explanation.rules for reason in rule.reasons if reason.violation.mode == "enforce"]
    count = len(against) + len(explanation.others)
    if decision.allow:
        lines = [f"This was allowed by the {decision.domain} policies."]
        lines += _granted(explanation)
    else:
        lines = [f"This was denied by the {decision.domain} policies, for {count} reason{'' if count == 1 else 's'}."]
    lines += [f"Note: {note}" for note in explanation.notes]
    reasons = [(rule.title, reason) for rule, reason in against]
    reasons += [(OWN.get(reason.violation.rule, "The policy engine"), reason) for reason in explanation.others]
    for number, (title, reason) in enumerate(reasons, 1):
        lines += ["", *_reason(number, title, reason)]
    lines += _let_through(explanation)
    if decision.allow:
        lines += _silent(explanation)
    return [*lines, "", LEGEND]


def _reason(number: int, title: str, reason: Reason) -> list[str]:
    violation = reason.violation
    lines = [f"{number}. {title} ({violation.rule}): {violation.message}."]
    if violation.path:
        lines.append(f"   Where: {violation.path}")
    if reason.found:
        lines.append("   It read:")
        lines += [f"     {line}" for line in _facts(reason.found)]
    if reason.unmet:
        lines.append("   It could not be checked, because of:")
        lines += [f"     {one.path} is {one.found}{f'; it must be {one.wanted}' if one.wanted else ''}" for one in reason.unmet]
    if reason.note:
        lines.append(f"   {reason.note}")
    if violation.remediation:
        lines.append(f"   What to do: {violation.remediation}")
    if reason.changes:
        lines.append("   This reason would be gone if one of these were otherwise, and all else as it is (each was tried):")
    for change in reason.changes:
        then = "" if change.allows else "; other reasons would remain"
        lines.append(f"     if {change.text}{then}")
    return lines


def _granted(explanation: Explanation) -> list[str]:
    lines = [
        f"{rule.title} ({rule.id}) granted it: {grant.removeprefix(f'{rule.id}:')}."
        for rule in explanation.rules
        for grant in rule.grants
    ]
    return lines or ["No grant is needed here: what no rule speaks against is allowed."]


def _let_through(explanation: Explanation) -> list[str]:
    """What was found and did not deny, and why it did not."""
    lines: list[str] = []
    for rule in explanation.rules:
        for reason in rule.reasons:
            mode = reason.violation.mode
            if mode == "exempted":
                why = f"the exemption {reason.violation.exemption} covers it"
            elif mode != "enforce":
                why = f"the operator has set this rule to {mode}"
            else:
                continue
            lines.append(f"{rule.title} ({rule.id}) found something, and {why}: {reason.violation.message}.")
        if rule.verdict == "off":
            lines.append(f"{rule.title} ({rule.id}) found something, and the operator has switched this rule off.")
    return ["", *lines] if lines else []


def _silent(explanation: Explanation) -> list[str]:
    lines: list[str] = []
    for rule in explanation.rules:
        if rule.held:
            lines += [
                "",
                f"{rule.title} ({rule.id}) had nothing against it. It would have denied for one of these reasons, and none is so:",
            ]
            for held in rule.held:
                lines += [f"  - {message.translate(NAMED)}" for message in held.messages]
                lines.append(f"      not so: line {held.line} of the rule asks for `{held.statement}`, and that does not hold")
    return lines


def _facts(found: tuple[Fact, ...]) -> list[str]:
    """One line per fact; a list or object is left out where what stands in it is shown."""
    told = [one for one in found if one.kind not in {"a list", "an object"} or not _inside(one, found)]
    return [f"{one.path} is {one.shown}" for one in told]


def _inside(one: Fact, found: tuple[Fact, ...]) -> bool:
    return any(len(other.at) > len(one.at) and other.at[: len(one.at)] == one.at for other in found)


def rows(explanation: Explanation) -> Table:
    shown = table("RULE", "VERDICT", "READ")
    shown.columns[2].overflow = "fold"
    for rule in explanation.rules:
        facts = _facts(rule.reads)
        more = [f"and {len(facts) - MAX_READS} more (--json shows all)"] if len(facts) > MAX_READS else []
        # Escaped: what stands in an input is no markup.
        shown.add_row(rule.id, escape(_verdict(rule)), escape("\n".join([*facts[:MAX_READS], *more])))
    return shown


def _verdict(rule: RuleExplained) -> str:
    if rule.verdict == "exempted":
        return f"exempted by {rule.exemption}"
    return {"silent": "nothing against", "would deny": "would deny (dryrun)"}.get(rule.verdict, rule.verdict)
