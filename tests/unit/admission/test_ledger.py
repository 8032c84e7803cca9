from __future__ import annotations

import pytest

from admission.ledger import QuotaLedger, Reservation
from admission.standing import Change, ObjectKey
from admission.tables import RequestRow
from core.errors import Conflict
from storage.database import Database

CHAT, WEB = ObjectKey("team-a", "Deployment.apps", "chat"), ObjectKey("team-a", "Deployment.apps", "web")


def to(shares: int | None, mark: str | None = None) -> Change:
    return Change(after=shares, pod_shares=1 if shares else 0, asked=shares or 0, used=0, mark=mark)


async def put(
    ledger: QuotaLedger, key: ObjectKey, shares: int | None, *, request: str, team: str = "a", mark: str | None = None
) -> Reservation:
    standing = await ledger.standing("acme", team, key, uid=mark, owner_uid=None)
    made = await ledger.reserve(key, to(shares, mark), standing, tenant="acme", team=team, request_uid=request)
    assert made is not None
    return made


async def used(ledger: QuotaLedger) -> dict[str, int]:
    return {account.team: account.used_shares for account in await ledger.accounts("acme")}


async def test_an_account_that_moved_is_a_conflict(ledger: QuotaLedger) -> None:
    await put(ledger, WEB, 1, request="r1")
    seen = await ledger.standing("acme", "a", CHAT, uid=None, owner_uid=None)
    await put(ledger, WEB, 2, request="r2")
    with pytest.raises(Conflict):
        await ledger.reserve(CHAT, to(5), seen, tenant="acme", team="a", request_uid="r3")
    assert await used(ledger) == {"a": 2}


async def test_a_first_account_is_made_once(ledger: QuotaLedger) -> None:
    seen = await ledger.standing("acme", "a", CHAT, uid=None, owner_uid=None)
    await put(ledger, WEB, 1, request="r1")
    with pytest.raises(Conflict):
        await ledger.reserve(CHAT, to(5), seen, tenant="acme", team="a", request_uid="r2")


async def test_an_object_that_moved_to_another_account_is_a_conflict(ledger: QuotaLedger) -> None:
    """The account that the request looks at did not change, but the object's own row did."""
    await put(ledger, WEB, 1, request="r1", team="b")
    await put(ledger, CHAT, 4, request="r2", team="a")
    seen = await ledger.standing("acme", "b", CHAT, uid=None, owner_uid=None)
    await put(ledger, CHAT, 3, request="r3", team="a")
    for change in (to(5), to(None)):
        with pytest.raises(Conflict):
            await ledger.reserve(CHAT, change, seen, tenant="acme", team="b", request_uid="r4")
    assert await used(ledger) == {"a": 3, "b": 1}


async def test_undo_puts_back_row_shares_and_marks(ledger: QuotaLedger) -> None:
    await put(ledger, CHAT, 2, request="r1", mark="u-1")
    grown = await put(ledger, CHAT, 4, request="r2", mark="u-2")
    await ledger.undo(grown)
    assert await used(ledger) == {"a": 2}
    gone = await put(ledger, CHAT, None, request="r3")
    assert set(gone.marks) == {"u-1"}
    await ledger.undo(gone)
    assert await used(ledger) == {"a": 2}
    standing = await ledger.standing("acme", "a", CHAT, uid="u-1", owner_uid="u-1")
    assert (standing.marked, standing.owner_paid) == (True, True)
    other = await ledger.standing("acme", "a", ObjectKey("team-b", "Pod", "p"), uid="u-2", owner_uid="u-1")
    assert (other.marked, other.owner_paid) == (False, False)


async def test_undo_leaves_alone_what_was_changed_or_answered_since(ledger: QuotaLedger, database: Database) -> None:
    first = await put(ledger, CHAT, 2, request="r1")
    await put(ledger, CHAT, 3, request="r2")
    await ledger.undo(first)
    assert await used(ledger) == {"a": 3}
    second = await put(ledger, CHAT, 4, request="r3")
    await ledger.settle("r3", "d", {"ok": True})
    await ledger.undo(second)
    assert await used(ledger) == {"a": 4}


async def test_answers_are_kept_for_a_while(ledger: QuotaLedger, database: Database) -> None:
    await ledger.settle("new", "d", {"a": 1})
    assert await ledger.answered("new", "d") == {"a": 1}
    assert await ledger.answered("other", "d") is None
    with pytest.raises(Conflict):
        await ledger.answered("new", "e")
    with pytest.raises(Conflict):
        await ledger.settle("new", "d", {"a": 2})
    async with database.session() as session:
        session.add(RequestRow(uid="old", body_digest="d", answer={}, answered_at_unix=1))
    await ledger.settle("newer", "d", {})
    assert await ledger.answered("old", "d") is None


async def test_what_quota_show_lists(ledger: QuotaLedger) -> None:
    await put(ledger, CHAT, 2, request="r1")
    await put(ledger, WEB, 5, request="r2", team="b")
    await put(ledger, ObjectKey("team-a", "Job.batch", "parked"), 0, request="r3")
    assert [(key.name, held.shares) for key, held in await ledger.holdings("acme")] == [("web", 5), ("chat", 2)]
    assert [key.name for key, _ in await ledger.holdings("acme", "a")] == ["chat"]
    assert await ledger.holdings("other") == []
