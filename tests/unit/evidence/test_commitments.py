"""References: stable, per tenant, openable with the key, nobody's without."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from core.errors import Broken
from evidence.commitments import SaltedCommitments
from evidence.tables import SaltRow


async def test_stable_across_processes_and_different_across_tenants(database, tmp_path: Path):
    one, two = SaltedCommitments(tmp_path, database), SaltedCommitments(tmp_path, database)
    ref = await one.ref("acme", "person:ada@acme.example")
    assert len(ref) == 36
    assert ref.startswith("ref:")
    assert await two.ref("acme", "person:ada@acme.example") == ref
    assert await one.ref("zeta", "person:ada@acme.example") != ref
    assert await one.ref("acme", "person:bob") != ref


async def test_processes_that_meet_a_person_at_once_agree(database, tmp_path: Path):
    several = [SaltedCommitments(tmp_path, database) for _ in range(6)]
    assert len(set(await asyncio.gather(*(each.ref("acme", "ada") for each in several)))) == 1


async def test_the_database_alone_names_nobody(database, tmp_path: Path):
    mine = SaltedCommitments(tmp_path / "a", database)
    ref = await mine.ref("acme", "person:ada")
    async with database.session(reading=True) as session:
        row = (await session.execute(select(SaltRow))).scalar_one()
    assert b"ada" not in row.sealed
    assert (await mine.open([ref]))[ref]["person"] == "person:ada"
    assert await mine.open([ref], tenant="zeta") == {}
    with pytest.raises(Broken, match="cannot be opened"):
        await SaltedCommitments(tmp_path / "b", database).open([ref])


async def test_an_erased_person_is_somebody_else_from_then_on(database, tmp_path: Path):
    before = await SaltedCommitments(tmp_path, database).ref("acme", "ada")
    async with database.session() as session:
        await session.execute(delete(SaltRow))
    mine = SaltedCommitments(tmp_path, database)
    assert await mine.open([before]) == {}
    assert await mine.ref("acme", "ada") != before


async def test_the_cache_is_bounded(database, tmp_path: Path):
    mine = SaltedCommitments(tmp_path, database, remembered=2)
    refs = [await mine.ref("acme", str(number)) for number in range(4)]
    assert len(mine._known) == 2
    assert [await mine.ref("acme", str(number)) for number in range(4)] == refs
    shutil.rmtree(tmp_path)
