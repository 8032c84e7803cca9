"""Changes of policy as proposals: exact content, a difference to what runs, and signatures that count.

A proposal's digest is that of its content: a bundle file as it is, anything else as canonical JSON. Whether a signature counts
and whether the change may take effect is decided by the rules that run (`decide("bundle", …)`), never by the proposed ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from core import dsse
from core.canonical import canonical, sha256
from core.decision import Decision
from core.errors import BadInput, Broken, Conflict, Forbidden, NotFound, Refused
from core.ids import uuid7
from core.inputs import (
    ApproverFact,
    BundleFacts,
    BundleInput,
    BundleRequest,
    PrincipalFact,
    ProposalFact,
    SignatureFact,
    as_json,
    mandatory,
)
from core.ports import ApproverDirectory, Clock, Commitments, Engine, OperatorConfig, Recorder
from core.principal import Principal
from core.record import Entry
from policies.catalogue import Catalogue
from policies.check import Loaded
from policies.distribution import Distribution, check_module, find_opa
from policies.tables import ProposalRow, RolloutRow, SignatureRow
from storage.database import Database

Change = Literal["bundle", "rollback", "configuration"]
PREDICATE = "https://portcullis.dev/policy-approval/v1"
MAX_CONTENT = 16 * 1024 * 1024
MAX_REASON = 1000
EDITORS = frozenset({"admin", "operator"})
UNKNOWN = "unknown-signer"


@dataclass(frozen=True, slots=True)
class Signed:
    """One counted signature."""

    id: str
    person: str
    key_id: str
    created_unix: int
    decision_id: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed change as people look at it. `summary` says what differs; people are references."""

    id: str
    change: Change
    digest: str
    revision: str
    summary: Mapping[str, Any]
    author: str
    reason: str
    state: str
    created_unix: int
    signatures: tuple[Signed, ...] = ()

    @property
    def fact(self) -> ProposalFact:
        """As the rules see it."""
        approvals = [
            SignatureFact(person=one.person, digest=self.digest, approved_at_unix=one.created_unix) for one in self.signatures
        ]
        return ProposalFact.model_validate(
            {"change": self.change, "digest": self.digest, "author": self.author, "state": self.state, "approvals": approvals}
        )


