"""What runs: a sequence of states, each a row; and how a candidate compares to what decides, counted by every process.

    full         `base` decides
    shadow       `base` decides; the candidate is evaluated beside it, and the differences are counted
    percentage   as shadow, but for that share of tenants the candidate decides (always the same ones, so that asking again
                 does not find the laxer answer)

A candidate that denies or fails too often goes away by itself: whichever process sees it writes the next state.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from core.canonical import sha256
from core.decision import Decision, Domain
from core.errors import BadInput, Conflict, NotFound, Unavailable
from core.jsonread import loads_object
from core.ports import Clock, Engine
from core.principal import Principal
from policies import distribution
from policies.check import Loaded
from policies.proposals import Proposal, Proposals, as_content, check_editor, check_reason, close_in, difference
from policies.tables import FloorRow, ProposalRow, RolloutRow, TallyRow
from storage.database import Database

Stage = Literal["full", "shadow", "percentage"]
FAILURES = ("engine/", "policy/", "input/")
"""Rules of Python's own that deny when an engine or a bundle is at fault."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a candidate goes away by itself: shares of all compared decisions, once `compared` have been."""

    denials: float = 0.05
    failures: float = 0.01
    compared: int = 50

    def __post_init__(self) -> None:
        if not (0 <= self.denials <= 1 and 0 <= self.failures <= 1 and 1 <= self.compared <= 1_000_000):
            raise BadInput("bounds are shares between 0 and 1, after at least 1 compared decision")

    def broken_by(self, tally: Tally) -> str:
        """Why a candidate with this tally must go; empty when it may stay."""
        if tally.compared < self.compared:
            return ""
        if tally.failed > self.failures * tally.compared:
            return f"it failed in {tally.failed} of {tally.compared} compared decisions; the bound is {self.failures:.1%}"
        if tally.denied > self.denials * tally.compared:
            return f"it newly denied {tally.denied} of {tally.compared} compared decisions; the bound is {self.denials:.1%}"
        return ""


@dataclass(frozen=True, slots=True)
class Tally:
    """Of `compared` decisions: newly denied, newly allowed, otherwise different, and failed in the candidate."""

    compared: int = 0
    denied: int = 0
    allowed: int = 0
    otherwise: int = 0
    failed: int = 0

    def plus(self, kind: Difference | None) -> Tally:
        counted = {} if kind is None else {kind: getattr(self, kind) + 1}
        return replace(self, compared=self.compared + 1, **counted)


Difference = Literal["denied", "allowed", "otherwise", "failed"]


@dataclass(frozen=True, slots=True)
class State:
    """What runs since `version`. `base` and `candidate` are ids of proposals; an empty base is what the settings name."""

    version: int = 0
    action: str = "start"
    base: str = ""
    candidate: str = ""
    stage: Stage = "full"
    percent: int = 0
    bounds: Bounds = Bounds()
    author: str = ""
    reason: str = ""
    created_unix: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(current: Decision, candidate: Decision) -> Difference | None:
    """How the candidate's decision differs from the current one over the same input."""
    if candidate.violations and all(found.rule.startswith(FAILURES) for found in candidate.violations):
        # What the current one refuses for the same reason (an input that fits no schema) is not the candidate's fault.
        return None if _seen(current) == _seen(candidate) else "failed"
    if current.allow != candidate.allow:
        return "allowed" if candidate.allow else "denied"
    return None if _seen(current) == _seen(candidate) else "otherwise"


def _seen(decision: Decision) -> tuple[Any, ...]:
    """What a caller notices of a decision."""
    against = sorted((found.rule, found.mode, found.path) for found in decision.violations)
    return decision.allow, against, sorted(found.rule for found in decision.warnings), dict(decision.obligations)


def chosen(candidate: str, tenant: str, percent: int) -> bool:
    """Whether the candidate decides for `tenant`: the same answer in every process, and kept when the share grows."""
    bucket = int.from_bytes(hashlib.sha256(f"{candidate}:{tenant}".encode()).digest()[:8], "big") % 10_000
    return bucket < percent * 100


def tenant_of(domain: Domain, input: Mapping[str, Any]) -> str:
    """Whose request an input is about: by it, the share of a rollout is the same for all that one tenant asks."""
    config, request = input.get("config", {}), input.get("request", {})
    if domain == "admission":
        return str(config.get("tenant") or request.get("namespace", ""))
    return str(request.get("principal", {}).get("tenant", ""))


