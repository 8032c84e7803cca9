"""Sessions on both kinds of database, and what a bad day looks like from above: Unavailable, with the cause and no statement."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

import storage.database
from core.errors import ConfigError, Unavailable
from storage.database import Database, open_database
from storage.migrate import migrate


async def test_a_reading_session_answers(database: Database) -> None:
    async with database.session(reading=True) as session:
        assert (await session.execute(text("SELECT 1"))).scalar() == 1


async def test_what_fails_half_way_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.session() as session:
            await session.execute(text("CREATE TABLE half (id INTEGER)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with pytest.raises(Exception, match="half"):
        async with database.session(reading=True) as session:
            await session.execute(text("SELECT * FROM half"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for a lock a tenth of a second, not five."""
    monkeypatch.setattr(storage.database, "BUSY_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_a_locked_database_is_unavailable_to_writers_and_open_to_readers(tmp_path: Path) -> None:
    database = open_database(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    await migrate(database)
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="database is locked"):
        async with database.session() as session:
            await session.execute(text("SELECT 1"))
    async with database.session(reading=True) as session:
        assert (await session.execute(text("SELECT count(*) FROM lineage_models"))).scalar() == 0
    assert await migrate(database) is False, "a look at the schema takes no write lock"
    holder.execute("ROLLBACK")
    holder.close()
    async with database.session() as session:
        await session.execute(text("CREATE TABLE t (id INTEGER)"))
    await database.close()


async def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    """SQLite answers SQLITE_FULL at its page limit exactly as it does when the disk is full."""
    database = open_database(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    async with database.session() as session:
        await session.execute(text("CREATE TABLE t (body TEXT)"))
    async with database.session(reading=True) as session:
        pages = (await session.execute(text("PRAGMA page_count"))).scalar()
        await session.execute(text(f"PRAGMA max_page_count = {pages}"))

    async def write() -> None:
        async with database.session() as session:
            await session.execute(text("INSERT INTO t VALUES ('small')"))
            await session.execute(text("INSERT INTO t VALUES (:body)"), {"body": "x" * 100_000})

    with pytest.raises(Unavailable, match="full"):
        await write()
    async with database.session(reading=True) as session:
        assert (await session.execute(text("SELECT count(*) FROM t"))).scalar() == 0
    await database.close()


async def test_a_folder_that_cannot_be_made_and_a_file_that_is_no_database_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable, match="cannot make the folder"):
        open_database(f"sqlite+aiosqlite:///{tmp_path}/file/sub/a.db")
    (tmp_path / "b.db").write_bytes(b"not a database at all" * 100)
    database = open_database(f"sqlite+aiosqlite:///{tmp_path}/b.db")
    with pytest.raises(Unavailable, match="not a database"):
        await migrate(database)
    await database.close()


async def test_a_server_that_is_gone_is_unavailable_and_its_password_unsaid(free_port: int) -> None:
    database = open_database(f"postgresql+asyncpg://portcullis:s3cret@127.0.0.1:{free_port}/portcullis")
    with pytest.raises(Unavailable) as error:
        await migrate(database)
    assert "s3cret" not in str(error.value)
    await database.close()


@pytest.mark.parametrize("url", ["mysql://u:s3cret@h/d", "nonsense", "sqlite:///x.db", "postgresql://h/d"])
def test_other_addresses_are_refused_without_their_secrets(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        open_database(url)
    assert "s3cret" not in str(error.value)