class Proposals:
    """Proposals of one installation; `tenant` is the one that owns it, whose approvers count."""

    def __init__(
        self,
        database: Database,
        *,
        recorder: Recorder,
        commitments: Commitments,
        clock: Clock,
        config: OperatorConfig,
        directory: ApproverDirectory,
        tenant: str,
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._commitments = commitments
        self._clock = clock
        self._config = config
        self._directory = directory
        self._tenant = tenant

    # --- reading -----------------------------------------------------------------------------------------------------

    async def list(self, state: str | None = "open") -> list[Proposal]:
        """Proposals, newest first; those in `state`, or all when it is None."""
        query = select(ProposalRow).order_by(ProposalRow.created_unix.desc(), ProposalRow.id.desc())
        if state is not None:
            query = query.where(ProposalRow.state == state)
        async with self._database.session(reading=True) as session:
            rows = (await session.scalars(query)).all()
            signed = (await session.scalars(select(SignatureRow).order_by(SignatureRow.id))).all()
        return [_proposal(row, [one for one in signed if one.proposal_id == row.id]) for row in rows]

    async def get(self, id: str) -> Proposal:
        """One proposal. NotFound."""
        async with self._database.session(reading=True) as session:
            row = await session.get(ProposalRow, id)
            query = select(SignatureRow).where(SignatureRow.proposal_id == id).order_by(SignatureRow.id)
            signed = (await session.scalars(query)).all()
        if row is None:
            raise NotFound(f"there is no proposal {id[:80]!r}; portcullis policy bundle list shows them")
        return _proposal(row, signed)

    async def content(self, id: str) -> bytes:
        """The exact content of a proposal. NotFound."""
        return await content_of(self._database, id)

    async def verified(self, id: str) -> tuple[Proposal, bytes]:
        """A proposal with its content, and of its signatures those that hold now. NotFound; Broken when the content was changed.

        Nothing that the database says of a signature is believed: each envelope is checked again, over the digest of the content as
        it lies there, with the key as it is registered now.
        """
        found, content = await self.get(id), await self.content(id)
        query = select(SignatureRow).where(SignatureRow.proposal_id == id).order_by(SignatureRow.id)
        async with self._database.session(reading=True) as session:
            rows = {row.id: row for row in (await session.scalars(query)).all()}
        held = [one for one in found.signatures if await self._holds(found, one, rows[one.id].envelope)]
        return replace(found, signatures=tuple(held)), content

    async def _holds(self, proposal: Proposal, signed: Signed, envelope: str) -> bool:
        try:
            statement = read_approval(envelope.encode(), tenant=self._tenant)
        except BadInput:
            return False
        person = await self._directory.approver(self._tenant, statement.key_id)
        if person is None or person[2] or "approver" not in person[0].roles:
            return False
        return (
            statement.subject == proposal.id
            and statement.digest == proposal.digest
            and statement.predicate["change"] == proposal.change
            and await self._commitments.ref(person[0].tenant, person[0].id) == signed.person
            and statement.signed_by(person[1])
        )

    # --- proposing ---------------------------------------------------------------------------------------------------

    async def propose_bundle(
        self, data: bytes, found: Distribution, *, running: Loaded, by: Principal, reason: str
    ) -> Proposal:
        """Proposes that the bundle in `data` (`found`, read and checked) shall decide. BadInput when it changes nothing; what
        `distribution.check_module` raises for a Wasm module that is not the Rego's."""
        if found.revision == running.bundle.revision:
            raise BadInput("these rules run already: the bundle has the revision that decides now", where=found.revision)
        await asyncio.to_thread(check_module, found, find_opa())
        summary = {**difference(running, found.loaded), "wasm": found.about["wasm"], "serial": found.serial}
        return await self.propose("bundle", data, revision=found.revision, summary=summary, by=by, reason=reason)

    async def propose(
        self, change: Change, content: bytes, *, revision: str, summary: Mapping[str, Any], by: Principal, reason: str
    ) -> Proposal:
        """Keeps a proposal, recorded first. Forbidden, BadInput, EvidenceUnavailable."""
        check_editor(by, self._tenant)
        check_reason(reason)
        if len(content) > MAX_CONTENT:
            raise BadInput(f"{len(content)} bytes; a proposal holds at most {MAX_CONTENT}")
        new, digest = uuid7(), await asyncio.to_thread(sha256, content)
        digests = {"content": digest, "reason": sha256(reason.encode())}
        author = await self.record(by, "propose", new, digests, {"change": change, "revision": revision})
        row = ProposalRow(
            id=new,
            change=change,
            digest=digest,
            revision=revision,
            content=content,
            summary=dict(summary),
            author=author,
            reason=reason,
            state="open",
            created_unix=self._clock.now_unix(),
        )
        async with self._database.session() as session:
            session.add(row)
        return await self.get(new)

    async def withdraw(self, id: str, *, by: Principal, reason: str) -> None:
        """Ends an open proposal: it can take effect no more. Conflict when it is not open, or is being tried."""
        check_editor(by, self._tenant)
        check_reason(reason)
        found = await self.get(id)
        if found.state != "open":
            raise Conflict(f"the proposal is {found.state}", where=id)
        query = select(RolloutRow.candidate).order_by(RolloutRow.version.desc()).limit(1)
        async with self._database.session(reading=True) as session:
            if await session.scalar(query) == id:
                raise Conflict("it is being tried; end that first (portcullis policy rollout stop)", where=id)
        digests = {"content": found.digest, "reason": sha256(reason.encode())}
        await self.record(by, "withdraw", id, digests, {"change": found.change})
        await self.close(id, "withdrawn", {**found.summary, "withdrawn": reason})

    async def close(self, id: str, state: Literal["withdrawn", "done"], summary: Mapping[str, Any] | None = None) -> None:
        """Marks an open proposal as ended. Conflict when somebody else was quicker."""
        async with self._database.session() as session:
            await close_in(session, id, state, summary)

    # --- deciding ----------------------------------------------------------------------------------------------------

    async def approve(self, envelope: bytes, *, engine: Engine, about: str | None = None) -> Decision:
        """Counts the signature in `envelope` when the policy grants it. `about`: the proposal that it must be for.

        Raises BadInput for what is no approval of this installation's, Refused with the recorded decision when it does not count.
        """
        statement = read_approval(envelope, tenant=self._tenant)
        if about not in (None, statement.subject):
            raise BadInput("the statement is about another proposal than the path", where="subject")
        await self._same_change(statement)
        found = await self._directory.approver(self._tenant, statement.key_id)
        principal = found[0] if found else Principal(UNKNOWN, "user", self._tenant)
        reference = await self._commitments.ref(principal.tenant, principal.id)
        approver = None
        if found is not None:
            approver = ApproverFact(
                person=reference,
                key_id=statement.key_id,
                signature_valid=statement.signed_by(found[1]),
                key_revoked=found[2],
                is_approver="approver" in principal.roles,
            )
        decision, record = await self._decide(
            "approve", statement.subject, statement.digest, principal, engine=engine, approver=approver
        )
        if not decision.allow:
            raise Refused(decision.reason, decision)
        await self._keep(statement, envelope, person=reference, decision=decision, record=record)
        return decision

    async def _same_change(self, statement: dsse.Statement) -> None:
        """BadInput when somebody signed another kind of change than what is proposed under this id."""
        try:
            change = (await self.get(statement.subject)).change
        except NotFound:
            return  # the rules deny it, and that is recorded
        if statement.predicate["change"] != change:
            raise BadInput(
                f"the statement approves a {statement.predicate['change']}, the proposal is a {change}", where="change"
            )

    async def activate(self, id: str, digest: str, *, by: Principal, engine: Engine) -> Decision:
        """Whether the content with `digest` may take effect for the proposal `id`: recorded, and Refused when it may not."""
        if by.tenant != self._tenant:
            raise Forbidden(f"only operators of {self._tenant} may change what decides")
        decision, _ = await self._decide("activate", id, digest, by, engine=engine)
        if not decision.allow:
            raise Refused(decision.reason, decision)
        return decision

    async def _decide(
        self,
        action: Literal["approve", "activate"],
        id: str,
        digest: str,
        principal: Principal,
        *,
        engine: Engine,
        approver: ApproverFact | None = None,
    ) -> tuple[Decision, str]:
        reference = await self._commitments.ref(principal.tenant, principal.id)
        try:
            proposal = (await self.verified(id))[0].fact
        except NotFound:
            proposal = None
        document = as_json(
            BundleInput(
                now_unix=self._clock.now_unix(),
                mandatory=mandatory("bundle"),
                request=BundleRequest(
                    action=action, subject=id, digest=digest, principal=PrincipalFact.of(principal, reference)
                ),
                facts=BundleFacts(proposal=proposal, approver=approver),
                config=await self._config.bundle(self._tenant),
            )
        )
        decision = await engine.decide_async("bundle", document)
        record = await self._recorder.decision(
            "approval" if action == "approve" else "policy_change",
            decision,
            document,
            actor=reference,
            tenant=self._tenant,
            subject=f"policy/{id}",
            digests={"content": digest},
            details={"action": action},
        )
        return decision, record

    async def _keep(self, statement: dsse.Statement, envelope: bytes, *, person: str, decision: Decision, record: str) -> None:
        """Two submissions at once by one person: the unique index lets one through, the other is a Conflict."""
        row = SignatureRow(
            id=uuid7(),
            proposal_id=statement.subject,
            person=person,
            key_id=statement.key_id,
            envelope=envelope.decode(),
            decision_id=decision.decision_id,
            record_id=record,
            created_unix=self._clock.now_unix(),
        )
        try:
            async with self._database.session() as session:
                session.add(row)
        except IntegrityError as error:
            raise Conflict("this person's signature was counted meanwhile", where=statement.subject) from error

    async def record(self, by: Principal, action: str, id: str, digests: Mapping[str, str], details: Mapping[str, Any]) -> str:
        """Appends what is about to be done; the reference of who does it."""
        actor = await self._commitments.ref(by.tenant, by.id)
        entry = Entry(
            kind="policy_change",
            actor=actor,
            tenant=self._tenant,
            subject=f"policy/{id}",
            digests=dict(digests),
            details={"action": action, **details},
        )
        await self._recorder.event(entry)
        return actor


async def close_in(
    session: AsyncSession, id: str, state: Literal["withdrawn", "done"], summary: Mapping[str, Any] | None = None
) -> None:
    """Marks an open proposal as ended, within a transaction. Conflict when somebody else was quicker."""
    values: dict[str, Any] = {"state": state} if summary is None else {"state": state, "summary": dict(summary)}
    statement = update(ProposalRow).where(ProposalRow.id == id, ProposalRow.state == "open").values(**values)
    done = await session.execute(statement.returning(ProposalRow.id))
    if done.scalar_one_or_none() is None:
        raise Conflict("the proposal changed meanwhile; look at it again", where=id)


def sign_approval(key: Ed25519PrivateKey, proposal: Proposal, *, tenant: str, issued_unix: int) -> bytes:
    """The signed envelope of one approval of exactly this content."""
    predicate = {"decision": "approve", "tenant": tenant, "change": proposal.change, "issued_unix": issued_unix}
    return dsse.sign(key, subject=proposal.id, digest=proposal.digest, predicate_type=PREDICATE, predicate=predicate)


def read_approval(envelope: bytes, *, tenant: str) -> dsse.Statement:
    """The statement of an approval of `tenant`'s. BadInput for anything else."""
    statement = dsse.read(envelope, predicate_type=PREDICATE, fields="decision tenant change issued_unix")
    dsse.seconds(statement.predicate["issued_unix"], "predicate.issued_unix")
    if statement.predicate["decision"] != "approve":
        raise BadInput("the statement must approve", where="predicate.decision")
    if statement.predicate["tenant"] != tenant:
        raise BadInput("the statement was made for another installation's tenant", where="predicate.tenant")
    return statement


async def content_of(database: Database, id: str) -> bytes:
    """The exact content of a proposal. NotFound; Broken when it is not what people signed."""
    async with database.session(reading=True) as session:
        row = await session.get(ProposalRow, id, options=[undefer(ProposalRow.content)])
        if row is None:
            raise NotFound(f"there is no proposal {id[:80]!r}")
        content, digest = bytes(row.content), row.digest
    if await asyncio.to_thread(sha256, content) != digest:
        raise Broken("the content in the database is not what was approved", where=f"proposal {id}")
    return content


def difference(before: Loaded, after: Loaded) -> dict[str, Any]:
    """What differs between two sets of rules: rules added, taken away and changed, and other modules that changed."""
    old, new = _texts(before), _texts(after)
    rules = {name: _rule_of(name) for name in {*old, *new}}
    changed = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    return {
        "from": before.bundle.revision,
        "rules": [rule.id for rule in after.catalogue.rules()],
        "added": sorted(rule for name, rule in rules.items() if rule and name not in old),
        "removed": sorted(rule for name, rule in rules.items() if rule and name not in new),
        "changed": sorted({rules[name] or name for name in changed if not name.startswith("generated/")}),
        "other": sorted(name for name in old.keys() ^ new.keys() if not rules[name] and not name.startswith("generated/")),
        "severity": _severities(before.catalogue, after.catalogue),
    }


def _texts(loaded: Loaded) -> Mapping[str, str]:
    return loaded.bundle.modules


def _rule_of(path: str) -> str:
    """`admission/gpu-quota` of its module's path; empty for what is no rule."""
    parts = path.split("/")
    return f"{parts[1]}/{parts[2]}" if len(parts) == 4 and parts[0] == "rules" else ""


def _severities(before: Catalogue, after: Catalogue) -> list[str]:
    """Rules whose severity changes: `admission/x: high to low`."""
    return [
        f"{rule.id}: {old.severity} to {rule.severity}"
        for rule in after.rules()
        if (old := before.get(rule.id)) is not None and old.severity != rule.severity
    ]


def as_content(value: Any) -> bytes:
    """A change that is no bundle, as the bytes that people sign."""
    return canonical(value)


def check_editor(by: Principal, tenant: str) -> None:
    """Forbidden unless `by` may propose changes of what decides in this installation."""
    if by.tenant != tenant or not EDITORS & by.roles:
        raise Forbidden(f"changing what decides needs one of the roles {', '.join(sorted(EDITORS))} in {tenant}")


def check_reason(reason: str) -> None:
    """BadInput unless a change says why, on one line."""
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        raise BadInput(f"a change needs a reason: one printable line of at most {MAX_REASON} characters", where="reason")


def _proposal(row: ProposalRow, signed: Sequence[SignatureRow]) -> Proposal:
    return Proposal(
        id=row.id,
        change=row.change,  # type: ignore[arg-type]  # only `propose` writes it
        digest=row.digest,
        revision=row.revision,
        summary=row.summary,
        author=row.author,
        reason=row.reason,
        state=row.state,
        created_unix=row.created_unix,
        signatures=tuple(Signed(one.id, one.person, one.key_id, one.created_unix, one.decision_id) for one in signed),
    )
