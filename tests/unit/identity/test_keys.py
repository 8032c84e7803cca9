from __future__ import annotations

import asyncio
import hashlib
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text

from core.errors import BadInput, ConfigError, Conflict, EvidenceUnavailable, Forbidden, NotFound, Unauthenticated, Unavailable
from core.principal import Principal
from identity.bearer import NO_CREDENTIALS
from identity.keys import _TOKEN, token_digest
from tests.unit.identity.conftest import ADMIN, PEPPER, House

OTHER_ADMIN = Principal(id="person:eve", kind="user", tenant="other", roles=frozenset({"admin"}))


async def refused(keys: Any, token: str) -> bool:
    try:
        await keys.authenticate(token)
    except Unauthenticated as error:
        return str(error) == NO_CREDENTIALS
    return False


async def test_a_key_says_who_presents_it(house: House) -> None:
    keys = house.keys()
    made = await keys.create(name="chat service", by=ADMIN, team="vision", roles=["service"])
    found = await keys.authenticate(made.token)
    assert found == Principal(
        id=f"key:{made.key_id}",
        kind="caller",
        tenant="acme",
        team="vision",
        roles=frozenset({"service"}),
        key_id=made.key_id,
    )
    assert made.key_id.startswith("K")
    prefix, secret = made.token.removeprefix("pcl_").split("_", 1)
    assert (len(prefix), len(secret)) == (12, 43)


async def test_the_secret_is_nowhere_but_in_the_answer(house: House) -> None:
    made = await house.keys().create(name="chat service", by=ADMIN)
    secret = made.token.split("_", 2)[2]
    async with house.database.session(reading=True) as session:
        rows = (await session.execute(text("SELECT * FROM identity_keys"))).all()
    stored = repr(rows) + repr(house.recorder.entries) + repr(made) + repr(await house.keys().list("acme"))
    assert secret not in stored
    assert hashlib.sha256(made.token.encode()).hexdigest() not in stored


async def test_a_stolen_table_is_worth_nothing_without_the_pepper(house: House) -> None:
    made = await house.keys().create(name="x", by=ADMIN)
    assert await refused(house.keys(pepper=bytes(32)), made.token)


TOKEN = f"pcl_{'ABCDEFGHIJKL'}_{'s' * 43}"


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(string.printable))
def test_a_changed_token_is_malformed_or_has_another_digest(position: int, character: str) -> None:
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    same = bool(_TOKEN.match(changed)) and token_digest(PEPPER, changed) == token_digest(PEPPER, TOKEN)
    assert same == (changed == TOKEN)


@given(st.binary(min_size=32, max_size=32))
def test_another_pepper_gives_another_digest(pepper: bytes) -> None:
    assert (token_digest(pepper, TOKEN) == token_digest(PEPPER, TOKEN)) == (pepper == PEPPER)


async def test_every_single_character_matters_in_the_table(house: House) -> None:
    keys = house.keys()
    made = await keys.create(name="x", by=ADMIN)
    for position in range(len(made.token)):
        for other in ("A", "b", "_"):
            changed = made.token[:position] + other + made.token[position + 1 :]
            assert changed == made.token or await refused(keys, changed), position
    for changed in (made.token[:-1], made.token + "A", made.token + "\n", " " + made.token, made.token.lower()):
        assert await refused(keys, changed)
    assert (await keys.authenticate(made.token)).key_id == made.key_id


async def test_a_cached_identity_belongs_to_the_whole_token(house: House) -> None:
    """CVE-2026-35030: the cache was keyed by a token's first characters."""
    keys = house.keys(cache_seconds=1)
    made = await keys.create(name="x", by=ADMIN)
    await keys.authenticate(made.token)
    assert await refused(keys, made.token[:-1] + ("A" if made.token[-1] != "A" else "B"))
    assert await refused(keys, made.token[:20])


