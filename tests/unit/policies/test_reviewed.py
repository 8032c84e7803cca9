"""What weakens the configuration is made by two people or not at all, and only as they signed it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from core import dsse
from core.errors import BadInput, Conflict, EvidenceUnavailable, Forbidden, NeedsApproval, NotFound, Refused
from core.principal import Principal
from policies.engine import Engine, load_embedded
from policies.proposals import Proposal, Proposals, sign_approval
from policies.reviewed import ReviewedChanges
from policies.store import ConfigStore
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryApprovers, MemoryCommitments, MemoryRecorder

OLGA = Principal("person:olga", "user", "home", roles=frozenset({"operator"}))
OTTO = Principal("person:otto", "user", "home", roles=frozenset({"admin"}))
GUEST = Principal("person:gus", "user", "acme", roles=frozenset({"admin"}))
FILE = """
tenants:
  home: {required_approvals: 2}
  acme:
    images: [{registry: r.example, repository: ml}]
    require_image_digest: true
    required_approvals: 3
    teams: {core: {namespaces: [prod]}, lab: {namespaces: [lab]}}
modes:
  - {rule: admission/approved-model, mode: warn}
  - {rule: admission/gpu-quota, mode: "off", tenant: acme, team: lab}
exemptions:
  - {id: EX-1, rule: admission/gpu-quota, tenant: acme, owner: ann, reason: move, ticket: T-1,
     expires: 2027-02-01T00:00:00Z, namespaces: [prod], subjects: [Deployment/chat]}
