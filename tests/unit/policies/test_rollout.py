"""Policy changes: two people for the exact content, tried before they decide, gone again by themselves, and no call lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from core import dsse
from core.canonical import sha256
from core.decision import MANDATORY, Decision, Domain, Violation
from core.errors import (
    BadInput,
    BadSignature,
    Broken,
    ConfigError,
    Conflict,
    EvidenceUnavailable,
    Forbidden,
    NotFound,
    Refused,
    Unavailable,
)
from core.principal import Principal
from core.settings import Policy
from policies import distribution
from policies.check import Loaded, load_tree
from policies.live import LiveEngine
from policies.proposals import PREDICATE, Proposal, Proposals, sign_approval
from policies.rollout import Bounds, Director, Rollouts, Stage, State, Tally, chosen, compare
from policies.running import running_rules
from policies.tables import ProposalRow, SignatureRow
from storage.database import Database
from tests.corpus import cases
from tests.simulators.ports import FixedClock, MemoryApprovers, MemoryCommitments, MemoryConfig, MemoryRecorder
from tests.unit.policies import trees

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OPERATOR = Principal("local:op", "operator", "acme", roles=frozenset({"operator"}))
STRICT = """\
default checked := false

checked if is_string(input.request.kind)

deny contains {"path": "kind", "args": {}} if input.request.kind == "Job"
"""
ALLOWED = json.dumps(next(case.input for case in cases("admission") if case.expect.get("allow") is True))
ANY = Bounds(denials=1.0, failures=1.0, compared=1)


@dataclass
class Keeping(MemoryRecorder):
    bundles: dict[str, Mapping[str, bytes]] = field(default_factory=dict)

    def keep_bundle(self, revision: str, files: Mapping[str, bytes]) -> None:
        self.bundles[revision] = files

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [dict(entry.details) for entry in self.entries if entry.kind == kind]


def job(tenant: str = "acme", kind: str = "Job") -> dict[str, Any]:
    """An admission that the shipped rules allow, by one tenant or another."""
    document: dict[str, Any] = json.loads(ALLOWED.replace("acme", tenant))
    document["request"]["kind"] = kind
    return document


async def ask(engine: LiveEngine, document: dict[str, Any], domain: Domain = "admission") -> Decision:
    """A decision by what runs as of now; what a trial made of it is counted."""
    await engine.refresh()
    decision = await engine.decide_async(domain, document)
    await engine.refresh()
    return decision


@pytest.fixture(scope="module")
def shipped() -> Loaded:
    return load_tree()


@pytest.fixture(scope="module")
def stricter(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_tree(None, [trees.extra(tmp_path_factory.mktemp("own"), "admission/no-jobs", STRICT)])


@dataclass
class Bench:
    database: Database
    recorder: Keeping
    clock: FixedClock
    config: MemoryConfig
    approvers: MemoryApprovers
    proposals: Proposals
    rollouts: Rollouts
    director: Director
    policy: Policy
    named: set[str]
    engines: list[LiveEngine] = field(default_factory=list)
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)

    async def engine(self, **more: Any) -> LiveEngine:
        made = LiveEngine(
            more.pop("policy", self.policy),
            self.database,
            recorder=self.recorder,
            clock=self.clock,
            tenant="acme",
            every_seconds=more.pop("every", None),
            **more,
        )
        self.engines.append(made)
        return await made.open()

    def approver(self, name: str, *, revoked: bool = False, roles: tuple[str, ...] = ("approver",)) -> Ed25519PrivateKey:
        key = self.keys.setdefault(name, Ed25519PrivateKey.generate())
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        key_id = dsse.read(
            dsse.sign(key, subject="x", digest="sha256:" + "0" * 64, predicate_type="t", predicate={}),
            predicate_type="t",
            fields="",
        ).key_id
        principal = Principal(f"person:{name}", "user", "acme", roles=frozenset(roles))
        self.approvers.people["acme", key_id] = (principal, raw, revoked)
        return key

    async def propose(self, loaded: Loaded, engine: LiveEngine, **more: Any) -> Proposal:
        data = distribution.build(loaded, wasm=None, tests=1, **more)
        return await self.proposals.propose_bundle(
            data, distribution.read(data), running=engine.base.loaded, by=OPERATOR, reason="tried"
        )

    async def sign(self, proposal: Proposal, *people: str, engine: LiveEngine) -> Decision:
        for name in people:
            envelope = sign_approval(self.approver(name), proposal, tenant="acme", issued_unix=1)
            decision = await self.proposals.approve(envelope, engine=engine)
        return decision

    async def approved(self, loaded: Loaded, engine: LiveEngine, **more: Any) -> Proposal:
        made = await self.propose(loaded, engine, **more)
        await self.sign(made, "ann", "bob", engine=engine)
        return made

    async def start(self, proposal: Proposal, engine: LiveEngine, stage: Stage, percent: int = 0, bounds: Bounds = ANY) -> None:
        await self.director.start(
            proposal.id, stage=stage, percent=percent, bounds=bounds, by=OPERATOR, reason="now", engine=engine
        )


@pytest.fixture
async def bench(database: Database, tmp_path: Path, shipped: Loaded) -> AsyncIterator[Bench]:
    recorder, clock, config, approvers = Keeping(), FixedClock(), MemoryConfig(), MemoryApprovers()
    proposals = Proposals(
        database,
        recorder=recorder,
        commitments=MemoryCommitments(),
        clock=clock,
        config=config,
        directory=approvers,
        tenant="acme",
    )
    rollouts, named = Rollouts(database, clock), set[str]()

    async def names() -> set[str]:
        return named

    director = Director(rollouts, proposals, tenant="acme", named=names)
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(distribution.build(shipped, wasm=None, tests=1))
    policy = Policy(bundle=str(file))
    made = Bench(database, recorder, clock, config, approvers, proposals, rollouts, director, policy, named)
    yield made
    for engine in made.engines:
        await engine.close()


# --- two people for the exact content ---------------------------------------------------------------------------------


async def test_two_people_and_then_it_decides(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.propose(stricter, engine)
    assert made.summary["added"] == ["admission/no-jobs"]
    for people in ((), ("ann",)):
        await bench.sign(made, *people, engine=engine) if people else None
        with pytest.raises(Refused, match=f"{len(people)} of 2 approvals"):
            await bench.start(made, engine, "full")
    assert (await ask(engine, job())).allow
    await bench.sign(made, "bob", engine=engine)
    await bench.start(made, engine, "full")
    decision = await ask(engine, job())
    assert [found.rule for found in decision.violations] == ["admission/no-jobs"]
    assert decision.policy_revision == stricter.bundle.revision
    assert stricter.bundle.revision in bench.recorder.bundles, "kept, or its decisions could not be recomputed"
    assert "admission/no-jobs" in engine.rules
    assert set(await running_rules(bench.database, bench.policy, bench.clock)) == set(engine.rules)
    kinds = [entry.kind for entry in bench.recorder.entries]
    assert kinds.count("approval") == 2
    assert [item["action"] for item in bench.recorder.of("policy_change")] == [
        "propose",
        "activate",
        "activate",
        "activate",
        "full",
    ]
    assert (await bench.proposals.get(made.id)).state == "done"


REFUSED_SIGNATURES = {
    "the author": ("op", {}, "who proposed"),
    "twice": ("ann", {}, "approved this change already"),
    "a revoked key": ("eve", {"revoked": True}, "revoked"),
    "not an approver": ("eve", {"roles": ()}, "role approver"),
}


@pytest.mark.parametrize("name", REFUSED_SIGNATURES)
async def test_signatures_that_do_not_count(bench: Bench, stricter: Loaded, name: str) -> None:
    engine = await bench.engine()
    made = await bench.propose(stricter, engine)
    await bench.sign(made, "ann", engine=engine)
    who, how, why = REFUSED_SIGNATURES[name]
    key = bench.approver(who, **how)
    if who == "op":
        key_id = list(bench.approvers.people)[-1]
        _, raw, revoked = bench.approvers.people[key_id]
        bench.approvers.people[key_id] = (replace(OPERATOR, roles=frozenset({"approver"})), raw, revoked)
    with pytest.raises(Refused, match=why):
        await bench.proposals.approve(sign_approval(key, made, tenant="acme", issued_unix=1), engine=engine)
    assert len((await bench.proposals.get(made.id)).signatures) == 1
    assert bench.recorder.entries[-1].kind == "approval", "the refusal is on record"


async def test_statements_about_something_else(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.propose(stricter, engine)
    key = bench.approver("ann")
    other = replace(made, digest="sha256:" + "7" * 64)
    with pytest.raises(Refused, match="the statement is about sha256:777"):
        await bench.proposals.approve(sign_approval(key, other, tenant="acme", issued_unix=1), engine=engine)
    with pytest.raises(Refused, match="no open proposal"):
        await bench.proposals.approve(sign_approval(key, replace(made, id="x"), tenant="acme", issued_unix=1), engine=engine)
    with pytest.raises(BadInput, match="another installation"):
        await bench.proposals.approve(sign_approval(key, made, tenant="evil", issued_unix=1), engine=engine)
    stranger = Ed25519PrivateKey.generate()
    with pytest.raises(Refused, match="not registered"):
        await bench.proposals.approve(sign_approval(stranger, made, tenant="acme", issued_unix=1), engine=engine)
    no = {"decision": "reject", "tenant": "acme", "change": "bundle", "issued_unix": 1}
    envelope = dsse.sign(key, subject=made.id, digest=made.digest, predicate_type=PREDICATE, predicate=no)
    with pytest.raises(BadInput, match="must approve"):
        await bench.proposals.approve(envelope, engine=engine)
    with pytest.raises(BadInput):
        await bench.proposals.approve(b"{}", engine=engine)
    forged = bytearray(sign_approval(key, made, tenant="acme", issued_unix=1))
    at = forged.index(b'"sig":"') + 12
    forged[at] = forged[at] ^ 1 if chr(forged[at] ^ 1).isalnum() else ord("A") + (forged[at] == ord("A"))
    with pytest.raises(Refused, match="not valid"):
        await bench.proposals.approve(bytes(forged), engine=engine)


async def test_who_may_propose_and_why(bench: Bench, stricter: Loaded) -> None:
    data = distribution.build(stricter, wasm=None, tests=1)
    found = distribution.read(data)
    engine = await bench.engine()
    running = engine.base.loaded
    for by in (replace(OPERATOR, roles=frozenset({"auditor"})), replace(OPERATOR, tenant="other")):
        with pytest.raises(Forbidden):
            await bench.proposals.propose_bundle(data, found, running=running, by=by, reason="x")
    for reason in ("", "  ", "two\nlines", "x" * 1001):
        with pytest.raises(BadInput, match="reason"):
            await bench.proposals.propose_bundle(data, found, running=running, by=OPERATOR, reason=reason)
    same = distribution.build(running, wasm=None, tests=1)
    with pytest.raises(BadInput, match="run already"):
        await bench.proposals.propose_bundle(same, distribution.read(same), running=running, by=OPERATOR, reason="x")
    assert await bench.proposals.list(None) == []


async def test_without_a_record_nothing_happens(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    bench.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await bench.propose(stricter, engine)
    with pytest.raises(EvidenceUnavailable):
        await bench.start(made, engine, "full")
    with pytest.raises(EvidenceUnavailable):
        await bench.proposals.withdraw(made.id, by=OPERATOR, reason="x")
    assert (await bench.rollouts.state()).version == 0
    assert [one.state for one in await bench.proposals.list(None)] == ["open"]


async def test_withdrawn_is_over(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.proposals.withdraw(made.id, by=OPERATOR, reason="no")
    with pytest.raises(Refused, match="no open proposal"):
        await bench.start(made, engine, "shadow")
    with pytest.raises(Conflict, match="withdrawn"):
        await bench.proposals.withdraw(made.id, by=OPERATOR, reason="no")
    with pytest.raises(NotFound):
        await bench.proposals.withdraw("none", by=OPERATOR, reason="no")


async def test_content_changed_in_the_database_does_not_decide(bench: Bench, stricter: Loaded, shipped: Loaded) -> None:
    """People signed other bytes: what is stored must still be those."""
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "full")
    async with bench.database.session() as session:
        content = distribution.build(shipped, wasm=None, tests=2)
        await session.execute(update(ProposalRow).where(ProposalRow.id == made.id).values(content=content))
    await engine.refresh()
    assert engine.revision == shipped.bundle.revision, "what decided before goes on"
    assert [item["found"] for item in bench.recorder.of("alert")] == ["policies not loaded"]
    with pytest.raises(Broken, match="not what was approved"):
        await bench.engine()


# --- trials -----------------------------------------------------------------------------------------------------------


async def test_shadow_counts_and_decides_nothing(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "shadow")
    for kind in ("Job", "Deployment", "Job"):
        assert (await ask(engine, job(kind=kind))).allow
    await engine.refresh()
    assert await bench.rollouts.tally(1) == Tally(compared=3, denied=2)
    found = bench.recorder.of("finding")
    assert [(item["difference"], item["rules"]) for item in found] == [("denied", ["admission/no-jobs"])] * 2
    assert engine.revision != stricter.bundle.revision


async def test_percentage_decides_for_the_same_tenants(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "percentage", 50)
    names = [f"tenant-{number}" for number in range(24)]
    first = [(await ask(engine, job(name))).allow for name in names]
    other = await bench.engine()
    assert [(await ask(other, job(name))).allow for name in names] == first
    assert set(first) == {True, False}
    assert first == [not chosen(made.id, name, 50) for name in names]


@given(candidate=st.uuids().map(str), tenant=st.text(max_size=20), small=st.integers(1, 99), large=st.integers(1, 99))
def test_who_is_chosen_stays_chosen(candidate: str, tenant: str, small: int, large: int) -> None:
    small, large = sorted((small, large))
    assert not chosen(candidate, tenant, small) or chosen(candidate, tenant, large)
    assert chosen(candidate, tenant, 100)
    assert not chosen(candidate, tenant, 0)


async def test_a_trial_that_denies_too_much_ends_by_itself(bench: Bench, stricter: Loaded) -> None:
    """Counted by two processes together: neither has seen enough alone."""
    engine, other = await bench.engine(), await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "percentage", 99, bounds=Bounds(denials=0.2, failures=1.0, compared=10))
    for at in range(6):
        await ask(engine, job(f"t{at}"))
        await ask(other, job(f"t{at}", kind="Deployment"))
    for one in (engine, other, engine):
        await one.refresh()
    state = await bench.rollouts.state()
    assert (state.action, state.candidate, state.stage) == ("returned", "", "full")
    assert "newly denied" in state.reason
    assert [item["found"] for item in bench.recorder.of("alert")] == ["trial ended"]
    for at in range(6):
        assert (await ask(engine, job(f"t{at}"))).allow


async def test_a_trial_that_fails_ends_by_itself(bench: Bench, tmp_path: Path) -> None:
    failing = trees.extra(
        tmp_path / "own",
        "admission/broken",
        'default checked := false\n\nchecked if is_string(input.request.kind)\n\ndeny contains x if {\n\tsome x in input.request.containers\n\tx.path == "never"\n}\n',
    )
    engine = await bench.engine()
    made = await bench.approved(load_tree(None, [failing]), engine)
    await bench.start(made, engine, "shadow", bounds=Bounds(compared=3))
    await engine.refresh()
    assert engine._plan is not None
    assert engine._plan.candidate is not None
    engine._plan.candidate.engine.close()  # an engine whose interpreter has died answers engine/unavailable
    for _ in range(3):
        assert (await ask(engine, job())).allow
    await engine.refresh()
    assert "it failed in 3 of 3" in (await bench.rollouts.state()).reason


async def test_one_trial_at_a_time_and_stopping_it(bench: Bench, stricter: Loaded, tmp_path: Path) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    more = load_tree(None, [trees.extra(tmp_path / "b", "admission/no-cronjobs", STRICT.replace("Job", "CronJob"))])
    second = await bench.approved(more, engine)
    with pytest.raises(NotFound):
        await bench.director.stop(by=OPERATOR, reason="x")
    await bench.start(made, engine, "shadow")
    with pytest.raises(Conflict, match="being tried"):
        await bench.start(second, engine, "shadow")
    with pytest.raises(Forbidden):
        await bench.director.stop(by=replace(OPERATOR, roles=frozenset({"auditor"})), reason="x")
    state = await bench.director.stop(by=OPERATOR, reason="enough")
    assert (state.candidate, state.base, state.stage) == ("", "", "full")
    await bench.start(second, engine, "shadow")


BAD_STARTS: dict[str, tuple[Stage, int]] = {
    "a share without the stage": ("shadow", 10),
    "the stage without a share": ("percentage", 0),
    "all of them": ("percentage", 100),
    "less than none": ("percentage", -1),
}


@pytest.mark.parametrize("name", BAD_STARTS)
async def test_bad_starts(bench: Bench, stricter: Loaded, name: str) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    with pytest.raises(BadInput):
        await bench.start(made, engine, *BAD_STARTS[name])
    assert (await bench.rollouts.state()).version == 0


async def test_two_who_start_at_once(bench: Bench, stricter: Loaded) -> None:
    """One row per version: the second one is told, not merged."""
    before = await bench.rollouts.state()
    both = [bench.rollouts.advance(before, action="full", base=base, author="x", reason="x") for base in "ab"]
    ended = await asyncio.gather(*both, return_exceptions=True)
    (won,) = [state for state in ended if isinstance(state, State)]
    assert [type(error) for error in ended if error is not won] == [Conflict]
    assert (await bench.rollouts.state()).base == won.base


async def test_the_domain_bundle_never_asks_a_candidate(bench: Bench, shipped: Loaded) -> None:
    """A bundle whose approval rule grants everything cannot approve itself while it is tried."""
    modules = dict(shipped.bundle.modules)
    path = "rules/bundle/activation/activation.rego"
    modules[path] = modules[path].replace("found < required", "found < 0")
    lax = distribution.read(distribution.build(replace_modules(shipped, modules), wasm=None, tests=0)).loaded
    engine = await bench.engine()
    made = await bench.approved(lax, engine)
    await bench.start(made, engine, "percentage", 99)
    for at in range(8):
        document = trees.bundle_input()
        document["request"]["principal"] = {**document["request"]["principal"], "tenant": f"t{at}", "roles": ["operator"]}
        document["facts"] = {
            "proposal": {"change": "bundle", "digest": document["request"]["digest"], "author": "a", "state": "open"}
        }
        decision = await engine.decide_async("bundle", document)
        assert (decision.allow, decision.policy_revision) == (False, shipped.bundle.revision)


def replace_modules(loaded: Loaded, modules: Mapping[str, str]) -> Loaded:
    return replace(loaded, bundle=replace(loaded.bundle, modules=modules))


# --- swapping ---------------------------------------------------------------------------------------------------------


async def test_a_swap_under_load_loses_no_call(bench: Bench, stricter: Loaded, shipped: Loaded) -> None:
    """Decisions under way are finished by the rules they began with; none is refused because an engine went away."""
    engine = await bench.engine(every=0.02)
    made = await bench.approved(stricter, engine)
    decisions: list[Decision] = []
    going = True

    async def ask(worker: int) -> None:
        number = 0
        while going:
            number += 1
            decisions.append(await engine.decide_async("admission", job(f"w{worker}-{number}")))
            await asyncio.sleep(0.002)  # as a door does, which waits for the next request

    workers = [asyncio.create_task(ask(worker)) for worker in range(8)]
    await bench.start(made, engine, "shadow")
    await asyncio.sleep(0.2)
    await bench.start(made, engine, "full")
    try:
        async with asyncio.timeout(60):
            while decisions[-1].policy_revision != stricter.bundle.revision:
                await asyncio.sleep(0.01)
    finally:
        going = False
        await asyncio.gather(*workers)
    assert {found.rule for decision in decisions for found in decision.violations} == {"admission/no-jobs"}
    assert {decision.policy_revision for decision in decisions} == {shipped.bundle.revision, stricter.bundle.revision}


async def test_what_retires_is_closed_when_its_last_decision_is_made(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    assert engine._plan is not None
    old = engine._plan.base
    with old.used() as kept:
        await bench.start(made, engine, "full")
        await engine.refresh()
        assert kept.decide("admission", job("late")).allow, "still open for who is in it"
    assert kept.decide("admission", job("later")).code == "engine/unavailable"


async def test_going_back_needs_two_people_too(bench: Bench, stricter: Loaded, shipped: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    with pytest.raises(NotFound, match="never decided"):
        await bench.director.propose_rollback(
            made.id, running=engine.base.loaded, configured=engine.configured, by=OPERATOR, reason="x"
        )
    await bench.start(made, engine, "full")
    await engine.refresh()
    back = await bench.director.propose_rollback(
        "", running=engine.base.loaded, configured=engine.configured, by=OPERATOR, reason="x"
    )
    assert back.summary["removed"] == ["admission/no-jobs"]
    with pytest.raises(Refused, match="0 of 2"):
        await bench.start(back, engine, "full")
    await bench.sign(back, "ann", "bob", engine=engine)
    with pytest.raises(BadInput, match="needs no trial"):
        await bench.start(back, engine, "shadow")
    await bench.start(back, engine, "full")
    await engine.refresh()
    assert engine.revision == shipped.bundle.revision
    again = await bench.approved(stricter, engine)
    with pytest.raises(BadInput, match="ran before"):
        await bench.start(again, engine, "full")
    once_more = await bench.director.propose_rollback(
        made.id, running=engine.base.loaded, configured=engine.configured, by=OPERATOR, reason="x"
    )
    await bench.sign(once_more, "ann", "bob", engine=engine)
    await bench.start(once_more, engine, "full")
    await engine.refresh()
    assert engine.revision == stricter.bundle.revision


async def test_a_rule_that_configuration_names_cannot_go_away(bench: Bench, stricter: Loaded) -> None:
    """Its mode would make the configuration unusable at every door."""
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    bench.named.add("admission/my-own")
    with pytest.raises(BadInput, match="admission/my-own, which this bundle has not"):
        await bench.start(made, engine, "full")


# --- bundle files and keys --------------------------------------------------------------------------------------------


@pytest.fixture
def keyed(bench: Bench, tmp_path: Path, shipped: Loaded) -> Policy:
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    Path(str(bench.policy.bundle)).write_bytes(distribution.build(shipped, wasm=None, tests=1, serial=7, key=KEY))
    return bench.policy.model_copy(update={"verify_key": str(tmp_path / "key.pub")})


def put(policy: Policy, data: bytes) -> None:
    """Replaces the bundle file as a deployment does."""
    path = Path(str(policy.bundle))
    draft = path.with_suffix(".draft")
    draft.write_bytes(data)
    draft.replace(path)


async def test_a_newer_file_is_taken_an_older_one_is_not(
    bench: Bench, keyed: Policy, stricter: Loaded, shipped: Loaded
) -> None:
    engine = await bench.engine(policy=keyed)
    put(keyed, distribution.build(stricter, wasm=None, tests=1, serial=8, key=KEY))
    assert not (await ask(engine, job())).allow
    for serial, why in ((7, "is older than"), (8, "has the same serial as")):
        put(keyed, distribution.build(shipped, wasm=None, tests=1, serial=serial, key=KEY))
        assert not (await ask(engine, job(f"t{serial}"))).allow, "the last good one goes on deciding"
        assert why in bench.recorder.of("alert")[-1]["because"]
        with pytest.raises(Broken, match=why):
            await bench.engine(policy=keyed)
    await engine.refresh()
    assert len(bench.recorder.of("alert")) == 2, "said once each, not at every look"
    put(keyed, distribution.build(shipped, wasm=None, tests=1, serial=9, key=KEY))
    assert (await ask(engine, job("t9"))).allow


UNUSABLE = {
    "not signed": lambda shipped: distribution.build(shipped, wasm=None, tests=1, serial=9),
    "by another key": lambda shipped: distribution.build(
        shipped, wasm=None, tests=1, serial=9, key=Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    ),
    "cut": lambda shipped: distribution.build(shipped, wasm=None, tests=1, serial=9, key=KEY)[:-40],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_an_unusable_file_changes_nothing(bench: Bench, keyed: Policy, shipped: Loaded, name: str) -> None:
    engine = await bench.engine(policy=keyed)
    put(keyed, UNUSABLE[name](shipped))
    assert (await ask(engine, job())).allow
    assert [item["found"] for item in bench.recorder.of("alert")] == ["policies not loaded"]
    Path(str(keyed.bundle)).unlink()
    assert (await ask(engine, job("t2"))).allow
    with pytest.raises(ConfigError, match="cannot be read"):
        await bench.engine(policy=keyed)


async def test_an_approved_bundle_must_be_signed_where_a_key_is_asked_for(
    bench: Bench, keyed: Policy, stricter: Loaded, shipped: Loaded
) -> None:
    """It is tried out before it is put into effect: what no door could load would leave none that decides."""
    engine = await bench.engine(policy=keyed)
    made = await bench.approved(stricter, engine)
    with pytest.raises(BadSignature, match="not signed"):
        await bench.start(made, engine, "full")
    assert (await bench.rollouts.state()).version == 0
    signed = await bench.approved(stricter, engine, key=KEY)
    await bench.start(signed, engine, "full")
    assert (await ask(engine, job())).policy_revision == stricter.bundle.revision


# --- what a hostile reader tried -----------------------------------------------------------------------------------------


async def test_what_was_compared_with_other_rules_is_proposed_again(bench: Bench, stricter: Loaded, tmp_path: Path) -> None:
    """Two changes of the same rules, both approved: the second would silently undo the first."""
    engine = await bench.engine()
    other = load_tree(None, [trees.extra(tmp_path / "b", "admission/no-cronjobs", STRICT.replace("Job", "CronJob"))])
    first, second = await bench.approved(stricter, engine), await bench.approved(other, engine)
    await bench.start(first, engine, "full")
    await engine.refresh()
    with pytest.raises(Conflict, match="another change came between"):
        await bench.start(second, engine, "shadow")


async def test_signatures_do_not_move_to_other_content(bench: Bench, stricter: Loaded, shipped: Loaded) -> None:
    """Whoever writes the database can change the content and its digest; the envelopes still say what was signed."""
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    data = distribution.build(shipped, wasm=None, tests=3)
    values = {"content": data, "digest": sha256(data), "revision": shipped.bundle.revision}
    async with bench.database.session() as session:
        await session.execute(update(ProposalRow).where(ProposalRow.id == made.id).values(**values))
    with pytest.raises(Refused, match="0 of 2"):
        await bench.start(await bench.proposals.get(made.id), engine, "full")


@pytest.mark.parametrize("how", [{"revoked": True}, {"roles": ()}])
async def test_who_may_no_longer_approve_does_not_count(bench: Bench, stricter: Loaded, how: dict[str, Any]) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    bench.approver("bob", **how)
    with pytest.raises(Refused, match="1 of 2"):
        await bench.start(made, engine, "full")


async def test_a_copied_signature_is_one_persons(bench: Bench, stricter: Loaded) -> None:
    """A row that claims another person for the same envelope."""
    engine = await bench.engine()
    made = await bench.propose(stricter, engine)
    await bench.sign(made, "ann", engine=engine)
    async with bench.database.session() as session:
        row = (await session.scalars(select(SignatureRow))).one()
        copy = {
            name: getattr(row, name)
            for name in ("proposal_id", "key_id", "envelope", "decision_id", "record_id", "created_unix")
        }
        session.add(SignatureRow(id="x", person="ref:somebody", **copy))
    with pytest.raises(Refused, match="1 of 2"):
        await bench.start(made, engine, "full")


async def test_a_rollback_goes_where_was_signed(bench: Bench, stricter: Loaded, shipped: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "full")
    await engine.refresh()
    back = await bench.director.propose_rollback(
        "", running=engine.base.loaded, configured=engine.configured, by=OPERATOR, reason="x"
    )
    await bench.sign(back, "ann", "bob", engine=engine)
    async with bench.database.session() as session:
        await session.execute(update(ProposalRow).where(ProposalRow.id == back.id).values(summary={**back.summary, "to": "x"}))
    Path(str(bench.policy.bundle)).write_bytes(distribution.build(stricter, wasm=None, tests=1))
    with pytest.raises(Conflict, match="propose it again"):
        await bench.start(back, engine, "full")
    Path(str(bench.policy.bundle)).write_bytes(distribution.build(shipped, wasm=None, tests=1))
    await bench.start(back, engine, "full")
    assert (await bench.rollouts.state()).base == ""
    with pytest.raises(Refused, match="no open proposal"):
        await bench.start(back, engine, "full")


async def test_what_is_tried_is_not_withdrawn(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "shadow")
    with pytest.raises(Conflict, match="being tried"):
        await bench.proposals.withdraw(made.id, by=OPERATOR, reason="no")
    await bench.director.stop(by=OPERATOR, reason="no")
    await bench.proposals.withdraw(made.id, by=OPERATOR, reason="the team changed its mind")
    assert (await bench.proposals.get(made.id)).summary["withdrawn"] == "the team changed its mind"


async def test_a_module_that_nobody_can_compare_is_not_proposed(
    bench: Bench, stricter: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People read Rego; the Wasm module would decide."""
    engine = await bench.engine()
    data = distribution.build(stricter, wasm=b"\0asm something", tests=1)
    monkeypatch.setattr("policies.proposals.find_opa", lambda: None)
    with pytest.raises(Unavailable, match="opa program"):
        await bench.proposals.propose_bundle(data, distribution.read(data), running=engine.base.loaded, by=OPERATOR, reason="x")
    assert await bench.proposals.list(None) == []


