"""A real OPA that follows what decides here: it polls our API, checks the signature, and keeps what it has when that does not hold."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI, Request, Response

from admission.ledger import QuotaLedger
from api.app import application
from api.compose import Served, build_served
from cli.serving import Listener, serve
from core.canonical import canonical
from core.decision import DOMAINS
from core.principal import Principal
from core.settings import parse, rooted
from policies import distribution
from policies.check import Loaded, load_tree
from policies.engine import Engine, load_bundle
from policies.live import LiveEngine
from policies.opa import OpaServer
from policies.proposals import sign_approval
from policies.rollout import Bounds
from tests.corpus import cases, differences
from tests.e2e.test_opa import Server, _free_port, opa
from tests.unit.policies import trees

__all__ = ["opa"]
pytestmark = pytest.mark.e2e

KEY = ec.derive_private_key(7**60, ec.SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PATIENCE, WAIT = 60, 60
RULE = "rules/admission/gpu-quota/gpu-quota.rego"
NO_JOBS = """\
default checked := false

checked if is_string(input.request.kind)

deny contains {"path": "kind", "args": {}} if input.request.kind == "Job"
"""


def opa_config(url: str, token_path: Path) -> str:
    """As docs/formats/policy-bundle.md has it."""
    page = (Path(__file__).parents[2] / "docs/formats/policy-bundle.md").read_text()
    document = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    document["services"]["portcullis"]["url"] = url
    document["services"]["portcullis"]["credentials"]["bearer"]["token_path"] = str(token_path)
    document["keys"]["portcullis"]["key"] = PEM
    document["bundles"]["portcullis"]["polling"] = {
        "long_polling_timeout_seconds": WAIT,
        "min_delay_seconds": 1,
        "max_delay_seconds": 1,
    }
    return yaml.safe_dump(document | {"status": {"console": True}})


class Meddler:
    """Passes questions and answers on, and changes the answers when it is told to."""

    def __init__(self) -> None:
        self.upstream = ""
        self.change: Callable[[bytes], bytes] | None = None
        self.changed = 0

    def application(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/{path:path}", self._pass, methods=["GET"], response_model=None)
        return app

    async def _pass(self, request: Request) -> Response:
        sent = {name: value for name, value in request.headers.items() if name in ("authorization", "if-none-match", "prefer")}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(self.upstream + request.url.path, headers=sent) as answer,
        ):
            data = await answer.read()
            kept = {name: answer.headers[name] for name in ("etag", "content-type") if name in answer.headers}
            if answer.status == 200 and self.change is not None:
                data, self.changed = self.change(data), self.changed + 1
            return Response(data, answer.status, headers=kept)


@dataclass
class Bench:
    served: Served
    url: str
    through: str
    meddler: Meddler
    folder: Path

    @property
    def by(self) -> Principal:
        return self.served.management.operator("test")

    async def activate(self, loaded: Loaded) -> str:
        """A signed bundle, proposed, approved by two people, in force."""
        rooms, engine = self.served.management, self.served.engine
        await engine.refresh()
        data = distribution.build(loaded, wasm=None, tests=1, key=KEY)
        found = distribution.read(data, key=KEY.public_key())
        made = await rooms.proposals.propose_bundle(data, found, running=engine.base.loaded, by=self.by, reason="tried")
        for person in ("ann", "bob"):
            key = Ed25519PrivateKey.generate()
            pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            await rooms.approvers.register_approver(f"{person}-{made.id}", pem, by=self.by)
            envelope = sign_approval(key, made, tenant="acme", issued_unix=1)
            await rooms.proposals.approve(envelope, engine=engine, about=made.id)
        await rooms.director.start(made.id, stage="full", percent=0, bounds=Bounds(), by=self.by, reason="now", engine=engine)
        return found.revision

    @asynccontextmanager
    async def door(self, server: Server) -> AsyncIterator[LiveEngine]:
        """A door that asks this OPA server."""
        rooms = self.served.management
        where = rooms.settings.policy.model_copy(update={"engine": "opa", "url": server.url, "deadline_ms": 10_000})
        engine = LiveEngine(where, rooms.database, recorder=rooms.recorder, clock=rooms.clock, tenant="acme")
        try:
            yield await engine.open()
        finally:
            await engine.close()

    async def waited_for(self) -> bool:
        return self.served.waits.waiting == 1


@asynccontextmanager
async def listening(app: Any, *alongside: Any) -> AsyncIterator[str]:
    port, stop = _free_port(), asyncio.Event()
    running = asyncio.create_task(serve([Listener(app, "127.0.0.1", port)], stop=stop, alongside=alongside))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE / 2):
            await running


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """The API, served, over a signed bundle of the shipped rules; beside it one who meddles."""
    (tmp_path / "bundle.tar.gz").write_bytes(distribution.build(load_tree(), wasm=None, tests=1, key=KEY))
    (tmp_path / "key.pub").write_text(PEM)
    policy = {"bundle": str(tmp_path / "bundle.tar.gz"), "verify_key": str(tmp_path / "key.pub")}
    text = yaml.safe_dump({"tenant": "acme", "policy": policy})
    served = await build_served(rooted(parse(text), tmp_path / "state"), {}, accounts=QuotaLedger)
    made = await served.management.keys.create(name="opa", by=served.management.operator("t"), roles=("service",))
    (tmp_path / "token").write_text(made.token)
    try:
        meddler = Meddler()
        async with listening(meddler.application()) as through, listening(application(served), served.waits.run()) as url:
            meddler.upstream = url
            yield Bench(served, url, through, meddler, tmp_path)
    finally:
        await served.close()


async def status(server: Server) -> dict[str, Any]:
    """What OPA says of the bundle."""

    def ask() -> dict[str, Any]:
        with urllib.request.urlopen(f"{server.url}/v1/status", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)["result"].get("bundles", {}).get("portcullis", {})
            return found

    return await asyncio.to_thread(ask)


async def runs(server: Server, loaded: Loaded) -> bool:
    return bool((await status(server)).get("active_revision") == loaded.bundle.revision)


async def as_is(value: bool) -> bool:
    return value


async def until(what: str, found: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await found():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{what}: not within {seconds} seconds")


def same_as_ours(engine: Engine, ours: Engine) -> None:
    for domain in DOMAINS:
        for case in list(islice((case for case in cases(domain) if "schema" not in case.expect), 20)):
            theirs = engine.decide(case.domain, case.input)
            assert theirs.engine == "opa"
            assert canonical(dict(theirs.result)) == canonical(dict(ours.decide(case.domain, case.input).result)), str(case)
            assert differences(case, theirs) == []


@pytest.fixture(params=["url"])
async def server(bench: Bench, opa: str, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """OPA, with the first bundle loaded from the API (`url`), or `through` the one who meddles."""
    (bench.folder / "opa.yaml").write_text(opa_config(getattr(bench, request.param), bench.folder / "token"))
    made = await asyncio.to_thread(Server, opa, "--config-file", bench.folder / "opa.yaml")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def stricter(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_tree(None, [trees.extra(tmp_path_factory.mktemp("own"), "admission/no-jobs", NO_JOBS)])


async def test_an_opa_server_follows_what_decides(bench: Bench, server: Server, stricter: Loaded) -> None:
    shipped = load_tree()
    assert (await status(server))["active_revision"] == shipped.bundle.revision
    remote, ours = (
        Engine(shipped, OpaServer(server.url, shipped.bundle, deadline_ms=10_000)),
        load_bundle(shipped.bundle.files()),
    )
    await asyncio.to_thread(same_as_ours, remote, ours)
    remote.close()
    async with bench.door(server) as door:
        allowed = next(case.input for case in cases("admission") if case.expect.get("allow") is True)
        job = allowed | {"request": allowed["request"] | {"kind": "Job"}}
        assert (await door.decide_async("admission", job)).allow

        await until("OPA waits for a change", bench.waited_for)
        assert await bench.activate(stricter) == stricter.bundle.revision
        await until("OPA follows", lambda: runs(server, stricter))
        await door.refresh()
        decision = await door.decide_async("admission", job)
        assert [found.rule for found in decision.violations] == ["admission/no-jobs"]
        assert (decision.engine, decision.policy_revision) == ("opa", stricter.bundle.revision)

    await until("OPA waits for the next one", bench.waited_for)
    server.stop()
    await until("nobody waits for one that is gone", lambda: as_is(bench.served.waits.waiting == 0), seconds=WAIT / 2)


async def test_where_too_many_wait_an_opa_server_goes_on_by_asking_now_and_then(
    bench: Bench, server: Server, stricter: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until("OPA waits for a change", bench.waited_for)
    monkeypatch.setattr(bench.served.waits, "_most", 0)
    await bench.activate(stricter)
    await until("OPA follows", lambda: runs(server, stricter))
    await until("OPA is told that too many wait", lambda: failing(server))
    other = load_tree(None, [trees.extra(tmp_path / "own", "admission/none", NO_JOBS)])
    await bench.activate(other)
    await until("OPA follows, without waiting", lambda: runs(server, other))
    assert not await failing(server)
    assert bench.served.waits.waiting == 0


async def failing(server: Server) -> bool:
    return (await status(server)).get("code") == "bundle_error"


def edited(change: Callable[[dict[str, bytes]], None]) -> Callable[[bytes], bytes]:
    """An archive that is whole, with other files in it."""

    def apply(data: bytes) -> bytes:
        files = distribution._unpacked(data, "test")
        change(files)
        return distribution._packed(files)

    return apply


def _flip(files: dict[str, bytes]) -> None:
    text = bytearray(files[RULE])
    text[-2] ^= 1
    files[RULE] = bytes(text)


TAMPERED: dict[str, Callable[[bytes], bytes]] = {
    "a byte on the way": lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    "a byte of a rule": edited(_flip),
    "a rule taken away": edited(lambda files: files.pop(RULE) and None),
    "the signature taken away": edited(lambda files: files.pop(distribution.SIGNATURES) and None),
}


@pytest.mark.parametrize("server", ["through"], indirect=True)
async def test_what_was_tampered_with_on_the_way_is_refused_and_the_last_good_one_stays(
    bench: Bench, server: Server, stricter: Loaded
) -> None:
    before = (await status(server))["active_revision"]
    bench.meddler.change = TAMPERED["a byte on the way"]
    await bench.activate(stricter)
    for name, change in TAMPERED.items():
        bench.meddler.change, bench.meddler.changed = change, 0
        # Asked for again: then what was changed the first time has been judged.
        await until(f"OPA has judged {name}", lambda: as_is(bench.meddler.changed > 1))
        found = await status(server)
        assert (found["code"], found["active_revision"]) == ("bundle_error", before), name
    bench.meddler.change = None
    await until("OPA follows", lambda: runs(server, stricter))
