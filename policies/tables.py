"""Tables of the policies room: the operator's configuration, proposed changes of policy, and what runs since when."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base, Json


class ConfigVersion(Base):
    """What `config set` has made of the database's document; a change is a new row, never an update.

    The primary key is the compare-and-swap: two writers that started from version N both insert N + 1, and one fails.
    """

    __tablename__ = "config_versions"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    action: Mapped[str] = mapped_column(String(32))
    path: Mapped[str] = mapped_column(String(512))
    author_ref: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(String(1000))
    created_unix: Mapped[int]


class ProposalRow(Base):
    """A proposed change with its exact content: a bundle file, or canonical JSON for anything else. `digest` is the content's."""

    __tablename__ = "policy_proposals"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    change: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(71))
    revision: Mapped[str] = mapped_column(String(71))
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    summary: Mapped[dict[str, Any]] = mapped_column(Json)
    author: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(String(1000))
    state: Mapped[str] = mapped_column(String(16))
    created_unix: Mapped[int]


class SignatureRow(Base):
    """One person's counted signature over a proposal's digest, with the envelope as it came."""

    __tablename__ = "policy_signatures"
    __table_args__ = (UniqueConstraint("proposal_id", "person"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    proposal_id: Mapped[str] = mapped_column(String(36), ForeignKey("policy_proposals.id"))
    person: Mapped[str] = mapped_column(String(128))
    key_id: Mapped[str] = mapped_column(String(64))
    envelope: Mapped[str] = mapped_column(Text)
    decision_id: Mapped[str] = mapped_column(String(36))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]


class RolloutRow(Base):
    """What runs from here on: `base` decides, beside it `candidate` is tried; both are ids of proposals.

    An empty `base` is what the settings name. The latest version counts; the primary key is the compare-and-swap.
    """

    __tablename__ = "policy_rollouts"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    action: Mapped[str] = mapped_column(String(16))
    base: Mapped[str] = mapped_column(String(36))
    candidate: Mapped[str] = mapped_column(String(36))
    stage: Mapped[str] = mapped_column(String(16))
    percent: Mapped[int]
    bounds: Mapped[dict[str, Any]] = mapped_column(Json)
    author: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(String(1000))
    created_unix: Mapped[int]


class TallyRow(Base):
    """How a candidate compares, as one process has seen it."""

    __tablename__ = "policy_tallies"

    version: Mapped[int] = mapped_column(ForeignKey("policy_rollouts.version"), primary_key=True, autoincrement=False)
    worker: Mapped[str] = mapped_column(String(36), primary_key=True)
    compared: Mapped[int]
    denied: Mapped[int]
    allowed: Mapped[int]
    otherwise: Mapped[int]
    failed: Mapped[int]


class FloorRow(Base):
    """The newest bundle that was ever loaded under one verification key: nothing older is, unless it is permitted."""

    __tablename__ = "policy_floors"

    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    serial: Mapped[int]
    revision: Mapped[str] = mapped_column(String(71))