@pytest.mark.e2e
async def test_a_module_of_other_rules_is_not_proposed(bench: Bench, stricter: Loaded, shipped: Loaded) -> None:
    opa = distribution.find_opa()
    if opa is None:
        pytest.skip("no opa program: scripts/opa obtains it; name it in PORTCULLIS_OPA")
    engine = await bench.engine()
    other, own = (distribution.compile_wasm(loaded.bundle, opa) for loaded in (shipped, stricter))
    data = distribution.build(stricter, wasm=other, tests=1)
    with pytest.raises(Broken, match="not what these rules compile to"):
        await bench.proposals.propose_bundle(data, distribution.read(data), running=engine.base.loaded, by=OPERATOR, reason="x")
    data = distribution.build(stricter, wasm=own, tests=1)
    made = await bench.proposals.propose_bundle(
        data, distribution.read(data), running=engine.base.loaded, by=OPERATOR, reason="x"
    )
    await bench.sign(made, "ann", "bob", engine=engine)
    await bench.start(made, engine, "full")
    decision = await ask(engine, job())
    assert (decision.engine, decision.allow) == ("wasm", False)


async def test_a_bad_file_does_not_keep_a_trial_going(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "percentage", 99)
    assert not (await ask(engine, job("t1"))).allow
    put(bench.policy, b"junk")
    await bench.director.stop(by=OPERATOR, reason="enough")
    assert (await ask(engine, job("t1"))).allow
    assert not engine.trying


