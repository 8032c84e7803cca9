"""The quota ledger's tables. Amounts are integer shares (20,160 to a GPU), times are Unix seconds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base, Json


class AccountRow(Base):
    """What one team holds. `version` grows with every change, which is what compare-and-swap compares."""

    __tablename__ = "admission_accounts"

    tenant: Mapped[str] = mapped_column(String(128), primary_key=True)
    team: Mapped[str] = mapped_column(String(128), primary_key=True)
    """Empty for namespaces that belong to no team."""
    version: Mapped[int]
    used_shares: Mapped[int]


class ChargeRow(Base):
    """What one object holds. One row per object, so its next change replaces its own charge."""

    __tablename__ = "admission_charges"
    __table_args__ = (Index("ix_admission_charges_tenant_team", "tenant", "team"),)

    namespace: Mapped[str] = mapped_column(String(253), primary_key=True)
    kind: Mapped[str] = mapped_column(String(320), primary_key=True)
    """`Kind.group`, `Pod` for the core group."""
    name: Mapped[str] = mapped_column(String(253), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(128))
    team: Mapped[str] = mapped_column(String(128))
    shares: Mapped[int]
    pod_shares: Mapped[int]
    """What one pod of it holds; not zero even while the object runs no pods."""
    request_uid: Mapped[str] = mapped_column(String(128))
    """The request that wrote this row: a retry of it replaces the row instead of adding to it."""
    updated_at_unix: Mapped[int]


class OwnerRow(Base):
    """A uid that stands for the pods made for it. They are paid for where its row says that its pods hold something: by its own
    charge, or by that of the object that made it."""

    __tablename__ = "admission_owners"
    __table_args__ = (Index("ix_admission_owners_object", "namespace", "kind", "name"),)

    uid: Mapped[str] = mapped_column(String(128), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(253))
    kind: Mapped[str] = mapped_column(String(320))
    name: Mapped[str] = mapped_column(String(253))


class RequestRow(Base):
    """An answered request. The API server sends a request again when it did not hear the answer; it gets the same one."""

    __tablename__ = "admission_requests"

    uid: Mapped[str] = mapped_column(String(128), primary_key=True)
    body_digest: Mapped[str] = mapped_column(String(80))
    answer: Mapped[Any] = mapped_column(Json)
    answered_at_unix: Mapped[int] = mapped_column(index=True)
