"""The management API: who may, what is read, what is kept, what is said."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.routing import APIRoute
from starlette.routing import Route

from api.app import PUBLIC, application
from core.errors import EvidenceUnavailable
from core.names import ModelRef
from lineage.statements import approve
from policies.config import show_time
from policies.proposals import sign_approval
from tests.unit.api.conftest import Api

DIGEST = "sha256:" + "7" * 64
CARD = dict.fromkeys(("title", "limitations", "training_data", "evaluation", "contact", "risk_class"), "said") | {
    "intended_purposes": ["search"]
}


def every_route(router: Any) -> Iterator[Any]:
    """Every route below `router`, included routers walked through; anything else that could answer fails the test."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from every_route(route.original_router)
        else:
            assert isinstance(route, Route), f"{route!r} is not a route that this test understands"
            yield route


def routes(api: Api) -> list[tuple[str, str]]:
    """(method, path) of every route."""
    return [
        (method, route.path)
        for route in every_route(application(api.served))
        for method in sorted(route.methods or ())
        if method not in ("HEAD", "OPTIONS")
    ]


def filled(path: str) -> str:
    for name in ("name", "version", "person", "key_id", "id", "framework"):
        path = path.replace("{" + name + "}", "x1")
    return path.replace("{path:path}", "000")


async def test_every_route_asks_for_a_key_then_a_role_then_reads(api: Api) -> None:
    caller = await api.key(team="vision")
    seen = 0
    for method, path in routes(api):
        if path in PUBLIC:
            continue
        seen += 1
        garbage: dict[str, Any] = {"content": b"{{{", "headers": {"content-type": "text/nonsense"}}
        if method == "GET":
            garbage["params"] = {"limit": "no", "from": "no", "before": "no", "format": "no"}
        for token, status in ((None, 401), ("pcl_nobody", 401), (caller, 403)):
            answer = await api.call(method, filled(path), token, **garbage)
            assert answer.status_code == status, (method, path)
            assert answer.headers["cache-control"] == "no-store"
        assert (await api.call(method, filled(path), None)).headers["www-authenticate"] == "Bearer"
    assert seen > 30


async def test_two_credentials_are_none(api: Api) -> None:
    admin = await api.key("admin")
    twice = [("authorization", f"Bearer {admin}")] * 2
    assert (await api.client.get("/api/v1/whoami", headers=twice)).status_code == 401


async def test_the_public_routes_are_exactly_these(api: Api) -> None:
    unguarded = {
        route.path for route in every_route(application(api.served)) if not (isinstance(route, APIRoute) and route.dependencies)
    }
    assert unguarded == PUBLIC