async def test_a_candidate_that_was_away_comes_back(bench: Bench, stricter: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "percentage", 99)

    async def away(*_: Any, **__: Any) -> bytes:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("policies.live.content_of", away)
        await engine.refresh()
        assert not engine.trying
    await engine.refresh()
    assert engine.trying


async def test_shadow_keeps_nobody_waiting(bench: Bench, stricter: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await bench.engine(every=60)
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "shadow")
    await engine.refresh()
    assert engine._plan is not None
    assert engine._plan.candidate is not None
    candidate, gate = engine._plan.candidate.engine, asyncio.Event()
    decide = candidate.decide_async

    async def slow(*given: Any) -> Decision:
        await gate.wait()
        return await decide(*given)

    monkeypatch.setattr(candidate, "decide_async", slow)
    async with asyncio.timeout(30):
        assert all([(await engine.decide_async("admission", job(f"t{at}"))).allow for at in range(3)])
    assert engine._plan.tally.compared == 0
    gate.set()
    async with asyncio.timeout(30):
        while engine._plan.tally.compared < 3:
            await asyncio.sleep(0.01)


async def test_what_is_not_compared_is_said_and_counted(
    bench: Bench, stricter: Loaded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("policies.live.MAX_WAITING", 2)
    engine = await bench.engine()
    await bench.start(await bench.approved(stricter, engine), engine, "shadow")
    await engine.refresh()
    for at in range(4):
        assert (await engine.decide_async("admission", job(f"t{at}"))).allow
    assert engine._plan is not None
    assert (engine._plan.skipped, caplog.text.count("not every decision")) == (2, 1)
    await engine.refresh()
    assert (await bench.rollouts.tally(1)).compared == 2


async def test_a_candidate_that_fails_decides_for_nobody(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "percentage", 99)
    await engine.refresh()
    assert engine._plan is not None
    assert engine._plan.candidate is not None
    engine._plan.candidate.engine.close()
    for at in range(4):
        assert (await engine.decide_async("admission", job(f"t{at}"))).allow
    assert engine._plan.tally.failed == 4


async def test_a_look_that_hangs_is_given_up(bench: Bench, stricter: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "full")

    async def hang(*_: Any) -> int:
        await asyncio.sleep(3600)
        return 0

    async def burst(*_: Any) -> int:
        raise OverflowError("something nobody foresaw")

    await engine.refresh()
    for broken in (hang, burst):
        with monkeypatch.context() as patch:
            patch.setattr("policies.live.LOOK_SECONDS", 0.05)
            patch.setattr(Rollouts, "version", broken)
            for _ in range(2):
                await engine.refresh()
            assert not (await engine.decide_async("admission", job(broken.__name__))).allow
        await engine.refresh()
    assert engine.revision == stricter.bundle.revision
    assert len(bench.recorder.of("alert")) == 2, "once for each outage"


async def test_a_door_follows_without_being_asked(bench: Bench, stricter: Loaded) -> None:
    """Its configuration may name a rule that came with the change, and is read before any decision."""
    engine = await bench.engine(every=0.02)
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "full")
    async with asyncio.timeout(30):
        while "admission/no-jobs" not in engine.rules:
            await asyncio.sleep(0.01)
    assert engine.revision == stricter.bundle.revision


