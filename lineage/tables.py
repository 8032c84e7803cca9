"""What is known of datasets and model versions. Nothing is deleted: a row that stops to hold gets `ended_unix`.

People stand here as references (`core.ports.Commitments`), never as names. "Current" is `ended_unix IS NULL`; where only one
row may be current, a partial unique index says so, which is what decides races between processes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base, Json

_CURRENT = text("ended_unix IS NULL")


def _one_current(name: str, *columns: str) -> Index:
    return Index(name, *columns, unique=True, sqlite_where=_CURRENT, postgresql_where=_CURRENT)


class DatasetRow(Base):
    __tablename__ = "lineage_datasets"
    __table_args__ = (UniqueConstraint("tenant", "name", "version"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(128))
    licence: Mapped[str | None] = mapped_column(String(128))
    purposes: Mapped[list[str]] = mapped_column(Json)
    origin: Mapped[str] = mapped_column(Text)
    digest: Mapped[str | None] = mapped_column(String(71))
    author: Mapped[str] = mapped_column(String(128))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]


class ConsentRow(Base):
    """The legal basis of a dataset over time; the current row is the one that counts."""

    __tablename__ = "lineage_consents"
    __table_args__ = (_one_current("uq_lineage_consents_current", "dataset_id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(String(36), ForeignKey("lineage_datasets.id"))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(128))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]


class ModelRow(Base):
    """A model version. `ended_unix` is its revocation."""

    __tablename__ = "lineage_models"
    __table_args__ = (UniqueConstraint("tenant", "name", "version"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(128))
    team: Mapped[str | None] = mapped_column(String(128))
    author: Mapped[str] = mapped_column(String(128))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]
    ended_reason: Mapped[str | None] = mapped_column(Text)
    ended_by: Mapped[str | None] = mapped_column(String(128))


class ManifestRow(Base):
    """Which sealed manifest a version stands for. A version never goes back to a digest it has left: old signatures name it."""

    __tablename__ = "lineage_manifests"
    __table_args__ = (
        UniqueConstraint("model_id", "digest"),
        _one_current("uq_lineage_manifests_current", "model_id"),
        _one_current("uq_lineage_manifests_digest", "tenant", "digest"),
        Index(None, "digest"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(128))
    model_id: Mapped[str] = mapped_column(String(36), ForeignKey("lineage_models.id"))
    digest: Mapped[str] = mapped_column(String(71))
    actor: Mapped[str] = mapped_column(String(128))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]


class ModelDatasetRow(Base):
    """This version was trained on this dataset."""

    __tablename__ = "lineage_model_datasets"
    __table_args__ = (Index(None, "dataset_id"),)

    model_id: Mapped[str] = mapped_column(String(36), ForeignKey("lineage_models.id"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(String(36), ForeignKey("lineage_datasets.id"), primary_key=True)
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]


class CardRow(Base):
    __tablename__ = "lineage_cards"
    __table_args__ = (UniqueConstraint("model_id", "number"), _one_current("uq_lineage_cards_current", "model_id"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(36), ForeignKey("lineage_models.id"))
    number: Mapped[int]
    card: Mapped[dict[str, Any]] = mapped_column(Json)
    digest: Mapped[str] = mapped_column(String(71))
    actor: Mapped[str] = mapped_column(String(128))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]


class ApprovalRow(Base):
    """One person's accepted signature over one manifest digest, with the envelope as it came."""

    __tablename__ = "lineage_approvals"
    __table_args__ = (UniqueConstraint("model_id", "manifest_digest", "person"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(36), ForeignKey("lineage_models.id"))
    manifest_digest: Mapped[str] = mapped_column(String(71))
    person: Mapped[str] = mapped_column(String(128))
    key_id: Mapped[str] = mapped_column(String(64))
    envelope: Mapped[str] = mapped_column(Text)
    decision_id: Mapped[str] = mapped_column(String(36))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]


class DeploymentRow(Base):
    """A workload that was admitted with this version; current until it is deleted or admitted with others.

    `record_id` is the decision's id, by which the evidence log finds the admission's record.
    """

    __tablename__ = "lineage_deployments"
    __table_args__ = (_one_current("uq_lineage_deployments_current", "model_id", "environment", "workload"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(36), ForeignKey("lineage_models.id"))
    manifest_digest: Mapped[str] = mapped_column(String(71))
    environment: Mapped[str] = mapped_column(String(128))
    workload: Mapped[str] = mapped_column(String(256))
    actor: Mapped[str] = mapped_column(String(128))
    record_id: Mapped[str] = mapped_column(String(36))
    created_unix: Mapped[int]
    ended_unix: Mapped[int | None]