obligations: [{tenant: acme, max_tokens: 100, headers: {x-ai: "yes"}}]
"""
WIDE: dict[str, Any] = {
    "rule": "admission/gpu-quota", "tenant": "acme", "owner": "ann", "reason": "move", "ticket": "T-2",
    "expires": "2027-02-01T00:00:00Z", "namespaces": ["prod"], "subjects": ["*"],
}  # fmt: skip
WAYS: dict[str, tuple[str, Any]] = {
    "a rule off": ("modes.gateway/purpose", {"mode": "off"}),
    "a narrower mode": ("modes.gateway/purpose[tenant=acme]", {"mode": "warn"}),
    "a wide exemption": ("exemptions.EX-2", WIDE),
    "an exemption for long": ("exemptions.EX-2", WIDE | {"subjects": ["Job/a"], "expires": "2099-01-01T00:00:00Z"}),
    "an exemption everywhere": ("exemptions.EX-2", WIDE | {"subjects": ["Job/a"], "namespaces": []}),
    "an exemption made longer": ("exemptions.EX-1.expires", "2027-02-02T00:00:00Z"),
    "an exemption made wider": ("exemptions.EX-1.subjects", ["Deployment/chat", "Job/a"]),
    "fewer approvals": ("tenants.acme.required_approvals", 2),
    "no digests": ("tenants.acme.require_image_digest", False),
    "a whole registry": ("tenants.acme.images", [{"registry": "r.example"}]),
    "a namespace to a laxer team": ("tenants.acme.teams", {"core": {"namespaces": []}, "lab": {"namespaces": ["prod"]}}),
    "a controller": ("controller_namespaces", ["kube-system", "lab"]),
    "an obligation": ("obligations.acme.max_tokens", None),
}


class World:
    def __init__(self, database: Database, folder: Path, engine: Engine) -> None:
        self.file = folder / "config.yaml"
        self.file.write_text(FILE)
        self.recorder, self.clock, self.approvers, self.engine = MemoryRecorder(), FixedClock(), MemoryApprovers(), engine
        parts: Any = {"commitments": MemoryCommitments(), "recorder": self.recorder, "clock": self.clock}
        self.store = ConfigStore(database, files=[self.file], home="home", max_age_seconds=0, **parts)
        self.proposals = Proposals(database, config=self.store, directory=self.approvers, tenant="home", **parts)
        self.reviewed = ReviewedChanges(self.store, self.proposals)

    async def propose(self, path: str, value: Any = None, **more: Any) -> Proposal:
        return await self.reviewed.propose(path, value, **{"by": OLGA, "reason": "a migration", **more})

    async def sign(self, proposal: Proposal, *people: str) -> None:
        for name in people:
            key = Ed25519PrivateKey.generate()
            envelope = sign_approval(key, proposal, tenant="home", issued_unix=1)
            key_id = dsse.read(
                envelope,
                predicate_type="https://portcullis.dev/policy-approval/v1",
                fields="decision tenant change issued_unix",
            ).key_id
            raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            person = Principal(f"person:{name}", "user", "home", roles=frozenset({"approver"}))
            self.approvers.people["home", key_id] = (person, raw, False)
            await self.proposals.approve(envelope, engine=self.engine)

    async def approved(self, path: str, value: Any = None, **more: Any) -> Proposal:
        made = await self.propose(path, value, **more)
        await self.sign(made, "ann", "bob")
        return made

    async def apply(self, proposal: Proposal, by: Principal = OTTO) -> int:
        return await self.reviewed.apply(proposal.id, by=by, engine=self.engine)

    async def state(self, proposal: Proposal) -> str:
        return (await self.proposals.get(proposal.id)).state


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = load_embedded()
    yield made
    made.close()


@pytest.fixture
def world(database: Database, tmp_path: Path, engine: Engine) -> World:
    return World(database, tmp_path, engine)


@pytest.mark.parametrize("name", WAYS)
async def test_one_person_does_not_weaken_and_two_approvals_do(world: World, name: str) -> None:
    path, value = WAYS[name]
    before = await world.store.refresh()
    with pytest.raises(NeedsApproval, match="takes 2 registered approvers") as refused:
        await world.store.set(path, value, author=OLGA, reason="alone")
    assert (refused.value.http_status, refused.value.exit_status, refused.value.where) == (403, 1, path)
    assert await world.store.refresh() == before
    assert world.recorder.entries == []
    made = await world.approved(path, value)
    assert made.summary["weakens"]
    assert all(way in refused.value.message for way in made.summary["weakens"])
    assert await world.apply(made) == 1
    assert await world.store.set(path, value, author=OLGA, reason="again") == 1, "it stands as it was proposed"
    assert await world.state(made) == "done"


async def test_the_record_names_the_proposal_its_author_and_who_made_the_change(world: World) -> None:
    made = await world.approved("modes.gateway/purpose", {"mode": "off"})
    await world.apply(made)
    entry = next(entry for entry in world.recorder.entries if entry.kind == "config_change")
    olga, otto = [await MemoryCommitments().ref("home", person.id) for person in (OLGA, OTTO)]
    assert (entry.actor, entry.subject) == (otto, "config/modes.gateway/purpose")
    assert entry.details == {"action": "set", "version": 1, "proposal": made.id, "proposed_by": olga}
    assert entry.digests["content"] == made.digest
    (row,) = await world.store.history()
    assert (row.action, row.path, row.reason, row.author_ref) == (
        "config_change.set",
        "modes.gateway/purpose",
        "a migration",
        otto,
    )
    decided = [entry for entry in world.recorder.entries if entry.kind == "policy_change" and entry.decision]
    assert [(one.details["action"], one.decision and one.decision["allow"]) for one in decided] == [("activate", True)]


async def test_what_is_signed_is_the_exact_edit(world: World) -> None:
    made = await world.propose("exemptions.EX-2", WIDE)
    content = (await world.proposals.content(made.id)).decode()
    assert '"path":"exemptions.EX-2"' in content
    assert '"covers' not in content
    assert '"weakens":["exemption EX-2 from admission/gpu-quota covers every subject"]' in content
    assert made.summary["differences"] == [
        {"path": "exemptions.EX-2", "before": None, "after": {"id": "EX-2", **WIDE}, "added": True, "removed": False}
    ]
    assert made.revision != await world.store.refresh()


@pytest.mark.parametrize("people", [(), ("ann",)])
async def test_fewer_than_two_people_are_refused(world: World, people: tuple[str, ...]) -> None:
    made = await world.propose("modes.gateway/purpose", {"mode": "off"})
    await world.sign(made, *people)
    with pytest.raises(Refused, match=f"{len(people)} of 2 approvals"):
        await world.apply(made)
    assert await world.store.version() == 0
    assert await world.state(made) == "open"
    assert not [entry for entry in world.recorder.entries if entry.kind == "config_change"]


async def test_as_many_people_as_are_asked_for_before_the_change(world: World) -> None:
    world.file.write_text(FILE.replace("home: {required_approvals: 2}", "home: {required_approvals: 3}"))
    with pytest.raises(NeedsApproval, match="takes 3 registered approvers"):
        await world.store.set("tenants.home.required_approvals", 2, author=OLGA, reason="quicker")
    made = await world.approved("tenants.home.required_approvals", 2)
    with pytest.raises(Refused, match="2 of 3 approvals"):
        await world.apply(made)
    await world.sign(made, "cid")
    assert await world.apply(made) == 1


async def test_the_authors_own_signature_does_not_count(world: World) -> None:
    made = await world.propose("modes.gateway/purpose", {"mode": "off"})
    await world.sign(made, "ann")
    with pytest.raises(Refused, match="who proposed the change cannot approve it"):
        await world.sign(made, "olga")
    with pytest.raises(Refused, match="1 of 2 approvals"):
        await world.apply(made)


async def test_a_withdrawn_proposal_is_made_no_more(world: World) -> None:
    made = await world.approved("modes.gateway/purpose", {"mode": "off"})
    await world.proposals.withdraw(made.id, by=OLGA, reason="not needed")
    with pytest.raises(Refused, match="there is no open proposal"):
        await world.apply(made)
    assert await world.store.version() == 0


async def test_a_proposal_is_made_once(world: World) -> None:
    made = await world.approved("modes.gateway/purpose", {"mode": "off"})
    assert await world.apply(made) == 1
    with pytest.raises(Refused, match="there is no open proposal"):
        await world.apply(made)
    await world.store.unset("modes.gateway/purpose", author=OLGA, reason="done")
    with pytest.raises(Refused, match="there is no open proposal"):
        await world.apply(made)
    assert await world.store.version() == 2


async def test_of_two_who_apply_at_once_one_does(world: World) -> None:
    made = await world.approved("modes.gateway/purpose", {"mode": "off"})
    results = await asyncio.gather(*(world.apply(made) for _ in range(4)), return_exceptions=True)
    assert results.count(1) == 1
    assert all(result == 1 or isinstance(result, (Conflict, Refused)) for result in results)
    assert await world.store.version() == 1


async def test_the_change_and_the_end_of_its_proposal_are_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures that outlived their change could make it again later."""
    made = await world.approved("modes.gateway/purpose", {"mode": "off"})

    async def gone(*_: Any, **__: Any) -> None:
        raise Conflict("the proposal changed meanwhile")

    monkeypatch.setattr("policies.reviewed.close_in", gone)
    with pytest.raises(Conflict):
        await world.apply(made)
    assert await world.store.version() == 0


