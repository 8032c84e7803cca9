"""Bringing a database to the schema of this version: idempotent, one process at a time, all or nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from core.errors import ConfigError, Unavailable
from storage.database import Database, cause

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The newest revision in `migrations/versions`; a test compares them."""

WAIT_SECONDS = 60.0
"""How long to wait while another process brings the schema up to date."""
LOCK = 0x706F7274
"""The key of PostgreSQL's advisory lock; SQLite's write lock does the same there."""


async def migrate(database: Database) -> bool:
    """Upgrades the schema when it is not at HEAD; True when something was done.

    Raises ConfigError for a database of a newer version, Unavailable when it does not answer.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return await _migrated(database)
        except (SQLAlchemyError, OSError) as error:
            if "locked" not in cause(error) or time.monotonic() > deadline:
                raise Unavailable(f"the database cannot be brought to this version's schema: {cause(error)}") from error


async def _migrated(database: Database) -> bool:
    # Nearly always there is nothing to do, and a look takes no write lock.
    async with database.session(reading=True) as session:
        if await (await session.connection()).run_sync(current) == HEAD:
            return False
    async with database.engine.begin() as connection:
        return await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    found = current(connection)
    if found == HEAD:
        return False
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(f"the database has schema {found}, which this version does not know; use the version that made it")
    command.upgrade(config, "head")
    return True


def current(connection: Connection) -> str | None:
    """The schema's revision; None for a database that has none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for the revisions in this package, on this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
