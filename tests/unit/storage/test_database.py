"""Sessions on both databases."""

from __future__ import annotations

from sqlalchemy import text

from storage.database import Database


async def test_a_reading_session_answers(database: Database) -> None:
    async with database.session(reading=True) as session:
        assert (await session.execute(text("select 1"))).scalar() == 1
