"""The queries that controls name in their `test`: from what was observed to a status, a sentence, counts and records.

A status is one of four words. Nothing here ever says that anybody is "compliant".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.decision import MANDATORY
from evidence.observe import Mark, Observed, Use

Status = Literal["evidenced", "not evidenced", "organisational", "not applicable"]
SIX_MONTHS_DAYS = 183
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a query found; `seqs` are the records behind it, `findings` what somebody should look at."""

    status: Status
    sentence: str
    counts: Mapping[str, int] = field(default_factory=dict)
    seqs: tuple[int, ...] = ()
    findings: tuple[str, ...] = ()


MAX_STANDING = 50
"""How many workloads a finding lists by name; the count is always whole."""
MAX_SHOWN = 10
"""How many records a finding names by their number, of each kind."""

Query = Callable[[Observed], Outcome]


def _seqs(items: Iterable[object]) -> tuple[int, ...]:
    return tuple(int(getattr(item, "seq", -1)) for item in items)


def organisational(_seen: Observed) -> Outcome:
    return Outcome("organisational", "This is people's work; no record of ours can show it.")


def automatic_events(seen: Observed) -> Outcome:
    """Article 12(1): every decision is a leaf, leaves have no gap (the log was recomputed for this report), every allowed call
    has its outcome."""
    admissions, calls = seen.decided("admission"), seen.decided("inference.intent")
    outcomes = seen.of("inference.outcome")
    counts = {
        "admissions": len(admissions),
        "calls": len(calls),
        "outcomes": len(outcomes),
        "without outcome": len(seen.intents),
    }
    if not admissions and not calls:
        return Outcome("not evidenced", "No automatic event was recorded in this window.", counts)
    findings = tuple(
        f"call seq {seq} has no outcome: it was still running, or the gateway was stopped" for seq in seen.intents.values()
    )
    sentence = (
        "Every decision is a leaf of the log; sequence numbers have no gap, and the tree was recomputed up to its signed root."
    )
    return Outcome("evidenced", sentence, counts, _seqs([*admissions, *calls]), findings)


def changes_recorded(seen: Observed) -> Outcome:
    """Article 12(2)(a): a change of policies, configuration, models or deployments has a leaf."""
    kinds = ("policy_change", "config_change", "exemption", "freeze", "deployment", "lineage", "revocation", "approval", "card")
    marks = seen.of(*kinds)
    revisions = len(seen.policy_revisions)
    changes = len(seen.of("policy_change"))
    counts = {"changes recorded": len(marks), "policy revisions in use": revisions, "policy changes recorded": changes}
    if revisions > 1 and changes < revisions - 1:
        finding = f"{revisions} policy revisions decided in this window, but {changes} policy changes were recorded"
        return Outcome("not evidenced", "Policies changed without a record of it.", counts, _seqs(marks), (finding,))
    if not marks and not seen.uses:
        return Outcome("not evidenced", "Nothing was decided or changed in this window.", counts)
    sentence = "Changes left records, and each decision names the revisions of policies and configuration that it was made by."
    return Outcome("evidenced", sentence, counts, _seqs(marks))


def monitoring_fields(seen: Observed) -> Outcome:
    """Article 12(2)(b) and (c): version, time, actor, outcome."""
    calls = seen.decided("inference.intent")
    lacking = [use for use in calls if not use.complete]
    counts = {"calls": len(calls), "with all fields": len(calls) - len(lacking)}
    if not calls:
        return Outcome("not evidenced", "No call was recorded in this window.", counts)
    if lacking:
        findings = tuple(f"call seq {use.seq} lacks its model version, actor or policy revision" for use in lacking[:50])
        return Outcome("not evidenced", "Some calls were recorded without all fields.", counts, _seqs(lacking), findings)
    return Outcome(
        "evidenced", "Each call names model version, time, caller (as a reference), policies and verdict.", counts, _seqs(calls)
    )


