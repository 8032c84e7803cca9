from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput, Conflict, EvidenceUnavailable, Forbidden, NotFound, Unavailable
from core.ports import ApproverDirectory
from core.principal import Principal
from identity.ed25519 import key_id_of, keygen, read_public_key
from tests.unit.identity.conftest import ADMIN, House

PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo
PEM = serialization.Encoding.PEM


def fresh() -> bytes:
    return Ed25519PrivateKey.generate().public_key().public_bytes_raw()


async def test_an_administrator_registers_a_person_with_two_keys(house: House) -> None:
    directory: ApproverDirectory = house.people
    one, two = fresh(), fresh()
    ids = [await house.people.register_approver("alice", key, by=ADMIN) for key in (one, two)]
    assert ids == [key_id_of(one), key_id_of(two)]
    for key_id, raw in zip(ids, (one, two), strict=True):
        found = await directory.approver("acme", key_id)
        assert found == (
            Principal(id="person:alice", kind="user", tenant="acme", roles=frozenset({"approver"}), key_id=key_id),
            raw,
            False,
        )
    (person,) = await house.people.list("acme")
    assert (person.person, person.principal, person.approves) == ("alice", "person:alice", True)
    assert {key.key_id for key in person.keys} == set(ids)


async def test_nobody_is_found_by_an_unknown_key_or_in_another_tenant(house: House) -> None:
    key_id = await house.people.register_approver("alice", fresh(), by=ADMIN)
    assert await house.people.approver("acme", "ed25519:" + "0" * 32) is None
    assert await house.people.approver("other", key_id) is None
    assert await house.people.list("other") == []


async def test_one_key_is_one_persons_for_ever(house: House) -> None:
    """lineage-evidence case 26: two approvals by one human."""
    key = fresh()
    key_id = await house.people.register_approver("alice", key, by=ADMIN)
    with pytest.raises(Conflict, match="another person"):
        await house.people.register_approver("bob", key, by=ADMIN)
    await house.people.revoke_key(key_id, by=ADMIN)
    for person in ("alice", "bob"):
        with pytest.raises(Conflict):
            await house.people.register_approver(person, key, by=ADMIN)
    assert [person.person for person in await house.people.list("acme")] == ["alice"]


async def test_of_two_registrations_of_one_key_at_once_one_wins(house: House) -> None:
    key = fresh()
    results = await asyncio.gather(
        *(house.people.register_approver(name, key, by=ADMIN) for name in ("alice", "bob", "carol")), return_exceptions=True
    )
    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 2
    assert len(await house.people.list("acme")) == 1


async def test_nobody_registers_themselves(house: House) -> None:
    with pytest.raises(Forbidden, match="themselves"):
        await house.people.register_approver("root", fresh(), by=ADMIN)


@pytest.mark.parametrize("role", ["operator", "approver", "auditor", "service"])
async def test_only_an_administrator_registers_and_revokes(house: House, role: str) -> None:
    by = Principal(id="person:eve", kind="user", tenant="acme", roles=frozenset({role}))
    key_id = await house.people.register_approver("alice", fresh(), by=ADMIN)
    with pytest.raises(Forbidden):
        await house.people.register_approver("bob", fresh(), by=by)
    with pytest.raises(Forbidden):
        await house.people.revoke_key(key_id, by=by)
    with pytest.raises(Forbidden):
        await house.people.revoke_person("alice", by=by)


async def test_a_revoked_key_is_found_as_revoked(house: House) -> None:
    one, two = [await house.people.register_approver("alice", fresh(), by=ADMIN) for _ in range(2)]
    await house.people.revoke_key(one, by=ADMIN)
    revoked, kept = await house.people.approver("acme", one), await house.people.approver("acme", two)
    assert revoked is not None
    assert revoked[2]
    assert kept is not None
    assert not kept[2]
    with pytest.raises(Conflict):
        await house.people.revoke_key(one, by=ADMIN)


async def test_a_revoked_person_has_no_key_and_no_role(house: House) -> None:
    ids = [await house.people.register_approver("alice", fresh(), by=ADMIN) for _ in range(2)]
    await house.people.revoke_person("alice", by=ADMIN)
    for key_id in ids:
        found = await house.people.approver("acme", key_id)
        assert found is not None
        assert found[2]
        assert found[0].roles == frozenset()
    with pytest.raises(NotFound):
        await house.people.revoke_person("alice", by=ADMIN)
    back = await house.people.register_approver("alice", fresh(), by=ADMIN)
    found = await house.people.approver("acme", back)
    assert found is not None
    assert not found[2]
    old = await house.people.approver("acme", ids[0])
    assert old is not None
    assert old[2]