async def test_a_rule_that_went_away_stays_nameable_while_the_process_runs(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "shadow")
    await engine.refresh()
    await bench.director.stop(by=OPERATOR, reason="enough")
    await engine.refresh()
    assert "admission/no-jobs" in engine.rules
    assert "admission/nothing" not in engine.rules


async def test_what_no_door_can_load_can_be_replaced(bench: Bench, stricter: Loaded, shipped: Loaded) -> None:
    """Commands judge by what decided before, or nobody could put anything else into effect."""
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "full")
    async with bench.database.session() as session:
        await session.execute(update(ProposalRow).where(ProposalRow.id == made.id).values(content=b"junk"))
    with pytest.raises(Broken):
        await bench.engine()
    repairing = await LiveEngine(
        bench.policy, bench.database, recorder=bench.recorder, clock=bench.clock, tenant="acme", every_seconds=None
    ).open(repair=True)
    bench.engines.append(repairing)
    back = await bench.director.propose_rollback(
        "", running=repairing.base.loaded, configured=repairing.configured, by=OPERATOR, reason="x"
    )
    await bench.sign(back, "ann", "bob", engine=repairing)
    await bench.start(back, repairing, "full")
    assert (await bench.engine()).revision == shipped.bundle.revision


async def test_the_rules_names_are_not_needed_to_stop_something(bench: Bench) -> None:
    put(bench.policy, b"junk")
    found = await running_rules(bench.database, bench.policy, bench.clock)
    assert "admission/anything" in found