def data_governance(seen: Observed) -> Outcome:
    """Article 10(2): datasets are registered, and withdrawn consent stops their use."""
    datasets = seen.of("dataset")
    open_ones = [withdrawal for withdrawal in seen.withdrawals if withdrawal.until_seq is None]
    denied = [use for withdrawal in seen.withdrawals for use in withdrawal.denied]
    allowed = [use for withdrawal in seen.withdrawals for use in withdrawal.allowed]
    counts = {
        "datasets registered": len(datasets),
        "consents withdrawn": len(seen.withdrawals),
        "uses denied after it": len(denied),
        "admissions denied after it": sum(use.kind == "admission" for use in denied),
        "calls denied after it": sum(use.kind == "inference.intent" for use in denied),
        "uses allowed after it": len(allowed),
    }
    findings = []
    for withdrawal in open_ones:
        models = ", ".join(sorted(withdrawal.models)) or "none seen in use since"
        findings.append(
            f"open: consent for dataset {withdrawal.dataset} is withdrawn since seq {withdrawal.seq}; models trained on it: {models}; "
            f"denied since: {_by_kind(withdrawal.denied)}; allowed since: {_by_kind(withdrawal.allowed)}"
        )
        findings += [
            f"open: {subject} was admitted with a model trained on {withdrawal.dataset} (seq {seq}) and has not been deleted"
            for subject, seq in withdrawal.standing[:MAX_STANDING]
        ]
    standing = [seq for withdrawal in open_ones for _, seq in withdrawal.standing]
    counts["workloads admitted before it and not deleted"] = len(standing)
    seqs = (*_seqs(datasets), *(withdrawal.seq for withdrawal in seen.withdrawals), *_seqs(denied), *_seqs(allowed), *standing)
    if allowed:
        return Outcome(
            "not evidenced", "A model was used after consent for its data was withdrawn.", counts, seqs, tuple(findings)
        )
    if not datasets and not seen.withdrawals:
        return Outcome("not evidenced", "No dataset was recorded in this window.", counts)
    sentence = f"{len(datasets)} dataset records were made in this window; "
    sentence += (
        "models trained on data without consent were denied." if denied else "no use of data without consent was let through."
    )
    return Outcome("evidenced", sentence, counts, seqs, tuple(findings))


def _by_kind(uses: list[Use]) -> str:
    """`2 admissions (seq 7, 9), 1 call (seq 8)`, or `none`; of many the last ones."""
    words = {"admission": "admission", "inference.intent": "call", "key_release": "key release"}
    parts = []
    for kind in dict.fromkeys(use.kind for use in uses):
        seqs = [use.seq for use in uses if use.kind == kind]
        shown = ("… " if len(seqs) > MAX_SHOWN else "") + ", ".join(map(str, seqs[-MAX_SHOWN:]))
        parts.append(f"{len(seqs)} {words.get(kind, kind)}{'s' if len(seqs) > 1 else ''} (seq {shown})")
    return ", ".join(parts) or "none"


def _checked_by(uses: list[Use], rule: str) -> list[Use]:
    return [use for use in uses if use.allow and rule not in use.evaluated]


def documentation(seen: Observed) -> Outcome:
    """Article 11: cards are recorded, and what was let through had its card checked."""
    cards = seen.of("card")
    admissions, calls = seen.decided("admission"), seen.decided("inference.intent")
    unchecked = _checked_by(admissions, "admission/approved-model") + _checked_by(calls, "gateway/model-access")
    counts = {"cards recorded": len(cards), "uses": len(admissions) + len(calls), "let through unchecked": len(unchecked)}
    if unchecked:
        return Outcome("not evidenced", "Something was let through whose card was not checked.", counts, _seqs(unchecked))
    if not cards:
        return Outcome("not evidenced", "No card was recorded in this window.", counts)
    return Outcome(
        "evidenced", "Cards are recorded by digest, and nothing was let through without its card checked.", counts, _seqs(cards)
    )


def evaluations(seen: Observed) -> Outcome:
    marks = seen.of("evaluation")
    if not marks:
        return Outcome("not evidenced", "No evaluation was recorded in this window.", {"evaluations": 0})
    return Outcome("evidenced", "Evaluations are recorded for the versions named.", {"evaluations": len(marks)}, _seqs(marks))


def _stops(seen: Observed, *more: str) -> list[Mark]:
    """Freezes and revocations. Lifting a freeze is on record under its kind, and stops nothing."""
    return [mark for mark in seen.of("freeze", "revocation", *more) if mark.action != "unfreeze"]