async def test_without_a_record_nothing_is_made_and_the_proposal_stays(world: World) -> None:
    made = await world.approved("modes.gateway/purpose", {"mode": "off"})
    world.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await world.apply(made)
    world.recorder.broken = False
    assert (await world.store.version(), await world.state(made)) == (0, "open")
    assert await world.apply(made) == 1


# --- changed meanwhile ------------------------------------------------------------------------------------------------


async def test_another_value_at_the_path_needs_another_proposal(world: World) -> None:
    made = await world.approved("exemptions.EX-1.expires", "2027-03-01T00:00:00Z")
    await world.store.revoke_exemption("EX-1", author=OLGA, reason="over")
    with pytest.raises(Conflict, match="propose it again"):
        await world.apply(made)
    assert (await world.store.version(), await world.state(made)) == (1, "open")


@pytest.mark.parametrize(("path", "value"), [("requests_per_minute", 10), ("controller_namespaces", ["kube-system", "lab"])])
async def test_so_it_does_where_it_would_weaken_as_before(world: World, path: str, value: Any) -> None:
    made = await world.approved(path, value)
    other = {"requests_per_minute": 5, "controller_namespaces": []}[path]
    await world.store.set(path, other, author=OLGA, reason="meanwhile")
    with pytest.raises(Conflict, match="is not what was signed"):
        await world.apply(made)


async def test_a_file_that_changed_the_value_needs_another_proposal(world: World) -> None:
    made = await world.approved("tenants.acme.required_approvals", 2)
    world.file.write_text(FILE.replace("required_approvals: 3", "required_approvals: 5"))
    with pytest.raises(Conflict, match="propose it again"):
        await world.apply(made)


async def test_what_changed_elsewhere_does_not_matter(world: World) -> None:
    made = await world.approved("modes.gateway/purpose", {"mode": "off"})
    await world.store.set("requests_per_minute", 5, author=OLGA, reason="less")
    assert await world.apply(made) == 2


async def test_an_edit_that_now_weakens_more_than_was_signed_needs_another_proposal(world: World) -> None:
    """The value at the path is the same, but the general mode, beside which it weakened nothing, is gone."""
    world.file.write_text(FILE.replace("modes:\n", "modes:\n  - {rule: gateway/purpose, mode: warn}\n"))
    made = await world.approved("modes.gateway/purpose[tenant=acme]", {"mode": "warn"})
    assert made.summary["weakens"] == []
    world.file.write_text(FILE)
    with pytest.raises(
        Conflict, match="what nobody has signed: gateway/purpose: enforce becomes warn for acme; propose it again"
    ):
        await world.apply(made)
    assert (await world.store.version(), await world.state(made)) == (0, "open")


