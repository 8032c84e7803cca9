"""Why a decision came out as it did: rule by rule, with the facts that each read, and what would have to change.

1. The decision is made again, remembering nothing.
2. What each rule said by itself (its denials whatever its mode, its grants, how far each of its definitions came) is asked of the
   same modules in this process. All engines agree on them, and an engine that decides answers with less.
3. What each rule reads comes from its syntax tree (`policies.reads`), filled in from the input (`policies.facts`).
4. For each reason against, changes of single facts are tried (`policies.counterfactual`).

An input that does not fit the domain's type was never seen by a rule; of it only the kinds of its values are told, for they may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from core.canonical import canonical
from core.decision import Decision, Domain, Violation
from core.errors import ConfigError
from policies.catalogue import Rule
from policies.counterfactual import Change, Search
from policies.embedded import Embedded
from policies.engine import Engine
from policies.evaluate import EngineFailure
from policies.facts import Fact, facts, get, kind_of, show_path
from policies.reads import Branch, Package, Reads, RuleReader
from policies.syntax import dotted

Verdict = Literal["denied", "warned", "would deny", "exempted", "off", "granted", "silent", "not checked", "not asked"]
REACHED = "portcullis_reached"
_MODES: Mapping[str, Verdict] = {"enforce": "denied", "warn": "warned", "dryrun": "would deny", "off": "off"}


@dataclass(frozen=True, slots=True)
class Unmet:
    """A fact without which the rule does not count as checked."""

    path: str
    found: str
    wanted: str

    def as_json(self) -> dict[str, Any]:
        return {"path": self.path, "found": self.found, "wanted": self.wanted}


@dataclass(frozen=True, slots=True)
class Held:
    """Why one definition of the rule's `deny` did not apply: its first statement that does not hold, as it is written.

    `messages`: the templates of what it would have said; several where it hands on reasons from a library.
    """

    reason: str | None
    messages: tuple[str, ...]
    line: int
    statement: str

    def as_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "messages": list(self.messages), "line": self.line, "does_not_hold": self.statement}


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing against: what it says, what was found, and what would end it."""

    violation: Violation
    found: tuple[Fact, ...] = ()
    changes: tuple[Change, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            **self.violation.as_json(),
            "note": self.note or None,
            "found": [fact.as_json() for fact in self.found],
            "changes": [change.as_json() for change in self.changes],
            "unmet": [unmet.as_json() for unmet in self.unmet],
        }