def oversight(seen: Observed) -> Outcome:
    """Article 14: people approve, and stopping has been done or tried in this window."""
    approvals = [use for use in seen.decided("approval") if use.allow]
    stops = _stops(seen, "drill", "override")
    withdrawn = [withdrawal.seq for withdrawal in seen.withdrawals if withdrawal.denied and seen.inside(withdrawal.time)]
    people = {mark.actor for mark in seen.of("approval") if mark.seq in set(_seqs(approvals))}
    counts = {"approvals": len(approvals), "approvers": len(people), "stops, drills and overrides": len(stops) + len(withdrawn)}
    seqs = (*_seqs(approvals), *_seqs(stops), *withdrawn)
    if len(people) >= 2 and (stops or withdrawn):
        return Outcome("evidenced", "More than one person approved, and stopping a model was done or tried.", counts, seqs)
    missing = "no two people approved" if len(people) < 2 else "stopping a model was neither done nor tried"
    return Outcome("not evidenced", f"In this window {missing}.", counts, seqs)


def protection(seen: Observed) -> Outcome:
    """Article 15: what was admitted had every mandatory check; keys were released by decision."""
    admissions, releases = seen.decided("admission"), seen.decided("key_release")
    needed = set(MANDATORY["admission"])
    unchecked = [use for use in admissions if use.allow and not needed <= set(use.evaluated)]
    denied = [use for use in (*admissions, *releases) if not use.allow]
    counts = {
        "admissions": len(admissions), "key releases asked for": len(releases), "denied": len(denied), "admitted unchecked": len(unchecked),
    }  # fmt: skip
    if unchecked:
        return Outcome("not evidenced", "Something was admitted without all mandatory checks.", counts, _seqs(unchecked))
    if not admissions:
        return Outcome("not evidenced", "No admission was recorded in this window.", counts)
    sentence = "Every admitted workload had images, weights and model version checked; what failed a check was denied."
    return Outcome("evidenced", sentence, counts, _seqs([*admissions, *releases]))


def retention(seen: Observed) -> Outcome:
    """Articles 19 and 26(6): the oldest record is six months old, or the first one ever."""
    if seen.oldest is None:
        return Outcome("not evidenced", "There is no record.")
    age = max(0, seen.until - seen.oldest.time) // DAY
    deletions = seen.of("retention", "erasure")
    counts = {"age of the oldest record in days": age, "retention and erasure records": len(deletions)}
    since = "the first this log ever took" if age < SIX_MONTHS_DAYS else f"older than {SIX_MONTHS_DAYS} days"
    sentence = (
        f"Nothing was removed from the log: its oldest record is {since}, and the tree was recomputed from the first leaf on."
    )
    return Outcome("evidenced", sentence, counts, (seen.oldest.seq, *_seqs(deletions)))


def suspension(seen: Observed) -> Outcome:
    """Article 26(5): each alert is followed by a stop."""
    alerts, stops = seen.of("alert"), _stops(seen)
    counts = {
        "alerts": len(alerts),
        "suspensions": len(stops),
        "denials under this control": seen.controls["eu-ai-act/art-26-5"],
    }
    if not alerts:
        return Outcome("not applicable", "No alert was raised in this window.", counts, _seqs(stops))
    unanswered = [
        alert for alert in alerts if not any(stop.seq > alert.seq and stop.subject == alert.subject for stop in stops)
    ]
    if unanswered:
        findings = tuple(f"alert seq {alert.seq} was not followed by a freeze or revocation" for alert in unanswered)
        return Outcome(
            "not evidenced", "An alert was not followed by a suspension.", counts, _seqs([*alerts, *stops]), findings
        )
    return Outcome("evidenced", "Each alert was followed by a suspension.", counts, _seqs([*alerts, *stops]))


def incidents(seen: Observed) -> Outcome:
    marks = seen.of("incident")
    if not marks:
        return Outcome("not applicable", "No incident was recorded in this window.", {"incidents": 0})
    return Outcome(
        "organisational", "Incidents were recorded; reporting them is people's work.", {"incidents": len(marks)}, _seqs(marks)
    )


QUERIES: Mapping[str, Query] = {
    query.__name__: query
    for query in (
        organisational, automatic_events, changes_recorded, monitoring_fields, data_governance, documentation, evaluations,
        oversight, protection, retention, suspension, incidents,
    )
}  # fmt: skip