async def test_refusals_are_on_record_without_names(api: Api) -> None:
    caller = await api.key(team="vision")
    for _ in range(3):
        await api.call("GET", "/api/v1/models")
    await api.call("GET", "/api/v1/models/llama-3/7", caller)
    await api.call("GET", "/nothing/here/jane.roe@example.org")
    await api.served.refusals.flush()
    found = {(r["details"]["code"], r["subject"]): r for r in api.recorded() if r["details"].get("action") == "refused"}
    assert found["unauthenticated", "GET /api/v1/models"]["details"]["count"] == 3
    assert found["forbidden", "GET /api/v1/models/{name}/{version}"]["actor"] != "anonymous"
    assert ("not_found", "other") in found


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "not json": (b"{{{", 400),
    "not an object": (b"[]", 400),
    "two documents": (b"{} {}", 400),
    "a field twice": (b'{"name": "a", "name": "b", "version": "1"}', 400),
    "a missing field": (b'{"name": "a"}', 400),
    "an unknown field": (b'{"name": "a", "version": "1", "admin": true}', 400),
    "a wrong type": (b'{"name": "a", "version": 1}', 400),
    "null": (b'{"name": null, "version": "1"}', 400),
    "not a number": (b'{"name": "a", "version": "1", "team": NaN}', 400),
    "a lone surrogate": (b'{"name": "\\ud800", "version": "1"}', 400),
    "not UTF-8": (b'{"name": "\xff", "version": "1"}', 400),
    "a name with a slash": (b'{"name": "../a", "version": "1"}', 400),
    "too deep": (b'{"name": ' + b"[" * 100 + b"]" * 100 + b"}", 413),
    "too large": (b'{"name": "' + b"a" * 2_000_000 + b'"}', 413),
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_bodies_are_refused_clearly_and_leave_nothing(api: Api, name: str) -> None:
    body, status = BAD_BODIES[name]
    token = await api.key("operator")
    answer = await api.call("POST", "/api/v1/models", token, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert (await api.call("GET", "/api/v1/models", token)).json() == {"models": []}


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    """A form or plain text can be sent across sites without asking; JSON cannot."""
    token = await api.key("operator")
    sent = b'{"name": "a", "version": "1"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = await api.call("POST", "/api/v1/models", token, content=sent, headers={"content-type": kind})
        assert answer.status_code == 400


async def test_a_model_from_its_data_to_two_approvals_and_its_end(api: Api) -> None:
    token = await api.key("admin")

    async def ok(method: str, path: str, status: int = 200, **body: Any) -> Any:
        answer = await api.call(method, "/api/v1" + path, token, **({"json": body} if body else {}))
        assert answer.status_code == status, answer.text
        return answer.json()

    data = {"name": "web", "version": "1", "origin": "crawl", "consent": "given", "purposes": ["search"]}
    await ok("POST", "/datasets", 201, **data)
    assert (await api.call("POST", "/api/v1/datasets", token, json=data)).status_code == 409
    await ok("POST", "/models", 201, name="llama-3", version="7", datasets=["web@1"])
    assert (await ok("PUT", "/models/llama-3/7/card", **CARD))["missing"] == []
    await ok("PUT", "/models/llama-3/7/manifest", digest=DIGEST)
    keys = {}
    for person in ("ann", "bob"):
        keys[person] = Ed25519PrivateKey.generate()
        pem = keys[person].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        await ok("POST", "/approvers", 201, person=person, public_key=pem)

    async def sign(person: str, model: str = "llama-3") -> Any:
        ref = ModelRef(model, "7")
        envelope = approve(keys[person], tenant="acme", model=ref, manifest_digest=DIGEST, issued_unix=1)
        path = "/api/v1/models/llama-3/7/approvals"
        return await api.call("POST", path, token, content=envelope, headers={"content-type": "application/json"})

    assert (await sign("ann", "llama-4")).status_code == 400, "the path and the statement must agree"
    assert (await sign("ann")).status_code == 201
    again = await sign("ann")
    assert again.status_code == 403
    assert again.json()["decision"]["violations"][0]["rule"] == "lineage/approval"
    assert (await sign("bob")).status_code == 201
    assert len((await ok("GET", "/models/llama-3/7"))["approvals"]) == 2
    assert (await ok("POST", "/datasets/web/1/withdraw", reason="asked to"))["models"] == ["llama-3@7"]
    assert (await ok("GET", "/datasets/web/1"))["consent"] == "withdrawn"
    await ok("POST", "/models/llama-3/7/revoke", reason="over")
    assert (await ok("GET", "/models/llama-3/7"))["revoked"]

    api.recorded()
    listed = (await ok("GET", "/decisions"))["decisions"]
    assert [record["decision"]["allow"] for record in listed] == [True, False, True], "newest first"
    first = (await api.call("GET", "/api/v1/decisions", token, params={"limit": 2})).json()
    rest = (await api.call("GET", "/api/v1/decisions", token, params={"before": first["next_before"]})).json()
    assert first["decisions"] + rest["decisions"] == listed
    found = listed[0]["decision"]["decision_id"]
    assert (await ok("GET", f"/decisions/{found}"))["id"] == listed[0]["id"]
    proof = await api.call("GET", f"/api/v1/evidence/{found}/proof", token)
    assert proof.text.startswith("c2sp.org/tlog-proof@v1\n")


async def test_the_key_of_sealed_weights_by_policy_only(api: Api) -> None:
    service, admin = await api.key("service"), await api.key("admin")
    keys = api.served.management.weight_keys
    keys.generate()
    wrapped = await keys.wrap(b"k" * 32, DIGEST)
    asked = {"model": "llama-3@7", "manifest": DIGEST, "keys": [wrapped.as_json()]}
    answer = await api.call("POST", "/api/v1/keys/release", service, json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "weights/key-release")
    assert "not registered" in answer.text
    await make_fit(api)
    answer = await api.call("POST", "/api/v1/keys/release", service, json=asked)
    assert (answer.status_code, base64.b64decode(answer.json()["key"])) == (200, b"k" * 32)
    assert answer.headers["cache-control"] == "no-store"
    assert (await api.call("POST", "/api/v1/keys/release", admin, json=asked)).status_code == 403, "a role here is no grant"
    for wrong in ({"manifest": "sha256:0"}, {"model": "llama-3"}, {"keys": [{"provider": "x"}]}, {"keys": []}):
        assert (await api.call("POST", "/api/v1/keys/release", service, json=asked | wrong)).status_code in (400, 422), wrong
    await api.served.refusals.flush()
    releases = [record for record in api.recorded() if record["kind"] == "key_release"]
    assert [record["decision"]["allow"] for record in releases] == [False, True, False, True]
    refused = [r for r in api.recorded() if r["subject"] == "POST /api/v1/keys/release"]
    assert sum(record["details"]["count"] for record in refused) == 4, "asked for a decision, got none: on record too"


async def make_fit(api: Api) -> None:
    """llama-3@7, registered, described and approved by two."""
    rooms = api.served.management
    by, ref = rooms.operator("test"), ModelRef("llama-3", "7")
    await rooms.datasets.register(ModelRef("web", "1"), by=by, origin="crawl", basis="given")
    await rooms.models.register(ref, by=by, datasets=[ModelRef("web", "1")])
    await rooms.models.set_card(ref, CARD, by=by)
    await rooms.models.set_manifest(ref, DIGEST, by=by)
    for person in ("ann", "bob"):
        key = Ed25519PrivateKey.generate()
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        await rooms.approvers.register_approver(person, pem, by=by)
        envelope = approve(key, tenant="acme", model=ref, manifest_digest=DIGEST, issued_unix=1)
        await api.served.approvals.submit("acme", envelope)


async def test_tenants_see_their_own_only(api: Api) -> None:
    ours, theirs = await api.key("admin"), await api.key("admin", tenant="other")
    await api.call("POST", "/api/v1/models", ours, json={"name": "llama-3", "version": "7"})
    await api.served.management.config.set(
        "tenants.acme.teams.vision.gpu_quota", 5, author=api.served.management.operator("t"), reason="more"
    )
    api.recorded()
    assert (await api.call("GET", "/api/v1/models", theirs)).json() == {"models": []}
    assert (await api.call("GET", "/api/v1/models/llama-3/7", theirs)).status_code == 404
    assert (await api.call("GET", "/api/v1/quota", theirs)).json() == {"teams": []}
    assert {key["tenant"] for key in (await api.call("GET", "/api/v1/keys", theirs)).json()["keys"]} == {"other"}
    for path in ("/api/v1/config", "/api/v1/config/history", "/api/v1/config/diff?from=0", "/log/tile/entries/000.p/1"):
        assert (await api.call("GET", path, theirs)).status_code == 403, path
    record = next(iter(api.recorded()))
    assert (await api.call("GET", f"/api/v1/decisions/{record['id']}", ours)).status_code == 200
    assert (await api.call("GET", f"/api/v1/decisions/{record['id']}", theirs)).status_code == 404
    change = {"path": "tenants.acme.teams.vision.gpu_quota", "value": 99, "reason": "mine now"}
    assert (await api.call("PUT", "/api/v1/config", theirs, json=change)).status_code == 403


async def test_configuration_and_exemptions(api: Api) -> None:
    token, auditor = await api.key("operator"), await api.key("auditor")
    change = {"path": "tenants.acme.teams.vision.gpu_quota", "value": "1/2", "reason": "less", "expected_version": 0}
    assert (await api.call("PUT", "/api/v1/config", token, json=change)).json() == {"version": 1}
    assert (await api.call("PUT", "/api/v1/config", token, json=change | {"value": 3})).status_code == 409
    assert (await api.call("PUT", "/api/v1/config", auditor, json=change)).status_code == 403
    assert (await api.call("GET", "/api/v1/quota", auditor)).json()["teams"][0]["limit_shares"] == 10_080
    shown = await api.call("GET", "/api/v1/config", auditor, params={"path": "tenants.acme.teams.vision.gpu_quota"})
    assert shown.json()["config"] == "1/2"
    back = {"path": change["path"], "reason": "as it was"}
    assert (await api.call("DELETE", "/api/v1/config", token, json=back)).json() == {"version": 2}
    differences = (await api.call("GET", "/api/v1/config/diff?from=1", auditor)).json()["changes"]
    assert [item["removed"] for item in differences] == [True]
    exemption = {
        "id": "EX-1", "rule": "admission/approved-images", "owner": "ann", "reason": "moving", "ticket": "T-1",
        "expires": show_time(int(time.time()) + 86_400), "subjects": ["Deployment/chat"], "namespaces": ["vision"],
    }  # fmt: skip
    assert (await api.call("POST", "/api/v1/exemptions", token, json=exemption)).status_code == 201
    assert (await api.call("GET", "/api/v1/exemptions", auditor)).json()["exemptions"][0]["state"] == "active"
    assert (await api.call("POST", "/api/v1/exemptions/EX-1/revoke", token, json={"reason": "moved"})).status_code == 200
    assert (await api.call("GET", "/api/v1/exemptions", auditor)).json() == {"exemptions": []}
    assert "sha256:" in (await api.call("GET", "/api/v1/policies", auditor)).json()["revision"]


async def test_a_change_that_weakens_by_http(api: Api) -> None:
    rooms, token, auditor = api.served.management, await api.key("operator"), await api.key("auditor")
    change = {"path": "modes.gateway/purpose", "value": {"mode": "warn"}, "reason": "a trial"}
    refused = await api.call("PUT", "/api/v1/config", token, json=change)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "needs_approval")
    assert "gateway/purpose: enforce becomes warn everywhere" in refused.json()["error"]["message"]
    wide = {
        "id": "EX-1", "rule": "admission/approved-images", "owner": "ann", "reason": "moving", "ticket": "T-1",
        "expires": show_time(int(time.time()) + 86_400), "subjects": ["*"], "namespaces": ["vision"],
    }  # fmt: skip
    assert (await api.call("POST", "/api/v1/exemptions", token, json=wide)).json()["error"]["code"] == "needs_approval"
    assert (await api.call("POST", "/api/v1/config/proposals", auditor, json=change)).status_code == 403
    for wrong in ({"value": 1, "unset": True}, {"value": {"mode": "wrong"}}):
        assert (await api.call("POST", "/api/v1/config/proposals", token, json=change | wrong)).status_code == 400
    made = await api.call("POST", "/api/v1/config/proposals", token, json=change)
    assert made.status_code == 201
    assert made.json()["summary"]["weakens"] == ["gateway/purpose: enforce becomes warn everywhere"]
    apply = f"/api/v1/config/proposals/{made.json()['id']}/apply"
    waiting = await api.call("POST", apply, token)
    assert (waiting.status_code, waiting.json()["error"]["code"]) == (403, "refused")
    assert waiting.json()["decision"]["violations"][0]["rule"] == "bundle/activation"
    found = await rooms.proposals.get(made.json()["id"])
    for person in ("ann", "bob"):
        key = Ed25519PrivateKey.generate()
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        await rooms.approvers.register_approver(person, pem, by=rooms.operator("t"))
        await rooms.proposals.approve(sign_approval(key, found, tenant="acme", issued_unix=1), engine=api.served.engine)
    assert (await api.call("POST", apply, auditor)).status_code == 403
    assert (await api.call("POST", apply, token)).json() == {"proposal": found.id, "version": 1}
    assert (await api.call("POST", apply, token)).status_code == 403
    assert (await api.call("PUT", "/api/v1/config", token, json=change)).json() == {"version": 1}, "it is so already"
    record = next(record for record in api.recorded() if record["kind"] == "config_change")
    assert record["details"]["proposal"] == found.id
    assert record["details"]["proposed_by"] == found.author
    taken = {"path": "modes.gateway/purpose", "unset": True, "reason": "over"}
    assert (await api.call("POST", "/api/v1/config/proposals", token, json=taken)).json()["summary"]["weakens"] == []


