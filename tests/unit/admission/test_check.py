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
        (5, "ResourceClaim/claim", "denied"),
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
