"""Whether a signed statement counts as an approval: read, gather facts, decide, record, keep."""

from __future__ import annotations

from sqlalchemy import select

from core.decision import Decision
from core.errors import BadInput, NotFound, Refused
from core.ids import uuid7
from core.inputs import ApproverFact, as_json
from core.ports import ApproverDirectory, Engine, ModelRegistry, OperatorConfig
from core.principal import Principal
from lineage.decide import build_input
from lineage.ledger import Ledger
from lineage.statements import Approval, read_approval
from lineage.tables import ApprovalRow, ModelRow

UNKNOWN = "unknown-signer"


class Approvals:
    def __init__(
        self,
        ledger: Ledger,
        *,
        engine: Engine,
        config: OperatorConfig,
        directory: ApproverDirectory,
        registry: ModelRegistry,
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._config = config
        self._directory = directory
        self._registry = registry

    async def submit(self, tenant: str, envelope: bytes) -> Decision:
        """Keeps the approval in `envelope` when the policy grants it.

        Raises BadInput for what is not an approval of this tenant, Refused with the recorded decision when it does not count.
        """
        approval = read_approval(envelope)
        if approval.tenant != tenant:
            raise BadInput("the statement was made for another tenant", where="predicate.tenant")
        found = await self._directory.approver(tenant, approval.key_id)
        principal = found[0] if found else Principal(UNKNOWN, "user", tenant)
        reference = await self._ledger.actor(principal)
        approver = None
        if found is not None:
            approver = ApproverFact(
                person=reference,
                key_id=approval.key_id,
                signature_valid=approval.signed_by(found[1]),
                key_revoked=found[2],
                is_approver="approver" in principal.roles,
            )
        document = as_json(
            build_input(
                approval,
                now_unix=self._ledger.clock.now_unix(),
                principal=principal,
                principal_ref=reference,
                approver=approver,
                model=await self._registry.model(tenant, approval.model),
                config=await self._config.lineage(principal, approval.model),
            )
        )
        decision = await self._engine.decide_async("lineage", document)
        record = await self._ledger.recorder.decision(
            "approval",
            decision,
            document,
            actor=reference,
            tenant=tenant,
            subject=str(approval.model),
            digests={"manifest": approval.manifest_digest},
            details={"key_id": approval.key_id[:64]},
        )
        if not decision.allow:
            raise Refused(decision.reason, decision)
        await self._keep(tenant, approval, envelope, person=reference, decision=decision, record=record)
        return decision

    async def _keep(
        self, tenant: str, approval: Approval, envelope: bytes, *, person: str, decision: Decision, record: str
    ) -> None:
        """Two submissions at once by one person: the unique index lets one through, the other is a Conflict."""
        model = approval.model
        async with self._ledger.writing(str(model)) as session:
            query = select(ModelRow.id).where(
                ModelRow.tenant == tenant, ModelRow.name == model.name, ModelRow.version == model.version
            )
            model_id = await session.scalar(query)
            if model_id is None:
                raise NotFound(f"{model} is not registered")
            session.add(
                ApprovalRow(
                    id=uuid7(), model_id=model_id, manifest_digest=approval.manifest_digest, person=person,
                    key_id=approval.key_id, envelope=envelope.decode(), decision_id=decision.decision_id, record_id=record,
                    created_unix=self._ledger.clock.now_unix(),
                )
            )  # fmt: skip