async def test_a_taking_back_whose_value_is_gone_needs_another_proposal(world: World) -> None:
    await world.store.set("modes.admission/approved-model[namespace=prod]", {"mode": "enforce"}, author=OLGA, reason="strict")
    made = await world.approved("modes.admission/approved-model[namespace=prod]", action="unset")
    assert made.summary["weakens"] == ["admission/approved-model: enforce becomes warn in namespace prod"]
    with pytest.raises(NeedsApproval):
        await world.store.unset("modes.admission/approved-model[namespace=prod]", author=OLGA, reason="alone")
    assert await world.apply(made) == 2
    await world.store.set("modes.admission/approved-model[namespace=lab]", {"mode": "enforce"}, author=OLGA, reason="strict")
    again = await world.approved("modes.admission/approved-model[namespace=lab].mode", "off")
    await world.apply(again)
    gone = await world.propose("modes.admission/approved-model[namespace=lab]", action="unset")
    await world.store.unset("modes.admission/approved-model[namespace=lab]", author=OLGA, reason="quicker")
    with pytest.raises(Conflict, match="can be made no more"):
        await world.apply(gone)


# --- who may, and what can be proposed --------------------------------------------------------------------------------


async def test_other_tenants_ask_an_operator_of_the_installation(world: World) -> None:
    path, value = "modes.gateway/purpose[tenant=acme]", {"mode": "warn"}
    with pytest.raises(NeedsApproval, match="Have an operator of home propose it"):
        await world.store.set(path, value, author=GUEST, reason="ours")
    with pytest.raises(Forbidden):
        await world.propose(path, value, by=GUEST)
    made = await world.approved(path, value)
    with pytest.raises(Forbidden):
        await world.apply(made, by=GUEST)
    assert await world.store.version() == 0


async def test_a_refusal_says_what_to_do_where_nobody_is_registered(world: World) -> None:
    with pytest.raises(NeedsApproval) as refused:
        await world.store.add_exemption(id="EX-2", **WIDE, author=OLGA)
    for words in ("config propose", "--propose", "policy bundle approve", "config apply", "identity approver add", "a file"):
        assert words in refused.value.message


async def test_a_wide_exemption_is_proposed_with_the_checks_of_one_that_is_added(world: World) -> None:
    with pytest.raises(BadInput, match="ticket"):
        await world.reviewed.propose_exemption(id="EX-2", **(WIDE | {"ticket": ""}), by=OLGA)
    with pytest.raises(Conflict, match="exists"):
        await world.reviewed.propose_exemption(id="EX-1", **WIDE, by=OLGA)
    made = await world.reviewed.propose_exemption(id="EX-2", **WIDE, by=OLGA)
    await world.sign(made, "ann", "bob")
    await world.apply(made)
    assert {found.exemption.id: found.state for found in await world.store.list_exemptions()}["EX-2"] == "active"
    assert [entry.kind for entry in world.recorder.entries if not entry.decision and entry.kind != "policy_change"] == [
        "exemption"
    ]


BAD_PROPOSALS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "a freeze": ({"path": "freezes", "value": []}, BadInput),
    "nothing changes": ({"path": "requests_per_minute", "action": "unset"}, NotFound),
    "an unknown key": ({"path": "tenants.acme.teams.core.gpus", "value": 1}, BadInput),
    "no reason": ({"path": "requests_per_minute", "value": 1, "reason": " "}, BadInput),
    "no role": ({"path": "requests_per_minute", "value": 1, "by": Principal("p", "user", "home")}, Forbidden),
}


@pytest.mark.parametrize("name", BAD_PROPOSALS)
async def test_what_cannot_be_set_cannot_be_proposed(world: World, name: str) -> None:
    given, error = BAD_PROPOSALS[name]
    with pytest.raises(error):
        await world.propose(**given)
    assert await world.proposals.list(None) == []


async def test_a_change_that_changes_nothing_is_not_proposed(world: World) -> None:
    await world.store.set("requests_per_minute", 1, author=OLGA, reason="x")
    with pytest.raises(BadInput, match="changes nothing"):
        await world.propose("requests_per_minute", 1)


async def test_a_bundle_is_not_applied_as_configuration(world: World) -> None:
    made = await world.proposals.propose("rollback", b"{}", revision="", summary={}, by=OLGA, reason="x")
    with pytest.raises(BadInput, match="policy rollout start"):
        await world.apply(made)


async def test_a_file_may_say_what_it_likes(world: World) -> None:
    """Whoever deploys the operator's files has reviewed them."""
    world.file.write_text(FILE.replace("modes:\n", 'modes:\n  - {rule: gateway/purpose, mode: "off"}\n'))
    assert [mode.mode for mode in (await world.store.effective()).modes if mode.rule == "gateway/purpose"] == ["off"]


async def test_a_repair_of_what_was_unusable_is_held_to_the_defaults(world: World) -> None:
    world.file.write_text(FILE.replace("mode: warn", "mode: wrong"))
    with pytest.raises(NeedsApproval, match="enforce becomes warn"):
        await world.store.set("modes.admission/approved-model.mode", "warn", author=OLGA, reason="repair")
