"""Denials that the door makes by itself, because no engine could be asked: as decisions, so that they are recorded like any other."""

from __future__ import annotations

from core.decision import Decision, Violation
from core.errors import BadInput, Conflict, PortcullisError, TooLarge, Unavailable
from core.ids import uuid7

RULES: tuple[tuple[type[PortcullisError], str, str], ...] = (
    (TooLarge, "door/readable", "send a smaller or flatter object"),
    (BadInput, "door/readable", "correct the field and apply again"),
    (Conflict, "door/busy", "apply again"),
    (Unavailable, "door/available", "apply again; when it lasts, ask the platform team to look at portcullis"),
)
"""What an error is called in a record, and what the person who sees it can do."""


def refuse(error: Exception) -> Decision:
    """The denial that `error` ends in, without an input, for none was decided on.

    An error that is not of our tree shows its type only: its text may hold anything.
    """
    rule, advice = "door/error", "ask the platform team to look at portcullis' log"
    message, path = f"the request could not be decided ({type(error).__name__})", ""
    if isinstance(error, PortcullisError):
        message, path = error.message, error.where
        rule, advice = next(((name, todo) for kind, name, todo in RULES if isinstance(error, kind)), (rule, advice))
    violation = Violation(
        rule=rule,
        mode="enforce",
        path=path[:256],
        args={},
        message=f"{path}: {message}" if path else message,
        remediation=advice,
    )
    return Decision(
        domain="admission",
        allow=False,
        evaluated=(),
        grants=(),
        violations=(violation,),
        warnings=(),
        obligations={},
        decision_id=uuid7(),
        policy_revision="",
        config_revision="",
        engine="none",
        input_digest="",
    )


def place_of(error: Exception) -> str:
    """An error's type and where it was raised, for the log: its text may quote what was sent."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"


def status_of(error: Exception) -> int:
    """The HTTP status that stands in the answer's `status.code`."""
    return error.http_status if isinstance(error, PortcullisError) else 500


def message_of(decision: Decision) -> str:
    """What the person who applied the object reads: each rule, what it found, and what to do."""
    lines = []
    for violation in decision.violations:
        remedy = f" To do: {violation.remediation}" if violation.remediation else ""
        lines.append(f"{violation.rule}: {violation.message or violation.path or 'denied'}{remedy}")
    return f"denied by portcullis: {'; '.join(lines) or 'no rule allowed it'} (decision {decision.decision_id})"