async def test_the_second_look_within_a_second_costs_no_query(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("identity.keys.time.monotonic", lambda: now[0])
    keys = house.keys(cache_seconds=1)
    made = await keys.create(name="x", by=ADMIN, roles=["service"])
    statements: list[str] = []
    event.listen(
        house.database.engine.sync_engine,
        "before_cursor_execute",
        lambda *arguments: statements.append(arguments[2]) if "identity_" in arguments[2] else None,
    )
    await keys.authenticate(made.token)
    assert len(statements) == 1
    now[0] += 0.99
    await keys.authenticate(made.token)
    assert len(statements) == 1
    now[0] += 0.02
    await keys.authenticate(made.token)
    assert len(statements) == 2


async def test_another_process_revocation_counts_when_the_cache_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("identity.keys.time.monotonic", lambda: now[0])
    gateway, api = house.keys(cache_seconds=1), house.keys(cache_seconds=1)
    made = await api.create(name="x", by=ADMIN)
    await gateway.authenticate(made.token)
    await api.revoke(made.key_id, by=ADMIN)
    now[0] += 1.0
    assert await refused(gateway, made.token)


async def test_expiry_counts_at_once_even_in_the_cache(house: House) -> None:
    keys = house.keys(cache_seconds=1)
    made = await keys.create(name="x", by=ADMIN, expires_unix=house.clock.now + 5)
    await keys.authenticate(made.token)
    house.clock.now += 4
    await keys.authenticate(made.token)
    house.clock.now += 1
    assert await refused(keys, made.token)


async def test_a_cache_of_more_than_a_second_is_refused(house: House) -> None:
    with pytest.raises(ConfigError):
        house.keys(cache_seconds=5)


async def test_the_cache_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("identity.keys.CACHE_SIZE", 2)
    keys = house.keys(cache_seconds=1)
    for number in range(5):
        made = await keys.create(name=f"k{number}", by=ADMIN)
        await keys.authenticate(made.token)
        assert len(keys._cache) <= 2


async def test_unknown_wrong_expired_and_revoked_look_the_same(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = house.keys()
    wrong, expired, revoked = [await keys.create(name=n, by=ADMIN, expires_unix=house.clock.now + 5) for n in "wer"]
    await keys.revoke(revoked.key_id, by=ADMIN)
    house.clock.now += 5
    compared: list[int] = []
    import hmac

    real = hmac.compare_digest
    monkeypatch.setattr("identity.keys.hmac.compare_digest", lambda a, b: compared.append(1) or real(a, b))
    unknown = f"pcl_{'A' * 12}_{'x' * 43}"
    for token in (unknown, wrong.token[:-2] + "AA", expired.token, revoked.token):
        assert await refused(keys, token)
    assert len(compared) == 4


BAD_TOKENS = {
    "empty": "",
    "prefix only": "pcl_ABCDEFGHIJKL",
    "a foreign key": "sk-bf-0123456789",
    "not ASCII": "pcl_ABCDEFGHIJKL_" + "é" * 43,
    "a lone surrogate": "pcl_ABCDEFGHIJKL_\ud800",
    "SQL": "pcl_' OR 1=1 --_" + "x" * 43,
    "null bytes": "pcl_ABCDEFGHIJKL_" + "\0" * 43,
    "huge": "pcl_" + "A" * 1_000_000,
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_is_nobody(house: House, name: str) -> None:
    assert await refused(house.keys(), BAD_TOKENS[name])


async def test_a_database_that_is_gone_is_not_an_identity(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2026-59822: a failed look-up became an empty identity."""
    keys = house.keys()
    made = await keys.create(name="x", by=ADMIN)

    def gone(**_: Any) -> Any:
        raise Unavailable("gone")

    monkeypatch.setattr(house.database, "session", gone)
    with pytest.raises(Unavailable):
        await keys.authenticate(made.token)


async def test_rotation_keeps_the_principal_and_ends_the_old_token(house: House) -> None:
    keys = house.keys(cache_seconds=1)
    made = await keys.create(name="x", by=ADMIN, team="vision", roles=["service"])
    before = await keys.authenticate(made.token)
    fresh = await keys.rotate(made.key_id, by=ADMIN)
    assert await keys.authenticate(fresh.token) == before
    assert await refused(keys, made.token)


async def test_what_is_not_in_force_cannot_be_rotated(house: House) -> None:
    keys = house.keys()
    revoked = await keys.create(name="x", by=ADMIN)
    expired = await keys.create(name="y", by=ADMIN, expires_unix=house.clock.now + 1)
    await keys.revoke(revoked.key_id, by=ADMIN)
    house.clock.now += 1
    for made in (revoked, expired):
        with pytest.raises(Conflict):
            await keys.rotate(made.key_id, by=ADMIN)
    with pytest.raises(Conflict):
        await keys.revoke(revoked.key_id, by=ADMIN)


async def test_a_tenants_keys_are_not_anothers(house: House) -> None:
    keys = house.keys()
    made = await keys.create(name="x", by=ADMIN)
    for action in (keys.revoke, keys.rotate):
        with pytest.raises(NotFound):
            await action(made.key_id, by=OTHER_ADMIN)
    assert await keys.list("other") == []
    assert [key.key_id for key in await keys.list("acme")] == [made.key_id]
    theirs = await keys.create(name="x", by=OTHER_ADMIN)
    assert (await keys.authenticate(theirs.token)).tenant == "other"


@pytest.mark.parametrize("role", ["operator", "approver", "auditor", "service"])
async def test_only_an_administrator_changes_keys(house: House, role: str) -> None:
    by = Principal(id="key:K1", kind="caller", tenant="acme", roles=frozenset({role}))
    keys = house.keys()
    made = await keys.create(name="x", by=ADMIN)
    with pytest.raises(Forbidden):
        await keys.create(name="y", by=by, roles=["admin"])
    with pytest.raises(Forbidden):
        await keys.revoke(made.key_id, by=by)
    with pytest.raises(Forbidden):
        await keys.rotate(made.key_id, by=by)


async def test_without_a_record_no_key_is_made_ended_or_changed(house: House) -> None:
    keys = house.keys()
    made = await keys.create(name="x", by=ADMIN)
    house.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await keys.create(name="y", by=ADMIN)
    with pytest.raises(EvidenceUnavailable):
        await keys.revoke(made.key_id, by=ADMIN)
    with pytest.raises(EvidenceUnavailable):
        await keys.rotate(made.key_id, by=ADMIN)
    with pytest.raises(EvidenceUnavailable):
        await keys.ensure_admin("fresh")
    assert len(await keys.list("acme")) == 1
    assert await keys.list("fresh") == []
    await keys.authenticate(made.token)


async def test_changes_are_recorded_with_references_only(house: House) -> None:
    keys = house.keys()
    made = await keys.create(name="anns laptop", by=ADMIN, roles=["auditor"])
    await keys.rotate(made.key_id, by=ADMIN)
    await keys.revoke(made.key_id, by=ADMIN)
    assert house.actions() == ["key.create", "key.rotate", "key.revoke"]
    reference = await house.commitments.ref("acme", f"key:{made.key_id}")
    assert {entry.subject for entry in house.recorder.entries} == {reference}
    assert {entry.kind for entry in house.recorder.entries} == {"access"}
    assert "person:root" not in repr(house.recorder.entries)
    assert "laptop" not in repr(house.recorder.entries)


async def test_a_persons_key_acts_as_the_person(house: House) -> None:
    keys = house.keys()
    made = await keys.create(name="laptop", by=ADMIN, person="bob")
    await house.roles.grant("person:bob", "auditor", by=ADMIN)
    found = await keys.authenticate(made.token)
    assert (found.id, found.kind, found.roles, found.key_id) == ("person:bob", "user", frozenset({"auditor"}), made.key_id)


BAD_KEYS: dict[str, dict[str, Any]] = {
    "no name": {"name": " "},
    "a long name": {"name": "x" * 101},
    "a name on two lines": {"name": "a\nb"},
    "an unknown role": {"name": "x", "roles": ["root"]},
    "a bad team": {"name": "x", "team": "a/b"},
    "expired": {"name": "x", "expires_unix": 1},
    "a person with roles": {"name": "x", "person": "bob", "roles": ["admin"]},
    "a person in capitals": {"name": "x", "person": "Bob"},
}


@pytest.mark.parametrize("name", BAD_KEYS)
async def test_a_bad_key_is_not_made(house: House, name: str) -> None:
    with pytest.raises(BadInput):
        await house.keys().create(**BAD_KEYS[name], by=ADMIN)
    assert house.recorder.entries == []


async def test_the_admin_key_is_made_once(house: House) -> None:
    keys = house.keys()
    token = await keys.ensure_admin("acme")
    assert token is not None
    found = await keys.authenticate(token)
    assert (found.kind, found.tenant, found.roles) == ("operator", "acme", frozenset({"admin"}))
    assert await keys.ensure_admin("acme") is None
    assert await keys.ensure_admin("other") is not None


async def test_processes_that_start_together_make_one_admin_key(house: House) -> None:
    made = await asyncio.gather(*(house.keys().ensure_admin("acme") for _ in range(6)))
    assert sum(token is not None for token in made) == 1
    assert len(await house.keys().list("acme")) == 1


async def test_a_new_admin_key_follows_a_revoked_one_or_one_without_the_role(house: House) -> None:
    keys = house.keys()
    first = await keys.ensure_admin("acme")
    assert first is not None
    holder = await keys.authenticate(first)
    await keys.revoke(str(holder.key_id), by=holder)
    second = await keys.ensure_admin("acme")
    assert second is not None
    holder = await keys.authenticate(second)
    await house.roles.revoke(holder.id, "admin", by=holder)
    assert await keys.ensure_admin("acme") is not None


async def test_another_admin_key_is_enough(house: House) -> None:
    keys = house.keys()
    await keys.create(name="x", by=ADMIN, roles=["admin"])
    assert await keys.ensure_admin("acme") is None
