from __future__ import annotations

from pathlib import Path

import pytest

from admission.check import check, read_manifests, read_text
from admission.ledger import QuotaLedger
from core.errors import BadInput
from tests.simulators.ports import MemoryConfig, MemoryRecorder
from tests.unit.admission.conftest import ServiceMaker
from tests.unit.admission.reviews import TABLE

MANIFESTS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: good, namespace: team-a}
spec:
  replicas: 2
  template:
    spec: {containers: [{name: main, image: a, resources: {limits: {nvidia.com/gpu: 2}}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {hello: world}
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {generateName: big-}
    spec: {containers: [{name: main, image: a, resources: {limits: {nvidia.com/gpu: 5}}}]}
  - apiVersion: acme.example/v1
    kind: Trainer
    metadata: {name: ray}
    spec: {limits: {nvidia.com/gpu: 1}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: claim}
---
just text
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: half}
spec: {template: {spec: {containers: [{name: main, image: a, resources: {limits: {nvidia.com/gpu: 0.5}}}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: dated}
data: {when: 2026-01-01}
---
replicaCount: 2
---
kind: Pod
"""


async def test_each_document_gets_a_verdict_and_nothing_changes(
    make: ServiceMaker, recorder: MemoryRecorder, ledger: QuotaLedger
) -> None:
    verdicts = await check(
        read_text(MANIFESTS, "m.yaml"), door=make(), config=MemoryConfig(table=dict(TABLE)), namespace="team-a"
    )
    assert [(v.index, v.subject, v.verdict) for v in verdicts] == [
        (1, "Deployment/good", "allowed"),
        (2, "ConfigMap/words", "not governed"),
        (3, "Pod/big-", "denied"),
        (4, "Trainer/ray", "denied"),
        (5, "ResourceClaim/claim", "allowed"),
        (6, "", "unreadable"),
        (7, "Deployment/half", "denied"),
        (8, "", "unreadable"),
        (9, "", "not governed"),
        (10, "", "unreadable"),
    ]
    assert "gpu-quota" in verdicts[2].message
    assert verdicts[2].namespace == "team-a"
    assert "0.5 is not a whole number" in verdicts[6].message
    assert verdicts[0].as_json()["verdict"] == "allowed"
    assert recorder.entries == []
    assert await ledger.accounts("acme") == []


CLAIMS = """\
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: two}
spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com, count: 2}}]}}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: shared, namespace: team-a}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com, count: 4}}]}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: elsewhere, namespace: team-b}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}]}}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {namespace: team-a}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: nobody.example.com}}]}}
"""
USERS = {
    "twice from the template": (2, "resourceClaimTemplateName: two", True),
    "three times from the template": (3, "resourceClaimTemplateName: two", False),
    "eight that share a claim": (8, "resourceClaimName: shared", True),
    "another namespace's claim": (1, "resourceClaimName: elsewhere", False),
    "no such claim": (1, "resourceClaimName: two", False),
}


@pytest.mark.parametrize(("replicas", "entry", "allowed"), USERS.values(), ids=USERS.keys())
async def test_claims_among_the_documents_are_counted(make: ServiceMaker, replicas: int, entry: str, allowed: bool) -> None:
    """Four GPUs are allowed. The shared claim is charged as itself, so its users hold nothing more."""
    spec = f"{{containers: [{{name: main, image: a}}], resourceClaims: [{{name: gpu, {entry}}}]}}"
    user = f"{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d}}, spec: {{replicas: {replicas}, template: {{spec: {spec}}}}}}}"
    documents = read_text(f"{CLAIMS}---\n{user}\n", "m.yaml")
    verdicts = await check(documents, door=make(), config=MemoryConfig(table=dict(TABLE)), namespace="team-a")
    assert [v.verdict for v in verdicts] == ["allowed", "allowed", "allowed", "denied", "allowed" if allowed else "denied"]


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.yaml").write_text("a: 1\n---\nb: 2\n")
    (tmp_path / "sub" / "a.json").write_text('{"c": 3}')
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / "twice.yml").write_text("a: 1\na: 2\n")
    found = read_manifests([tmp_path])
    assert [(Path(d.source).name, d.index, d.value) for d in found] == [
        ("b.yaml", 1, {"a": 1}),
        ("b.yaml", 2, {"b": 2}),
        ("a.json", 1, {"c": 3}),
        ("twice.yml", 1, None),
    ]
    assert "stands twice" in found[3].problem


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read_manifests([tmp_path / "no"])
    with pytest.raises(BadInput):
        read_manifests([tmp_path])
