"""What every change of identities goes through: an `access` record with references in it, before the change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.errors import BadInput
from core.ports import Commitments, Recorder
from core.principal import Principal
from core.record import Entry

_PERSON = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}\Z")
_PRINCIPAL = re.compile(r"[!-~]{1,160}\Z")


def check_person(name: str) -> str:
    """`name` itself when it can name a person. Lower case only: Alice and alice must not be two people (BadInput)."""
    if not isinstance(name, str) or not _PERSON.match(name):
        raise BadInput("a person's name is 1 to 128 of a-z, 0-9 and . _ @ + -, in lower case, starting with a letter or digit")
    return name


def check_principal_id(principal: str) -> str:
    """`principal` itself when it can be a `Principal.id` of any kind; a `person:` id is checked like a person's name."""
    if not isinstance(principal, str) or not _PRINCIPAL.match(principal):
        raise BadInput("a principal is 1 to 160 visible ASCII characters, such as key:K… or person:NAME")
    if principal.startswith("person:"):
        check_person(principal.removeprefix("person:"))
    return principal


async def record_access(
    recorder: Recorder,
    commitments: Commitments,
    *,
    action: str,
    subject: str,
    by: Principal,
    details: Mapping[str, Any] | None = None,
) -> str:
    """Appends the record that `by` did `action` to the principal `subject`; returns the reference of `by`.

    Raises EvidenceUnavailable, and then nothing may be changed: no record, no action.
    """
    actor = await commitments.ref(by.tenant, by.id)
    await recorder.event(
        Entry(
            kind="access",
            actor=actor,
            tenant=by.tenant,
            subject=await commitments.ref(by.tenant, subject),
            details={"action": action, **(details or {})},
        )
    )
    return actor