async def test_what_is_sent_wrongly_is_the_senders_error(api: Api) -> None:
    """Never a 500, and no place on our disk in the answer."""
    token = await api.key("operator", "auditor")
    change = {"path": "tenants.acme.teams.vision.gpu_quota", "value": "1/11", "reason": "less"}
    refused = await api.call("PUT", "/api/v1/config", token, json=change)
    assert (refused.status_code, refused.json()["error"]["where"]) == (400, change["path"])
    for number in (2**31, 2**63, 2**70, -1):
        assert (await api.call("GET", f"/api/v1/config/diff?from={number}", token)).status_code == 400
        assert (await api.call("GET", f"/api/v1/config/diff?from=0&to={number}", token)).status_code == 400
    for sequenced in (False, True):
        for path in ("/decisions/none", "/evidence/none/proof"):
            answer = await api.call("GET", f"/api/v1{path}", token)
            assert answer.status_code == 404
            assert str(api.folder) not in answer.text
        if not sequenced:
            api.recorded()


async def test_a_freeze_by_http(api: Api) -> None:
    """A key freezes by its id or prefix, never by itself; an operator may stop and only an administrator may go on."""
    admin, operator, auditor = await api.key("admin"), await api.key("operator"), await api.key("auditor")
    victim = await api.key()
    prefix = victim.split("_")[1]
    (found,) = [k for k in await api.served.management.keys.list("acme") if not k.roles]
    stop = {"target": f"caller:{prefix}", "reason": "stolen"}
    answer = await api.call("POST", "/api/v1/freezes", operator, json=stop)
    assert answer.status_code == 201
    assert answer.json() == {"target": f"caller:key:{found.key_id}", "tenant": "acme", "version": 1, "changed": True}
    again = await api.call("POST", "/api/v1/freezes", operator, json=stop | {"target": f"caller:{found.key_id}"})
    assert again.json()["changed"] is False
    (listed,) = (await api.call("GET", "/api/v1/freezes", auditor)).json()["freezes"]
    assert (listed["target"], listed["reason"]) == (f"caller:key:{found.key_id}", "stolen")
    place = f"/api/v1/freezes/caller:key:{found.key_id}"
    assert (await api.call("DELETE", place, operator, json={"reason": "found"})).status_code == 403
    assert (await api.call("DELETE", place, admin, json={"reason": "found"})).json()["version"] == 2
    assert (await api.call("DELETE", place, admin, json={"reason": "found"})).status_code == 404
    records = [record for record in api.recorded() if record["kind"] == "freeze"]
    assert [record["details"]["action"] for record in records] == ["freeze", "unfreeze"]
    assert found.key_id not in json.dumps(records)
    assert "stolen" not in json.dumps(records)