@dataclass(frozen=True, slots=True)
class RuleExplained:
    id: str
    title: str
    mandatory: bool
    checked: bool
    verdict: Verdict
    mode: str
    exemption: str
    grants: tuple[str, ...]
    reads: tuple[Fact, ...]
    reasons: tuple[Reason, ...]
    unmet: tuple[Unmet, ...]
    held: tuple[Held, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "rule": self.id,
            "title": self.title,
            "mandatory": self.mandatory,
            "checked": self.checked,
            "verdict": self.verdict,
            "mode": self.mode,
            "exemption": self.exemption or None,
            "grants": list(self.grants),
            "reads": [fact.as_json() for fact in self.reads],
            "reasons": [reason.as_json() for reason in self.reasons],
            "unmet": [unmet.as_json() for unmet in self.unmet],
            "did_not_apply": [held.as_json() for held in self.held],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """`others`: reasons that no rule gave (the input's type, a missing grant, a rule that could not be checked, the engine)."""

    decision: Decision
    rules: tuple[RuleExplained, ...]
    others: tuple[Reason, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "domain": self.decision.domain,
            "allow": self.decision.allow,
            "policy_revision": self.decision.policy_revision,
            "config_revision": self.decision.config_revision,
            "input_digest": self.decision.input_digest,
            "engine": self.decision.engine,
            "grants": list(self.decision.grants),
            "rules": [rule.as_json() for rule in self.rules],
            "others": [reason.as_json() for reason in self.others],
            "notes": list(self.notes),
        }


def explain(engine: Engine, domain: Domain, input: Mapping[str, Any]) -> Explanation:
    """Why `engine` decides over `input` as it does. BadInput for an unknown domain, as `Engine.decide`."""
    return _Explainer(engine, domain, input).explanation()


@dataclass
class _Said:
    """What the rules said by themselves."""

    denials: list[Mapping[str, Any]] = field(default_factory=list)
    granted: list[str] = field(default_factory=list)
    modes: Mapping[str, str] = field(default_factory=dict)
    exemptions: Mapping[str, str] = field(default_factory=dict)
    reached: frozenset[tuple[str, int, int]] = frozenset()
    problem: str = ""


class _Explainer:
    def __init__(self, engine: Engine, domain: Domain, input: Mapping[str, Any]) -> None:
        self.engine = engine.apart()
        self.domain = domain
        self.input = input
        self.decision = self.engine.decide(domain, input)
        own = {violation.rule for violation in self.decision.violations}
        self.seen = "input/schema" not in own
        self.asked = self.seen and not any(rule.startswith("engine/") for rule in own)
        self.reader = RuleReader(engine.bundle.modules)
        self.rules = [rule for rule in engine.catalogue.rules() if rule.domain == domain]
        self.branches = {rule.id: self.reader.branches(_package(rule.id), "deny") for rule in self.rules}
        self.said = self._ask() if self.seen else _Said()
        self.search = Search(self.engine, domain, input, self.decision)

    def explanation(self) -> Explanation:
        rules = tuple(self._rule(rule) for rule in self.rules)
        known = {rule.id for rule in self.rules}
        others = tuple(self._other(violation, rules) for violation in self.decision.violations if violation.rule not in known)
        notes = []
        if self.said.problem:
            notes.append(f"What each rule said by itself is not known: {self.said.problem}")
        if self.search.exhausted:
            notes.append("The search for changes ended at its limit, so there may be others.")
        return Explanation(self.decision, rules, others, tuple(notes))

    # --- what the rules said ----------------------------------------------------------------------------------------

    def _ask(self) -> _Said:
        modules = dict(self.engine.bundle.modules)
        for rule in self.rules:
            modules[f"explained/{rule.id}.rego"] = _steps(self.reader, _package(rule.id), self.branches[rule.id])
        modules["explained/answer.rego"] = _answer(
            self.domain, [rule.id for rule in self.rules if self.branches[rule.id]], self.rules
        )
        try:
            evaluator = Embedded(modules)
        except ConfigError as error:
            return _Said(problem=error.message)
        try:
            answer = evaluator.ask("data.portcullis.explained.answer", canonical(dict(self.input)))
            return _Said(
                denials=answer["denials"],
                granted=answer["granted"],
                modes=answer["modes"],
                exemptions=answer["exemptions"],
                reached=frozenset((rule, branch, step) for rule, branch, step in answer["reached"]),
            )
        except EngineFailure as failure:
            return _Said(problem=failure.message)
        except (TypeError, KeyError, ValueError) as error:
            return _Said(problem=f"the answer is not what was asked for ({type(error).__name__})")
        finally:
            evaluator.close()

    # --- a rule -----------------------------------------------------------------------------------------------------

    def _rule(self, rule: Rule) -> RuleExplained:
        package = _package(rule.id)
        reads = Reads()
        for name in ("checked", "deny", "grant"):
            reads.add(self.reader.reads(package, name))
        checked = rule.id in self.decision.evaluated
        verdict = self._verdict(rule.id, checked)
        return RuleExplained(
            id=rule.id,
            title=rule.title,
            mandatory=rule.mandatory,
            checked=checked,
            verdict=verdict,
            mode=self.said.modes.get(rule.id, "enforce"),
            exemption=self.said.exemptions.get(rule.id, ""),
            grants=self._grants(rule.id),
            reads=facts(self.input, reads.paths, values=self.seen),
            reasons=tuple(self._reason(violation, package) for violation in self._against(rule.id)),
            unmet=() if checked or not self.asked else self._unmet(package),
            held=tuple(self._held(rule)) if verdict in {"silent", "granted"} else (),
        )

    def _verdict(self, rule_id: str, checked: bool) -> Verdict:
        if not self.asked:
            return "not asked"
        modes = {violation.mode for violation in self._against(rule_id)}
        if "exempted" in modes:
            return "exempted"
        if modes:
            return _MODES[modes.pop()]
        if any(denial["rule"] == rule_id for denial in self.said.denials):
            return "off"
        if not checked:
            return "not checked"
        return "granted" if self._grants(rule_id) else "silent"

    def _against(self, rule_id: str) -> list[Violation]:
        return [one for one in (*self.decision.violations, *self.decision.warnings) if one.rule == rule_id]

    def _grants(self, rule_id: str) -> tuple[str, ...]:
        return tuple(grant for grant in self.decision.grants if grant.startswith(f"{rule_id}:"))

    def _reason(self, violation: Violation, package: Package) -> Reason:
        """Found: what the definitions that gave this reason read. Changes are sought for what denies."""
        given = violation.args.get("reason")
        branches = [branch for i, branch in enumerate(self.branches[violation.rule]) if self._whole(violation.rule, i, branch)]
        fitting = [branch for branch in branches if branch.reason == given] or [
            branch for branch in branches if branch.reason is None
        ]
        reads = Reads()
        for branch in fitting or branches or self.branches[violation.rule]:
            reads.add(branch.reads)
        changes = self.search.changes(violation, self._all(package)) if violation.mode == "enforce" else ()
        return Reason(violation, facts(self.input, reads.paths), changes)

    def _all(self, package: Package) -> Reads:
        return self.reader.reads(package, "deny")

    def _whole(self, rule_id: str, index: int, branch: Branch) -> bool:
        return not branch.statements or (rule_id, index, len(branch.statements) - 1) in self.said.reached

    def _held(self, rule: Rule) -> list[Held]:
        """For each definition of `deny`, the first statement that does not hold."""
        if self.said.problem:
            return []
        found = []
        own = {branch.reason for branch in self.branches[rule.id]}
        others = tuple(text for reason, text in rule.messages.items() if reason not in own) or (rule.message,)
        for index, branch in enumerate(self.branches[rule.id]):
            messages = others if branch.reason is None else (rule.messages.get(branch.reason, rule.message),)
            for step, statement in enumerate(branch.statements):
                if (rule.id, index, step) not in self.said.reached:
                    found.append(Held(branch.reason, messages, branch.lines[step], " ".join(statement.split())))
                    break
        return found

    def _unmet(self, package: Package) -> tuple[Unmet, ...]:
        """What `checked` reads and does not find, or finds of another type than it asks for."""
        reads = self.reader.reads(package, "checked")
        found: dict[str, Unmet] = {}
        for pattern in reads.paths:
            wanted = reads.wanted.get(pattern, "")
            for fact in facts(self.input, [pattern]):
                if not fact.present or (wanted and len(fact.at) == len(pattern) and fact.kind != wanted):
                    path = fact.path
                    found[path] = Unmet(path, fact.kind, wanted if len(fact.at) == len(pattern) else "")
        return tuple(found[path] for path in sorted(found))

    def _other(self, violation: Violation, rules: Sequence[RuleExplained]) -> Reason:
        if violation.rule == "policy/grant":
            reads = Reads()
            for rule in self.rules:
                if rule.mandatory:
                    reads.add(self.reader.reads(_package(rule.id), "grant"))
            return Reason(violation, facts(self.input, reads.paths), self.search.changes(violation, reads))
        if violation.rule == "policy/mandatory":
            return self._mandatory(violation, rules)
        if violation.rule == "input/schema":
            return Reason(violation, self._at(violation.path))
        return Reason(violation)

    def _mandatory(self, violation: Violation, rules: Sequence[RuleExplained]) -> Reason:
        named = violation.args.get("rule")
        rule = next((rule for rule in rules if rule.id == named), None)
        if rule is None:
            return Reason(violation, note="These policies have no rule of this name.")
        if named not in self.input.get("mandatory", ()):
            return Reason(violation, note="The input does not name it under `mandatory`; whoever asks must.")
        if not rule.unmet:
            return Reason(violation, note="All that it reads is there; its own condition `checked` does not hold over it.")
        return Reason(violation, unmet=rule.unmet)

    def _at(self, path: str) -> tuple[Fact, ...]:
        """What stands at the field that does not fit, by its kind only."""
        at = tuple(
            int(part.rstrip("]")) if part.endswith("]") else part
            for part in path.replace("[", ".[").replace("[", "").split(".")
        )
        value, present = get(self.input, at)
        kind = kind_of(value) if present else "absent"
        return (Fact(show_path(at), kind, None, kind, at),) if path else ()


def _package(rule_id: str) -> Package:
    domain, name = rule_id.split("/")
    return ("portcullis", "rules", domain, name)


def _steps(reader: RuleReader, package: Package, branches: Sequence[Branch]) -> str:
    """A module beside the rule that says how far each of its definitions comes: [definition, statement] for each that holds."""
    lines = [f"package {dotted(package)}", "", *reader.imports(package), ""]
    for index, branch in enumerate(branches):
        for step in range(len(branch.statements)):
            body = "\n\t".join(branch.statements[: step + 1])
            lines.append(f"{REACHED} contains [{index}, {step}] if {{\n\t{body}\n}}\n")
    return "\n".join(lines)


def _answer(domain: Domain, with_steps: Sequence[str], rules: Sequence[Rule]) -> str:
    """The module that collects what is asked of the rules."""
    decided = f"data.portcullis.{domain}"
    lines = ["package portcullis.explained", ""]
    lines += ["answer := {"]
    lines += [f'\t"{name}": [each | some each in {decided}.{name}],' for name in ("denials", "granted")]
    lines += [f'\t"{name}": {name},' for name in ("modes", "exemptions")] + [
        '\t"reached": [each | some each in reached],',
        "}",
        "",
    ]
    for rule in rules:
        lines.append(f'modes["{rule.id}"] := {decided}.mode("{rule.id}")\n')
        lines.append(f'exemptions["{rule.id}"] := data.portcullis.lib.exemptions.id("{rule.id}")\n')
    for rule_id in with_steps:
        reference = dotted(("data", *_package(rule_id), REACHED))
        lines.append(f'reached contains ["{rule_id}", step[0], step[1]] if some step in {reference}\n')
    return "\n".join(lines)
