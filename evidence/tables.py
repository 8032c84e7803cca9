"""Tables of the evidence room: the salts behind the commitments that records hold."""

from __future__ import annotations

from sqlalchemy import LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base


class SaltRow(Base):
    """One person of one tenant. Deleting the row is what erasure means: the reference in the log then names nobody."""

    __tablename__ = "evidence_salts"
    __table_args__ = (UniqueConstraint("tenant", "lookup"),)

    ref: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(256))
    lookup: Mapped[str] = mapped_column(String(64))
    """HMAC of the person's id under a key that is not in the database."""
    sealed: Mapped[bytes] = mapped_column(LargeBinary())
    """Salt and person's id, AES-256-GCM under a key that is not in the database."""
    created_unix: Mapped[int]
