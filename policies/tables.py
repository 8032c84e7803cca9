"""Tables of the policies room: the operator's configuration, one row per version."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String
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
