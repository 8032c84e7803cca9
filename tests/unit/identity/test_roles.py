from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput, Conflict, EvidenceUnavailable, Forbidden, NotFound
from core.principal import ROLES, Principal
from identity.roles import require
from tests.unit.identity.conftest import ADMIN, House


@given(st.frozensets(st.sampled_from(ROLES)), st.lists(st.sampled_from(ROLES)))
def test_require_passes_exactly_when_one_role_is_held(held: frozenset[str], needed: list[str]) -> None:
    principal = Principal(id="key:K1", kind="caller", tenant="acme", roles=held)
    try:
        require(principal, *needed)
        passed = True
    except Forbidden:
        passed = False
    assert passed == any(role in held for role in needed)


async def test_a_role_is_held_from_grant_to_revocation_in_its_tenant(house: House) -> None:
    await house.roles.grant("key:K1", "auditor", by=ADMIN)
    assert await house.roles.of("acme", "key:K1") == {"auditor"}
    assert await house.roles.of("other", "key:K1") == frozenset()
    assert [(held.principal, held.role) for held in await house.roles.list("acme")] == [("key:K1", "auditor")]
    with pytest.raises(Conflict):
        await house.roles.grant("key:K1", "auditor", by=ADMIN)
    await house.roles.revoke("key:K1", "auditor", by=ADMIN)
    assert await house.roles.of("acme", "key:K1") == frozenset()
    with pytest.raises(NotFound):
        await house.roles.revoke("key:K1", "auditor", by=ADMIN)
    assert house.actions() == ["role.grant", "role.revoke"]
    assert "key:K1" not in repr(house.recorder.entries)


async def test_grants_at_once_leave_one(house: House) -> None:
    results = await asyncio.gather(
        *(house.roles.grant("key:K1", "auditor", by=ADMIN) for _ in range(4)), return_exceptions=True
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 3


async def test_nobody_grants_to_themselves(house: House) -> None:
    with pytest.raises(Forbidden, match="themselves"):
        await house.roles.grant(ADMIN.id, "approver", by=ADMIN)


@pytest.mark.parametrize("role", ["operator", "approver", "auditor", "service"])
async def test_only_an_administrator_grants_and_revokes(house: House, role: str) -> None:
    by = Principal(id="key:K9", kind="caller", tenant="acme", roles=frozenset({role}))
    with pytest.raises(Forbidden):
        await house.roles.grant("key:K1", "admin", by=by)
    await house.roles.grant("key:K1", "auditor", by=ADMIN)
    with pytest.raises(Forbidden):
        await house.roles.revoke("key:K1", "auditor", by=by)


async def test_without_a_record_no_role_changes(house: House) -> None:
    await house.roles.grant("key:K1", "auditor", by=ADMIN)
    house.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await house.roles.grant("key:K1", "admin", by=ADMIN)
    with pytest.raises(EvidenceUnavailable):
        await house.roles.revoke("key:K1", "auditor", by=ADMIN)
    assert await house.roles.of("acme", "key:K1") == {"auditor"}


BAD_GRANTS = {
    "an unknown role": ("key:K1", "root"),
    "no role": ("key:K1", ""),
    "nobody": ("", "admin"),
    "two lines": ("key:K1\nkey:K2", "admin"),
    "a person in capitals": ("person:Alice", "approver"),
    "too long": ("k" * 161, "admin"),
}


@pytest.mark.parametrize("name", BAD_GRANTS)
async def test_a_bad_grant_is_refused(house: House, name: str) -> None:
    principal, role = BAD_GRANTS[name]
    with pytest.raises(BadInput):
        await house.roles.grant(principal, role, by=ADMIN)
    assert house.recorder.entries == []
