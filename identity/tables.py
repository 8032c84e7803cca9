"""Tables of the identity room: API keys, people and their public keys, roles. No secret is stored, only keyed hashes."""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base


class ApiKey(Base):
    """One API key. `prefix` finds it, `digest` (HMAC-SHA256 of the whole token under the pepper) proves it."""

    __tablename__ = "identity_keys"

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(128), index=True)
    prefix: Mapped[str] = mapped_column(String(12), unique=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    principal: Mapped[str] = mapped_column(String(160))
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(100))
    team: Mapped[str | None] = mapped_column(String(128))
    expires_unix: Mapped[int | None]
    revoked_unix: Mapped[int | None]
    created_unix: Mapped[int]
    first_admin_of: Mapped[str | None] = mapped_column(String(128), unique=True)
    """The tenant, on the one generated admin key that is in force: two processes that start together make only one."""


class Person(Base):
    """One principal per person: `person:NAME`."""

    __tablename__ = "identity_people"

    tenant: Mapped[str] = mapped_column(String(128), primary_key=True)
    person: Mapped[str] = mapped_column(String(128), primary_key=True)
    registered_by_ref: Mapped[str] = mapped_column(String(128))
    registered_unix: Mapped[int]


class PersonKey(Base):
    """A person's Ed25519 public key. The primary key makes it belong to one person of the tenant, for ever."""

    __tablename__ = "identity_person_keys"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "person"], ["identity_people.tenant", "identity_people.person"]),
        Index("ix_identity_person_keys_person", "tenant", "person"),
    )

    tenant: Mapped[str] = mapped_column(String(128), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    person: Mapped[str] = mapped_column(String(128))
    public_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    registered_by_ref: Mapped[str] = mapped_column(String(128))
    registered_unix: Mapped[int]
    revoked_unix: Mapped[int | None]


class RoleGrant(Base):
    """A principal holds a role in a tenant."""

    __tablename__ = "identity_roles"

    tenant: Mapped[str] = mapped_column(String(128), primary_key=True)
    principal: Mapped[str] = mapped_column(String(160), primary_key=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    granted_by_ref: Mapped[str] = mapped_column(String(128))
    granted_unix: Mapped[int]
