"""One engine, one way to get a session: SQLite or PostgreSQL, both with real transactions."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.util import await_only

from core.errors import ConfigError, Unavailable

BUSY_SECONDS = 5.0
"""How long a writer waits for SQLite's lock before the operation is refused."""


READING = "portcullis_reading"


class Database:
    """Sessions over one database. `async with database.session() as s:` commits at the end, rolls back on any error."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def session(self, *, reading: bool = False) -> AsyncIterator[AsyncSession]:
        """One transaction; with `reading` it takes no write lock on SQLite, so readers do not wait for each other.

        Raises Unavailable when the database is gone, locked beyond BUSY_SECONDS, or out of space. Errors that mean something
        to a room (IntegrityError above all) pass through.
        """
        try:
            async with self._sessions.begin() as session:
                if reading:
                    await session.connection(execution_options={READING: True})
                yield session
        except (OperationalError, InterfaceError, OSError) as error:
            raise Unavailable(f"the database does not answer: {cause(error)}") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise Unavailable("the connection to the database was lost") from error
            raise

    async def close(self) -> None:
        await self.engine.dispose()


def open_database(url: str) -> Database:
    """A Database for `sqlite+aiosqlite:///PATH` or `postgresql+asyncpg://…`. ConfigError for any other address."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("not a database address", where="storage.url") from error
    if parsed.drivername == "sqlite+aiosqlite":
        if parsed.database and parsed.database != ":memory:":
            _folder(Path(parsed.database).parent)
        engine = create_async_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin)
    elif parsed.drivername == "postgresql+asyncpg":
        engine = create_async_engine(parsed, pool_pre_ping=True, pool_size=10, connect_args={"timeout": BUSY_SECONDS})
    else:
        raise ConfigError(
            f"{parsed.drivername} is not supported; use sqlite+aiosqlite:///PATH or postgresql+asyncpg://…", where="storage.url"
        )
    return Database(engine)


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Unavailable(f"cannot make the folder of the database: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: it would defer, and two readers that turn into writers deadlock.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={int(BUSY_SECONDS * 1000)}", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    _write_ahead(cursor)
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """WAL mode, which lasts. The first switch needs the file alone and is refused without waiting when several processes start
    at once, so it is tried again until BUSY_SECONDS are over."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            await_only(asyncio.sleep(0.01))  # the driver's own way to wait inside a connect event
        else:
            return


def _begin(connection: Any) -> None:
    reading = connection.get_execution_options().get(READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def cause(error: Exception) -> str:
    """The driver's own words for the known conditions, never the statement or its parameters."""
    original: BaseException | None = getattr(error, "orig", None) or error
    while original is not None and not isinstance(original, (sqlite3.Error, OSError)):
        original = original.__cause__
    if isinstance(original, sqlite3.Error):
        return str(original)
    if isinstance(original, OSError):
        return original.strerror or type(original).__name__
    return type(error).__name__
