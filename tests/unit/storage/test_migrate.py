"""Migrations bring both databases to exactly the rooms' tables."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from core.errors import ConfigError
from storage.base import Base
from storage.database import open_database
from storage.migrate import HEAD, alembic_config, current, migrate
from tests.conftest import load_tables


async def test_migrations_make_the_tables_that_the_rooms_declare(database_url: str) -> None:
    load_tables()
    database = open_database(database_url)
    assert await migrate(database)
    assert not await migrate(database), "a second time there is nothing to do"

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    async with database.engine.begin() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_many_processes_may_migrate_at_once(database_url: str) -> None:
    databases = [open_database(database_url) for _ in range(4)]
    done = await asyncio.gather(*(migrate(database) for database in databases))
    assert done.count(True) == 1
    for database in databases:
        await database.close()


async def test_a_schema_of_the_future_is_refused(database_url: str) -> None:
    database = open_database(database_url)
    await migrate(database)
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="9999"):
        await migrate(database)
    await database.close()


async def test_head_is_the_newest_revision(database_url: str) -> None:
    database = open_database(database_url)

    def head(connection: Connection) -> tuple[str | None, str | None]:
        return ScriptDirectory.from_config(alembic_config(connection)).get_current_head(), current(connection)

    async with database.engine.begin() as connection:
        assert await connection.run_sync(head) == (HEAD, None)
    await database.close()
