"""`examples/` through the shipped rules and the operator's configuration that lies beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from admission.check import Verdict, check, read_manifests
from admission.ledger import QuotaLedger
from admission.service import AdmissionService
from core.inputs import ApprovalFact, CardFact, ModelFact
from lineage.deployments import Deployments
from policies.engine import Engine, load_embedded
from policies.store import ConfigStore
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryModels, MemoryRecorder

EXAMPLES = Path(__file__).parents[3] / "examples"
DIGEST = re.search(r"@(sha256:[0-9a-f]{64})", (EXAMPLES / "manifests" / "chat.yaml").read_text())
LLAMA = ModelFact(
    name="llama-3",
    version="7",
    tenant="acme",
    author="ref:author",
    manifest_digest=DIGEST[1] if DIGEST else None,
    card=CardFact(complete=True),
    approvals=[ApprovalFact(person=f"ref:{n}", manifest_digest=DIGEST[1] if DIGEST else "", approved_at_unix=1) for n in "ab"],
)


@pytest.fixture(scope="module")
def rules() -> Engine:
    return load_embedded()


@pytest.fixture
async def verdicts(database: Database, rules: Engine) -> dict[str, Verdict]:
    clock, recorder, commitments = FixedClock(), MemoryRecorder(), MemoryCommitments()
    config = ConfigStore(database, commitments=commitments, recorder=recorder, files=[EXAMPLES / "config.yaml"], clock=clock)
    door = AdmissionService(
        engine=rules,
        config=config,
        models=MemoryModels({("acme", "llama-3@7"): LLAMA}),
        recorder=recorder,
        commitments=commitments,
        ledger=QuotaLedger(database, clock),
        deployments=Deployments(database, clock),
        clock=clock,
        tenant="acme",
    )
    found = await check(read_manifests([EXAMPLES]), door=door, config=config)
    return {f"{Path(v.source).name}/{v.index}": v for v in found}


EXPECTED: dict[str, tuple[str, set[str]]] = {
    "config.yaml/1": ("not governed", set()),
    "chat.yaml/1": ("allowed", set()),
    "web-frontend.yaml/1": ("allowed", set()),
    "settings.yaml/1": ("not governed", set()),
    "settings.yaml/2": ("not governed", set()),
    "over-quota.yaml/1": ("denied", {"admission/gpu-quota", "admission/encrypted-weights"}),
    "unapproved-image.yaml/1": ("denied", {"admission/approved-images"}),
    "plain-weights.yaml/1": ("denied", {"admission/encrypted-weights"}),
    "devices-without-request.yaml/1": ("denied", {"admission/gpu-quota", "admission/namespace-isolation"}),
    "nightly-evaluation.yaml/1": ("denied", {"door/readable"}),
    "nightly-evaluation.yaml/2": ("denied", {"admission/approved-model"}),
    "ray-cluster.yaml/1": ("denied", {"admission/gpu-quota", "admission/approved-model"}),
    "unknown-operator.yaml/1": ("denied", {"admission/gpu-quota"}),
    "served-groups.yaml/1": ("allowed", set()),
    "served-groups.yaml/2": ("denied", {"door/readable"}),
}


async def test_each_example_gets_the_verdict_that_it_is_there_to_show(verdicts: dict[str, Verdict]) -> None:
    found = {name: (v.verdict, {violation.rule for violation in v.violations}) for name, v in verdicts.items()}
    assert found == EXPECTED


async def test_a_denial_names_rule_found_allowed_and_what_to_do(verdicts: dict[str, Verdict]) -> None:
    message = verdicts["over-quota.yaml/1"].message
    assert "admission/gpu-quota: 16 GPUs are asked for and 0 are in use; the team's quota is 8" in message
    assert "To do: Ask for fewer GPUs" in message
    assert verdicts["over-quota.yaml/1"].decision_id in message