async def test_a_state_and_its_proposals_end_are_one(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.proposals.withdraw(made.id, by=OPERATOR, reason="no")
    with pytest.raises(Conflict, match="changed meanwhile"):
        await bench.rollouts.advance(await bench.rollouts.state(), closes=made.id, action="full", author="x", reason="x")
    assert (await bench.rollouts.state()).version == 0


async def test_the_floor_only_rises(bench: Bench) -> None:
    for serial in (9, 8, 9):
        await bench.rollouts.raise_floor("k", serial, f"r{serial}")
    assert await bench.rollouts.floor("k") == (9, "r9")


async def test_beside_an_opa_server_changes_are_judged_here(bench: Bench) -> None:
    """A server that is behind, or gone, could not be told what to run otherwise."""
    policy = Policy(engine="opa", url="http://127.0.0.1:9", bundle=bench.policy.bundle)
    engine = await bench.engine(policy=policy)
    decision = await engine.decide_async("bundle", trees.bundle_input())
    assert (decision.engine, [found.rule for found in decision.violations][:1]) == ("embedded", ["bundle/activation"])
    assert (await engine.decide_async("admission", job())).code == "engine/unavailable"


async def test_a_database_that_is_away_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await bench.engine()

    async def away(*_: Any) -> int:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Rollouts, "version", away)
        for _ in range(3):
            assert (await ask(engine, job())).allow
    assert len(bench.recorder.of("alert")) == 1