async def test_an_approver_without_the_role_does_not_approve(house: House) -> None:
    key_id = await house.people.register_approver("alice", fresh(), by=ADMIN)
    await house.roles.revoke("person:alice", "approver", by=ADMIN)
    found = await house.people.approver("acme", key_id)
    assert found is not None
    assert "approver" not in found[0].roles
    assert not (await house.people.list("acme"))[0].approves


async def test_unknown_people_and_keys_are_not_found(house: House) -> None:
    other = Principal(id="person:eve", kind="user", tenant="other", roles=frozenset({"admin"}))
    key_id = await house.people.register_approver("alice", fresh(), by=ADMIN)
    for wrong in ("ed25519:" + "0" * 32, "x"):
        with pytest.raises(NotFound):
            await house.people.revoke_key(wrong, by=ADMIN)
    with pytest.raises(NotFound):
        await house.people.revoke_key(key_id, by=other)
    with pytest.raises(NotFound):
        await house.people.revoke_person("alice", by=other)


async def test_changes_are_recorded_first_and_with_references_only(house: House) -> None:
    key_id = await house.people.register_approver("alice", fresh(), by=ADMIN)
    await house.people.revoke_key(key_id, by=ADMIN)
    await house.people.revoke_person("alice", by=ADMIN)
    assert house.actions() == ["approver.register", "approver.revoke_key", "approver.revoke"]
    assert "alice" not in repr(house.recorder.entries)
    house.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await house.people.register_approver("bob", fresh(), by=ADMIN)
    assert [person.person for person in await house.people.list("acme")] == ["alice"]


async def test_without_a_record_nothing_is_revoked(house: House) -> None:
    key_id = await house.people.register_approver("alice", fresh(), by=ADMIN)
    house.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await house.people.revoke_key(key_id, by=ADMIN)
    with pytest.raises(EvidenceUnavailable):
        await house.people.revoke_person("alice", by=ADMIN)
    found = await house.people.approver("acme", key_id)
    assert found is not None
    assert not found[2]
    assert found[0].roles == {"approver"}


BAD_PEOPLE = ["", "Alice", "alice\n", "al ice", "-alice", "älice", "a" * 129, "person:alice/../bob"]


@pytest.mark.parametrize("name", BAD_PEOPLE)
async def test_a_bad_name_is_nobody(house: House, name: str) -> None:
    with pytest.raises(BadInput):
        await house.people.register_approver(name, fresh(), by=ADMIN)
    assert house.recorder.entries == []


def _private_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


P = 2**255 - 19
SMALL_ORDER = {
    "the neutral element": 1,
    "order two": P - 1,
    "order four": 0,
    "order four, other sign": 1 << 255,
    "order eight": int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    "order eight, other sign": int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), "little"
    ),
    "order eight, other y": int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
    "order eight, other both": int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"), "little"
    ),
    "not canonical": P,
    "not canonical neutral element": P + 1,
    "not canonical, of large order": P + 3,
    "not on the curve": 2,
}
BAD_KEYS: dict[str, Any] = {
    **{name: value.to_bytes(32, "little") for name, value in SMALL_ORDER.items()},
    "empty": b"",
    "too short": bytes(31),
    "too long": bytes(33),
    "text that is no PEM": "hello",
    "a private key": _private_pem(),
    "another curve": ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(PEM, PUBLIC),
    "another use": x25519.X25519PrivateKey.generate().public_key().public_bytes(PEM, PUBLIC),
    "a huge PEM": "-----BEGIN PUBLIC KEY-----\n" + "A" * 10_000,
    "a lone surrogate": "\ud800",
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_bad_public_key_is_refused(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_public_key(BAD_KEYS[name])
    assert "AAAA" not in str(caught.value)


def test_a_private_key_given_by_mistake_is_not_repeated() -> None:
    secret = _private_pem()
    with pytest.raises(BadInput, match="private key") as caught:
        read_public_key(secret)
    assert secret.splitlines()[1].decode() not in str(caught.value)


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_is_sound(seed: bytes) -> None:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    raw = public.public_bytes_raw()
    pem = public.public_bytes(PEM, PUBLIC)
    assert read_public_key(raw) == read_public_key(pem) == read_public_key(pem.decode()) == raw


def test_keygen_writes_a_pair_that_only_the_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "alice"
    key_id = keygen(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    private = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    raw = read_public_key((tmp_path / "alice.pub").read_bytes())
    assert raw == private.public_key().public_bytes_raw()
    assert key_id == key_id_of(raw)
    assert key_id.startswith("ed25519:")
    assert len(key_id) == 40


@pytest.mark.parametrize("taken", ["alice", "alice.pub"])
def test_keygen_never_overwrites(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(Conflict):
        keygen(tmp_path / "alice")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {taken: "precious"}


def test_keygen_into_nowhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        keygen(tmp_path / "nowhere" / "alice")
