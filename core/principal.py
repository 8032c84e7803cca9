"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

PrincipalKind = Literal["caller", "service_account", "user", "operator"]
Role = Literal["admin", "operator", "approver", "auditor", "service"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Principal:
    """One authenticated party inside one tenant.

    `id` is stable and unique within the tenant (`key:K7Q…` for an API key's owner, `person:…`, the Kubernetes user name).
    It may name a person, so it never enters policy input, logs or evidence: `ports.Commitments` turns it into a reference.
    """

    id: str
    kind: PrincipalKind
    tenant: str
    team: str | None = None
    roles: frozenset[str] = frozenset()
    key_id: str | None = None
    namespace: str | None = None
