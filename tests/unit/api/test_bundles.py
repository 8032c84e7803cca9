"""`/bundles`: the bytes that decide, asked for again at little cost, and answers that wait for a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import update

from admission.ledger import QuotaLedger
from api.app import application
from api.bundles import GZIP, LONG_POLLING
from api.compose import build_served
from api.longpoll import MAX_SECONDS, Waits, names, wait_asked
from core.canonical import sha256
from core.settings import parse, rooted
from policies import distribution
from policies.check import Loaded, load_tree
from policies.rollout import State
from policies.tables import ProposalRow
from tests.unit.api.conftest import Api
from tests.unit.policies import trees

PATH = "/bundles/portcullis.tar.gz"
WAIT = {"prefer": f"modes=snapshot,delta;wait={MAX_SECONDS}"}
ASKED = {
    "as OPA asks": ("modes=snapshot,delta;wait=20", 20),
    "alone": ("wait=7", 7),
    "as RFC 7240 writes it": ("modes=snapshot, WAIT = 7", 7),
    "quoted": ('wait="7"', 7),
    "longer than anybody waits": ("wait=86400", MAX_SECONDS),
    "the first of two": ("wait=7, wait=20", 7),
    "nothing": ("", 0),
    "no time": ("wait=0", 0),
    "only a name": ("wait", 0),
    "empty": ("wait=", 0),
    "words": ("wait=forever", 0),
    "negative": ("wait=-5", 0),
    "a fraction": ("wait=1.5", 0),
    "an unreadable first": ("wait=x, wait=20", 0),
    "a number of another script": ("wait=٣", 0),
    "too many digits": ("wait=" + "9" * 5000, 0),
    "another name": ("await=20; waiting=20", 0),
    "garbage": (";;,,==;\x7f", 0),
}
NAMED = {
    "the same": ('"t"', True),
    "weak, as a proxy that packs may say": ('W/"t"', True),
    "one of several": ('"a", "t"', True),
    "any": ("*", True),
    "another": ('"u"', False),
    "part of it": ('"tt"', False),
    "without quotes": ("t", False),
    "empty, as OPA's first": ("", False),
}


@pytest.mark.parametrize("name", ASKED)
def test_how_long_is_asked_for(name: str) -> None:
    text, seconds = ASKED[name]
    assert wait_asked([text]) == seconds


@pytest.mark.parametrize("name", NAMED)
def test_which_tags_are_named(name: str) -> None:
    text, expected = NAMED[name]
    assert names([text], "t") is expected
    assert names(['"u"', text], "t") is expected, "the header may be sent in several lines"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    body = 'default checked := false\n\nchecked if is_string(input.request.kind)\n\ndeny contains {} if input.request.kind == "X"\n'
    return load_tree(None, [trees.extra(tmp_path_factory.mktemp("own"), "admission/other", body)])


async def started(api: Api, loaded: Loaded, **changes: str) -> bytes:
    """A proposal over these rules, as if two people had approved it, brought to a state."""
    rooms = api.served.management
    data = distribution.build(loaded, wasm=None, tests=1)
    made = await rooms.proposals.propose_bundle(
        data, distribution.read(data), running=load_tree(), by=rooms.operator("t"), reason="tried"
    )
    fields: dict[str, Any] = {name: made.id if value == "it" else value for name, value in changes.items()}
    await rooms.rollouts.advance(await rooms.rollouts.state(), author="t", reason="tried", **fields)
    return data


def tag(data: bytes) -> str:
    return f'"{sha256(data)}"'


async def test_the_shipped_rules_are_built_the_same_each_time(api: Api) -> None:
    service = await api.key("service")
    answer = await api.call("GET", PATH, service)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == GZIP
    assert answer.headers["etag"] == tag(answer.content)
    assert answer.content == distribution.build(load_tree(), wasm=None, tests=0)
    assert distribution.read(answer.content).revision == api.served.engine.revision
    head = await api.call("HEAD", PATH, service, headers=WAIT | {"if-none-match": '"x"'})
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])
    assert head.headers["content-length"] == str(len(answer.content))
    for method in ("GET", "HEAD"):
        headers = {"if-none-match": answer.headers["etag"]} | (WAIT if method == "HEAD" else {})
        async with asyncio.timeout(MAX_SECONDS / 2):  # what has no body waits for nothing
            again = await api.call(method, PATH, service, headers=headers)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])
    assert (await api.call("GET", PATH, service, headers={"if-none-match": '"sha256:0"'})).status_code == 200


async def test_roles(api: Api) -> None:
    for role, status in {"service": 200, "admin": 200, "operator": 200, "auditor": 200, "approver": 403}.items():
        token = await api.key(role)
        for method in ("GET", "HEAD"):
            assert (await api.call(method, PATH, token)).status_code == status, role
    assert (await api.call("HEAD", PATH)).status_code == 401
    assert (await api.call("GET", PATH, await api.key("service", tenant="other"))).status_code == 403, "not their rules"
    await api.served.refusals.flush()
    found = {(r["details"]["code"], r["subject"]) for r in api.recorded() if r["details"].get("action") == "refused"}
    assert {("unauthenticated", f"HEAD {PATH}"), ("forbidden", f"GET {PATH}")} <= found


async def test_a_wait_ends_when_another_bundle_decides(api: Api, other: Loaded) -> None:
    service = await api.key("service")
    first = await api.call("GET", PATH, service, headers=WAIT)
    assert first.headers["content-type"] == LONG_POLLING, "the first answer says that the next ones may wait"
    waiting = [
        asyncio.create_task(api.call("GET", PATH, service, headers=WAIT | {"if-none-match": first.headers["etag"]}))
        for _ in range(3)
    ]
    while api.served.waits.waiting < len(waiting):
        await asyncio.sleep(0)
    data = await started(api, other, action="full", base="it")
    async with asyncio.timeout(MAX_SECONDS / 2):
        answers = await asyncio.gather(*waiting)
    assert {answer.content for answer in answers} == {data}, "the exact bytes that were approved"
    assert {answer.headers["content-type"] for answer in answers} == {LONG_POLLING}
    assert {answer.headers["etag"] for answer in answers} == {tag(data)}
    assert api.served.waits.waiting == 0


async def test_a_wait_without_a_change_ends_as_304(api: Api) -> None:
    service = await api.key("service")
    etag = (await api.call("GET", PATH, service)).headers["etag"]
    answer = await api.call("GET", PATH, service, headers={"prefer": "wait=1", "if-none-match": etag})
    assert (answer.status_code, answer.headers["content-type"], answer.headers["etag"]) == (304, LONG_POLLING, etag)
    assert answer.headers["cache-control"] == "private, no-cache"


async def test_a_candidate_is_never_served(api: Api, other: Loaded) -> None:
    service = await api.key("service")
    etag = (await api.call("GET", PATH, service)).headers["etag"]
    for stage, percent in (("shadow", 0), ("percentage", 99)):
        await started(api, other, action=stage, stage=stage, candidate="it", percent=percent)  # type: ignore[arg-type]
        await api.served.engine.refresh()
        assert api.served.engine.state.candidate
        assert (await api.call("GET", PATH, service, headers={"if-none-match": etag})).status_code == 304


async def test_content_that_nobody_approved_is_never_served(api: Api, other: Loaded) -> None:
    """Exchanged in the database before it is loaded: what ran before goes on being served."""
    service = await api.key("service")
    before = await api.call("GET", PATH, service)
    rooms = api.served.management
    evil = distribution.build(other, wasm=None, tests=9)
    state = await rooms.rollouts.state()
    data = distribution.build(other, wasm=None, tests=1)
    made = await rooms.proposals.propose_bundle(
        data, distribution.read(data), running=load_tree(), by=rooms.operator("t"), reason="tried"
    )
    async with rooms.database.session() as session:
        await session.execute(update(ProposalRow).where(ProposalRow.id == made.id).values(content=evil))
    await rooms.rollouts.advance(state, action="full", base=made.id)
    await api.served.engine.refresh()
    after = await api.call("GET", PATH, service)
    assert after.content == before.content
    assert [record["details"]["found"] for record in api.recorded() if record["kind"] == "alert"] == ["policies not loaded"]


async def test_no_more_wait_than_may(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await api.key("service")
    monkeypatch.setattr(api.served.waits, "_most", 1)
    etag = (await api.call("GET", PATH, service)).headers["etag"]
    headers = WAIT | {"if-none-match": etag}
    waiting = asyncio.create_task(api.call("GET", PATH, service, headers=headers))
    while not api.served.waits.waiting:
        await asyncio.sleep(0)
    async with asyncio.timeout(MAX_SECONDS / 2):
        assert (await api.call("GET", PATH, service, headers=headers)).status_code == 503, "304 would bring OPA back at once"
        answer = await api.call("GET", PATH, service, headers=WAIT)
        assert (answer.status_code, answer.headers["content-type"]) == (200, GZIP), "so that OPA asks after its polling delay"
        assert (await api.call("GET", PATH, service, headers={"if-none-match": etag})).status_code == 304
    assert not waiting.done()
    stopping = asyncio.create_task(api.served.waits.run())
    await asyncio.sleep(0)
    stopping.cancel()
    async with asyncio.timeout(MAX_SECONDS / 2):
        assert (await waiting).status_code == 304, "a service that stops keeps nobody waiting"
        assert (await api.call("GET", PATH, service, headers=headers)).status_code == 503


async def test_a_key_that_is_revoked_meanwhile_gets_nothing(api: Api, other: Loaded) -> None:
    admin, service = await api.key("admin"), await api.key("service")
    (key,) = [k for k in await api.served.management.keys.list("acme") if "service" in k.roles]
    etag = (await api.call("GET", PATH, service)).headers["etag"]
    waiting = asyncio.create_task(api.call("GET", PATH, service, headers=WAIT | {"if-none-match": etag}))
    while not api.served.waits.waiting:
        await asyncio.sleep(0)
    assert (await api.call("DELETE", f"/api/v1/keys/{key.key_id}", admin)).status_code == 200
    await started(api, other, action="full", base="it")
    async with asyncio.timeout(MAX_SECONDS / 2):
        assert (await waiting).status_code == 401
    assert api.served.waits.waiting == 0


@pytest.fixture
async def by_file(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Api, Path]]:
    """An API whose settings name a bundle file."""
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(distribution.build(load_tree(), wasm=None, tests=34, serial=3))
    text = yaml.safe_dump({"tenant": "acme", "policy": {"bundle": str(file)}, "storage": {"url": database_url}})
    served = await build_served(rooted(parse(text), tmp_path / "state"), {}, accounts=QuotaLedger)
    transport = httpx.ASGITransport(app=application(served))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield Api(served, client, tmp_path), file
    await served.close()


async def test_the_file_that_was_loaded_is_served_and_not_what_lies_there_now(by_file: tuple[Api, Path], other: Loaded) -> None:
    api, file = by_file
    service = await api.key("service")
    first, good = file.read_bytes(), distribution.build(other, wasm=None, tests=35)
    assert (await api.call("GET", PATH, service)).content == first
    for data, expected in ((good[:99], first), (good[:-9], first), (good[:99] + b"?" + good[100:], first), (good, good)):
        file.write_bytes(data)
        await api.served.engine.refresh()
        answer = await api.call("GET", PATH, service)
        assert (answer.content == expected, answer.headers["etag"]) == (True, tag(expected))
    assert api.served.engine.state == State()


async def test_nothing_waits_once_it_was_stopped() -> None:
    waits = Waits()
    task = asyncio.create_task(waits.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with waits.place(5) as seconds:
        assert (seconds, waits.waiting) == (0, 0)
    assert not await waits.pause(asyncio.get_running_loop().time() + 5)
