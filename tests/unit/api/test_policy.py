"""Policy changes over HTTP: proposals are looked at, signed and rolled out by those who may, and what runs can be seen."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core.principal import Principal
from policies import distribution
from policies.check import load_tree
from policies.proposals import Proposal, sign_approval
from tests.unit.api.conftest import Api
from tests.unit.policies import trees
from tests.unit.policies.test_rollout import STRICT

AUTHOR = Principal("local:author", "operator", "acme", roles=frozenset({"operator"}))


async def propose(api: Api, folder: Path) -> Proposal:
    loaded = load_tree(None, [trees.extra(folder / "own", "admission/no-jobs", STRICT)])
    data = distribution.build(loaded, wasm=None, tests=1)
    running = api.served.engine.base.loaded
    return await api.served.management.proposals.propose_bundle(
        data, distribution.read(data), running=running, by=AUTHOR, reason="no jobs"
    )


async def signer(api: Api, person: str) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    by = Principal("local:test", "operator", "acme", roles=frozenset({"admin"}))
    await api.served.management.approvers.register_approver(person, pem, by=by)
    return key


async def test_from_a_proposal_to_what_runs_and_back(api: Api, tmp_path: Path) -> None:
    made = await propose(api, tmp_path)
    operator, approver, auditor = await api.key("operator"), await api.key("approver"), await api.key("auditor")
    listed = (await api.call("GET", "/api/v1/policy/proposals", auditor)).json()["proposals"]
    assert [one["summary"]["added"] for one in listed] == [["admission/no-jobs"]]
    start = {"stage": "shadow", "reason": "try"}
    path = f"/api/v1/policy/proposals/{made.id}"
    refused = await api.call("POST", f"{path}/rollout", operator, json=start)
    assert (refused.status_code, refused.json()["decision"]["violations"][0]["rule"]) == (403, "bundle/activation")
    for person in ("ann", "bob"):
        envelope = sign_approval(await signer(api, person), made, tenant="acme", issued_unix=1)
        elsewhere = await api.call(
            "POST",
            "/api/v1/policy/proposals/x/approvals",
            approver,
            content=envelope,
            headers={"content-type": "application/json"},
        )
        assert elsewhere.status_code == 400
        signed = await api.call(
            "POST", f"{path}/approvals", approver, content=envelope, headers={"content-type": "application/json"}
        )
        assert (signed.status_code, signed.json()["grants"]) == (201, ["bundle/approval:approval"])
    assert (await api.call("POST", f"{path}/rollout", operator, json=start)).json()["stage"] == "shadow"
    await api.served.engine.refresh()
    seen = (await api.call("GET", "/api/v1/policy/rollout", auditor)).json()
    assert (seen["candidate"], seen["here"]["version"], seen["tally"]["compared"]) == (made.id, 1, 0)
    assert (await api.call("POST", "/api/v1/policy/rollout/stop", operator, json={"reason": "enough"})).json()[
        "candidate"
    ] == ""
    full = await api.call("POST", f"{path}/rollout", operator, json={"stage": "full", "reason": "all"})
    assert full.json()["base"] == made.id
    await api.served.engine.refresh()
    rules = (await api.call("GET", "/api/v1/policies", auditor)).json()["rules"]
    assert "admission/no-jobs" in [rule["rule"] for rule in rules]
    states = (await api.call("GET", "/api/v1/policy/rollout/history", auditor)).json()["states"]
    assert [state["action"] for state in states] == ["full", "stop", "shadow"]
    assert (await api.call("GET", path, auditor)).json()["state"] == "done"


async def test_bad_requests_and_other_tenants(api: Api, tmp_path: Path) -> None:
    made = await propose(api, tmp_path)
    operator, theirs = await api.key("operator"), await api.key("admin", "operator", tenant="other")
    path = f"/api/v1/policy/proposals/{made.id}"
    for body in ({"stage": "half", "reason": "x"}, {"stage": "percentage", "reason": "x"}, {"stage": "shadow", "reason": ""},
                 {"stage": "shadow", "reason": "x", "max_denials": 2.0}, {"stage": "shadow", "reason": "x", "percent": 5}):  # fmt: skip
        assert (await api.call("POST", f"{path}/rollout", operator, json=body)).status_code == 400, body
    assert (
        await api.call("POST", "/api/v1/policy/proposals/none/rollout", operator, json={"stage": "full", "reason": "x"})
    ).status_code == 404
    assert (await api.call("POST", "/api/v1/policy/rollout/stop", operator, json={"reason": "x"})).status_code == 404
    for method, place in (
        ("GET", "/proposals"),
        ("GET", f"/proposals/{made.id}"),
        ("GET", "/rollout"),
        ("GET", "/rollout/history"),
    ):
        assert (await api.call(method, f"/api/v1/policy{place}", theirs)).status_code == 403
    for place in (f"{path}/withdraw", "/api/v1/policy/rollout/stop"):
        assert (await api.call("POST", place, theirs, json={"reason": "x"})).status_code == 403
    assert (await api.call("POST", f"{path}/withdraw", operator, json={"reason": "no"})).json()["state"] == "withdrawn"
    assert (await api.call("POST", f"{path}/withdraw", operator, json={"reason": "no"})).status_code == 409