async def test_a_freeze_of_what_nobody_knows_is_refused(api: Api) -> None:
    """A wrong name would look like a stop and stop nothing."""
    token, theirs = await api.key("admin"), await api.key("admin", tenant="other")
    for target, status in {
        "llama-3@7": 404, "model:llama-3": 404, "caller:KAAAAAAAAAAA": 404, "caller:key:K1": 404, "tenant:acne": 404,
        "team:vision": 400, "llama": 400,
    }.items():  # fmt: skip
        answer = await api.call("POST", "/api/v1/freezes", token, json={"target": target, "reason": "x"})
        assert (target, answer.status_code) == (target, status)
    whole = await api.call("POST", "/api/v1/freezes", token, json={"target": f"caller:{theirs}", "reason": "x"})
    assert whole.status_code == 400
    assert theirs not in whole.text
    foreign = {"target": "tenant:acme", "reason": "x"}
    assert (await api.call("POST", "/api/v1/freezes", theirs, json=foreign)).status_code == 403
    assert (await api.call("GET", "/api/v1/freezes", token)).json() == {"freezes": []}


async def test_the_log_can_be_read_by_any_client(api: Api) -> None:
    """Checkpoint and hashes are public (a witness needs them); the records are the installation's auditors' alone."""
    auditor = await api.key("auditor")
    assert (await api.call("GET", "/log/checkpoint")).status_code == 404
    count = len(api.recorded())
    assert (await api.call("GET", "/log/checkpoint")).text.startswith(f"portcullis.local/log\n{count}\n")
    tile = await api.call("GET", f"/log/tile/0/000.p/{count}")
    assert len(tile.content) == 32 * count
    for path in ("/log/checkpoint", f"/log/tile/0/000.p/{count}"):
        assert (await api.client.head(path)).status_code == 200
    assert "immutable" in tile.headers["cache-control"]
    assert (await api.call("GET", f"/log/tile/entries/000.p/{count}")).status_code == 401
    assert (await api.call("GET", f"/log/tile/entries/000.p/{count}", auditor)).status_code == 200
    for path in ("entries%2F000.p/1", "0/../../keys/log.key", "0/..%2f..%2fkeys%2flog.key", "0/000.p/300"):
        assert (await api.call("GET", f"/log/tile/{path}")).status_code in (401, 404), path