class Rollouts:
    """The sequence of states in the database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def version(self) -> int:
        async with self._database.session(reading=True) as session:
            return int(await session.scalar(select(func.max(RolloutRow.version))) or 0)

    async def state(self) -> State:
        """What runs now."""
        query = select(RolloutRow).order_by(RolloutRow.version.desc()).limit(1)
        async with self._database.session(reading=True) as session:
            row = (await session.scalars(query)).first()
        return State() if row is None else _state(row)

    async def history(self, limit: int = 50) -> list[State]:
        """The latest states, newest first."""
        query = select(RolloutRow).order_by(RolloutRow.version.desc()).limit(limit)
        async with self._database.session(reading=True) as session:
            return [_state(row) for row in (await session.scalars(query)).all()]

    async def tally(self, version: int) -> Tally:
        """The counts of every process together, for one state."""
        columns = (TallyRow.compared, TallyRow.denied, TallyRow.allowed, TallyRow.otherwise, TallyRow.failed)
        query = select(*(func.coalesce(func.sum(column), 0) for column in columns)).where(TallyRow.version == version)
        async with self._database.session(reading=True) as session:
            return Tally(*(int(value) for value in (await session.execute(query)).one()))

    async def count(self, version: int, worker: str, tally: Tally) -> None:
        """Keeps what one process has counted so far; it replaces what the process said before."""
        async with self._database.session() as session:
            await session.merge(TallyRow(version=version, worker=worker, **asdict(tally)))

    async def advance(self, before: State, *, closes: str = "", **changes: Any) -> State:
        """The state after `before`; with it the proposal `closes` is done. Conflict when something else happened meanwhile."""
        after = replace(before, version=before.version + 1, created_unix=self._clock.now_unix(), **changes)
        row = RolloutRow(**{**asdict(after), "bounds": asdict(after.bounds)})
        try:
            async with self._database.session() as session:
                session.add(row)
                if closes:
                    await close_in(session, closes, "done")
        except IntegrityError as error:
            raise Conflict("what runs was changed meanwhile; look again (portcullis policy rollout status)") from error
        return after

    async def ran(self, revision: str) -> bool:
        """Whether this revision decided before, through a proposal."""
        query = (
            select(RolloutRow.version)
            .join(ProposalRow, ProposalRow.id == RolloutRow.base)
            .where(ProposalRow.revision == revision)
            .limit(1)
        )
        async with self._database.session(reading=True) as session:
            return await session.scalar(query) is not None

    async def decided(self, id: str) -> bool:
        """Whether this proposal decided at some time."""
        async with self._database.session(reading=True) as session:
            return await session.scalar(select(RolloutRow.version).where(RolloutRow.base == id).limit(1)) is not None

    async def floor(self, key_id: str) -> tuple[int, str] | None:
        """The serial and revision of the newest bundle that was loaded under a verification key."""
        async with self._database.session(reading=True) as session:
            row = await session.get(FloorRow, key_id)
        return None if row is None else (row.serial, row.revision)

    async def raise_floor(self, key_id: str, serial: int, revision: str) -> None:
        """Keeps the larger serial, whoever comes first."""
        raised = update(FloorRow).where(FloorRow.key_id == key_id, FloorRow.serial < serial)
        try:
            async with self._database.session() as session:
                await session.execute(raised.values(serial=serial, revision=revision))
                if await session.get(FloorRow, key_id) is None:
                    session.add(FloorRow(key_id=key_id, serial=serial, revision=revision))
        except IntegrityError as error:
            raise Unavailable("another process has just kept the first serial of this key") from error


class Running(Engine, Protocol):
    """The engine that runs, and what Director asks of it."""

    async def probe(self, proposal: str) -> str:
        """Loads a proposal's bundle (empty: what the settings name) as a door would; its revision. Raises what would keep it from
        deciding."""
        ...


class Director:
    """Moves what runs: by people through the rules of the domain `bundle`, back without asking anybody."""

    def __init__(
        self, rollouts: Rollouts, proposals: Proposals, *, tenant: str, named: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        """`named`: the rules that modes and exemptions in the operator's configuration name."""
        self._named = named
        self._rollouts = rollouts
        self._proposals = proposals
        self._tenant = tenant

    async def start(
        self, id: str, *, stage: Stage, percent: int, bounds: Bounds, by: Principal, reason: str, engine: Running
    ) -> State:
        """Brings an approved bundle to a stage. Refused when the rules say no.

        Conflict while another one is being tried, and when something else decides than what the proposal was compared with;
        BadInput for a revision that ran before and was replaced (going back needs a proposal to roll back), for rules that the
        configuration names and the bundle has not; what `Running.probe` raises for a bundle that could not decide here.
        """
        check_reason(reason)
        if (stage == "percentage") != (0 < percent < 100):
            raise BadInput("--percent from 1 to 99 goes with --stage percentage")
        found, content = await self._proposals.verified(id)
        if found.change == "configuration":
            raise BadInput("this proposal changes the configuration; portcullis config apply puts it into effect", where=id)
        before = await self._rollouts.state()
        await self._fits(found, before, stage, engine)
        target = _target(found, content)
        if (revision := await engine.probe(target)) != found.revision:
            raise Conflict(f"it was proposed as {found.revision} and is {revision} now; propose it again", where=id)
        await self._proposals.activate(id, found.digest, by=by, engine=engine)
        more = {"stage": stage, "percent": percent, "bounds": asdict(bounds)}
        author = await self._recorded(by, stage, before, found.id, reason, **more)
        full = stage == "full"
        return await self._rollouts.advance(
            before,
            closes=id if full else "",
            action=stage,
            stage=stage,
            percent=percent,
            bounds=bounds,
            author=author,
            reason=reason,
            base=target if full else before.base,
            candidate="" if full else target,
        )

    async def _fits(self, found: Proposal, before: State, stage: Stage, engine: Running) -> None:
        """Raises what stands between this proposal and what runs."""
        if before.candidate not in ("", found.id):
            raise Conflict(
                "another bundle is being tried; end that first (portcullis policy rollout stop)", where=before.candidate
            )
        if found.change == "rollback" and stage != "full":
            raise BadInput("what ran before needs no trial; --stage full goes back to it at once", where="stage")
        if found.summary["from"] != engine.revision and found.change != "rollback":
            raise Conflict(
                f"it was compared with {found.summary['from']}, and {engine.revision} decides now: another change came between. "
                "Build it on what decides now and propose it again",
                where=found.id,
            )
        lost = sorted(set(await self._named()) - set(found.summary["rules"]))
        if lost:
            raise BadInput(
                f"modes or exemptions name {', '.join(lost[:5])}, which this bundle has not; take those out of the configuration first"
            )
        if found.change == "bundle" and await self._rollouts.ran(found.revision):
            raise BadInput(
                "these rules ran before and were replaced; going back to them needs portcullis policy bundle rollback",
                where=found.revision,
            )

    async def propose_rollback(
        self, to: str, *, running: Loaded, configured: Callable[[], Awaitable[Loaded]], by: Principal, reason: str
    ) -> Proposal:
        """Proposes to go back to `to`, a proposal that decided before, or to what the settings name when it is empty.

        BadInput when it decides now, NotFound when it never did.
        """
        state = await self._rollouts.state()
        if to == state.base:
            raise BadInput("that is what decides now", where=to or "settings")
        if to and not await self._rollouts.decided(to):
            raise NotFound("this proposal never decided; portcullis policy rollout history shows what did", where=to[:80])
        if to:
            data = await self._proposals.content(to)
            back = (await asyncio.to_thread(distribution.read, data, where=f"proposal {to}")).loaded
        else:
            back = await configured()
        content = as_content({"to": to or "settings", "revision": back.bundle.revision})
        summary = {**difference(running, back), "to": to}
        return await self._proposals.propose(
            "rollback", content, revision=back.bundle.revision, summary=summary, by=by, reason=reason
        )

    async def stop(self, *, by: Principal, reason: str) -> State:
        """Ends a trial: what decided before it goes on deciding. NotFound when none runs."""
        check_editor(by, self._tenant)
        check_reason(reason)
        before = await self._rollouts.state()
        if not before.candidate:
            raise NotFound("no bundle is being tried; going back to an older one is portcullis policy bundle rollback")
        author = await self._recorded(by, "stop", before, before.candidate, reason)
        return await self._rollouts.advance(
            before, action="stop", stage="full", percent=0, candidate="", author=author, reason=reason
        )

    async def _recorded(self, by: Principal, action: str, before: State, id: str, reason: str, **more: Any) -> str:
        """The record says why by the reason's digest: the text stands with the state, and may name people."""
        details = {"version": before.version + 1, "base": before.base, "candidate": before.candidate, **more}
        return await self._proposals.record(by, action, id, {"reason": sha256(reason.encode())}, details)


def _target(found: Proposal, content: bytes) -> str:
    """Which proposal's bundle decides once this one has taken effect; empty for what the settings name."""
    if found.change != "rollback":
        return found.id
    to = str(loads_object(content)["to"])
    return "" if to == "settings" else to


def _state(row: RolloutRow) -> State:
    return State(
        version=row.version,
        action=row.action,
        base=row.base,
        candidate=row.candidate,
        stage=row.stage,  # type: ignore[arg-type]  # only `advance` writes it
        percent=row.percent,
        bounds=Bounds(**row.bounds),
        author=row.author,
        reason=row.reason,
        created_unix=row.created_unix,
    )