async def test_a_trial_records_so_many_differences_and_counts_all(
    bench: Bench, stricter: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.live.MAX_DIFFERENCES", 2)
    engine = await bench.engine()
    await bench.start(await bench.approved(stricter, engine), engine, "shadow")
    for at in range(4):
        await ask(engine, job(f"t{at}"))
    assert len(bench.recorder.of("finding")) == 2
    assert (await bench.rollouts.tally(1)).denied == 4


async def test_a_difference_that_cannot_be_recorded_refuses_nobody(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    await bench.start(await bench.approved(stricter, engine), engine, "percentage", 1)
    await engine.refresh()
    bench.recorder.broken = True
    assert (await engine.decide_async("admission", job("tenant-0"))).policy_revision
    bench.recorder.broken = False
    await engine.refresh()
    assert (await bench.rollouts.tally(1)).compared == 1


async def test_a_wider_share_goes_on_with_the_same_candidate(bench: Bench, stricter: Loaded) -> None:
    """It is not loaded again: what it remembers stays, and nothing is in its way meanwhile."""
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    await bench.start(made, engine, "shadow")
    await engine.refresh()
    assert engine._plan is not None
    first = engine._plan.candidate
    await bench.start(made, engine, "percentage", 50)
    await engine.refresh()
    assert engine._plan.candidate is first
    assert engine.state.stage == "percentage"


async def test_what_retired_stays_counted(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    for _ in range(2):
        await engine.decide_async("admission", job())
    assert (engine.memory.hits, engine.memory.misses) == (1, 1)
    await bench.start(await bench.approved(stricter, engine), engine, "full")
    await engine.refresh()
    await engine.decide_async("admission", job())
    assert engine.memory.hits == 1
    assert engine.memory.misses >= 2


async def test_what_was_counted_is_written_at_the_end(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    await bench.start(await bench.approved(stricter, engine), engine, "shadow")
    await engine.refresh()
    await engine.decide_async("admission", job())
    assert (await bench.rollouts.tally(1)).compared == 0
    await engine.close()
    assert (await bench.rollouts.tally(1)).compared == 1


async def test_what_is_no_bundle_is_not_rolled_out(bench: Bench) -> None:
    engine = await bench.engine()
    made = await bench.proposals.propose("configuration", b"{}", revision="", summary={}, by=OPERATOR, reason="x")
    with pytest.raises(BadInput, match="config apply"):
        await bench.start(made, engine, "full")


async def test_another_tenants_operator_puts_nothing_into_effect(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.approved(stricter, engine)
    with pytest.raises(Forbidden):
        await bench.proposals.activate(made.id, made.digest, by=replace(OPERATOR, tenant="other"), engine=engine)


async def test_a_proposal_ends_once(bench: Bench, stricter: Loaded) -> None:
    engine = await bench.engine()
    made = await bench.propose(stricter, engine)
    await bench.proposals.close(made.id, "done")
    with pytest.raises(Conflict, match="changed meanwhile"):
        await bench.proposals.close(made.id, "withdrawn")


async def test_a_proposal_holds_so_much(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.proposals.MAX_CONTENT", 10)
    with pytest.raises(BadInput, match="at most 10"):
        await bench.proposals.propose("configuration", b"x" * 11, revision="", summary={}, by=OPERATOR, reason="x")


async def test_a_candidate_is_tried_here_also_beside_an_opa_server(bench: Bench, stricter: Loaded) -> None:
    here = await bench.engine()
    made = await bench.approved(stricter, here)
    policy = Policy(engine="opa", url="http://127.0.0.1:9", bundle=bench.policy.bundle)
    await bench.start(made, here, "shadow")
    engine = await bench.engine(policy=policy)
    assert engine._plan is not None
    assert engine._plan.candidate is not None
    assert engine._plan.candidate.engine.name == "embedded"


# --- comparing --------------------------------------------------------------------------------------------------------


def test_what_counts_as_a_difference() -> None:
    from policies.messages import own_violation
    from tests.unit.evidence.rig import decide

    allowed, denied = decide({}), decide({}, violations=(Violation("admission/x", "enforce", "", {}),))
    failed = decide({}, violations=(own_violation("engine/timeout"),))
    assert compare(allowed, allowed) is None
    assert compare(denied, denied) is None
    assert compare(allowed, denied) == "denied"
    assert compare(denied, allowed) == "allowed"
    assert compare(denied, decide({}, violations=(Violation("admission/y", "enforce", "", {}),))) == "otherwise"
    assert compare(allowed, replace(allowed, obligations={"max_tokens": 1})) == "otherwise"
    assert compare(allowed, failed) == "failed"
    assert compare(failed, failed) is None, "what no engine would decide is not the candidate's fault"


@given(
    tally=st.builds(Tally, st.integers(0, 10_000), st.integers(0, 10_000), st.just(0), st.just(0), st.integers(0, 10_000)),
    bounds=st.builds(Bounds, st.floats(0, 1), st.floats(0, 1), st.integers(1, 10_000)),
)
def test_bounds_hold_exactly_when_both_shares_do(tally: Tally, bounds: Bounds) -> None:
    within = tally.denied <= bounds.denials * tally.compared and tally.failed <= bounds.failures * tally.compared
    assert (bounds.broken_by(tally) == "") == (within or tally.compared < bounds.compared)


@pytest.mark.parametrize("wrong", [{"denials": -0.1}, {"failures": 1.1}, {"compared": 0}, {"compared": 10**7}])
def test_bounds_that_mean_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Bounds(**wrong)


def test_every_domain_of_core_is_judged() -> None:
    assert MANDATORY["bundle"] == ("bundle/activation", "bundle/approval")