async def test_a_report_by_http(api: Api) -> None:
    auditor = await api.key("auditor")
    api.recorded()
    page = await api.call("GET", "/api/v1/reports/eu-ai-act", auditor, params={"format": "html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "not evidenced" in page.text
    assert (await api.call("GET", "/api/v1/reports/none", auditor)).status_code == 404
    assert (await api.call("GET", "/api/v1/reports/eu-ai-act", auditor, params={"from": "May"})).status_code == 400
    assert (await api.call("GET", "/api/v1/reports/eu-ai-act", auditor, params={"format": "pdf"})).status_code == 400


async def test_without_evidence_nothing_changes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await api.key("operator")

    async def broken(*_: Any, **__: Any) -> str:
        raise EvidenceUnavailable("the evidence log cannot be written")

    monkeypatch.setattr(type(api.served.management.recorder), "event", broken)
    answer = await api.call("POST", "/api/v1/models", token, json={"name": "a", "version": "1"})
    assert answer.status_code == 503
    monkeypatch.undo()
    assert (await api.call("GET", "/api/v1/models", token)).json() == {"models": []}


async def test_an_unforeseen_error_says_nothing_of_what_was_sent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await api.key("operator")

    async def surprise(*_: Any, **__: Any) -> None:
        raise RuntimeError("jane.roe@example.org")

    monkeypatch.setattr(type(api.served.management.models), "all", surprise)
    answer = await api.call("GET", "/api/v1/models", token)
    assert answer.status_code == 500
    assert "jane" not in answer.text


async def test_a_token_is_shown_once_and_works_until_revoked(api: Api) -> None:
    admin = await api.key("admin")
    made = (await api.call("POST", "/api/v1/keys", admin, json={"name": "ci", "roles": ["auditor"]})).json()
    assert made["token"] not in (await api.call("GET", "/api/v1/keys", admin)).text
    assert (await api.call("GET", "/api/v1/whoami", made["token"])).json()["roles"] == ["auditor"]
    turned = (await api.call("POST", f"/api/v1/keys/{made['key_id']}/rotate", admin)).json()
    assert (await api.call("GET", "/api/v1/whoami", made["token"])).status_code == 401
    assert (await api.call("DELETE", f"/api/v1/keys/{made['key_id']}", admin)).status_code == 200
    assert (await api.call("GET", "/api/v1/whoami", turned["token"])).status_code == 401


async def test_health_and_the_description(api: Api) -> None:
    assert (await api.call("GET", "/healthz")).status_code == 200
    assert (await api.call("GET", "/readyz")).json() == {"status": "ready"}
    page = await api.call("GET", "/docs")
    assert "/api/v1/models/{name}/{version}/approvals" in page.text
    assert "http" not in page.text.replace("http-equiv", ""), "the page needs nothing from elsewhere"
    body = (await api.call("GET", "/openapi.json")).json()["paths"]["/api/v1/datasets"]["post"]["requestBody"]
    assert "origin" in body["content"]["application/json"]["schema"]["required"]
    assert (await api.call("PATCH", "/api/v1/models")).status_code == 405
