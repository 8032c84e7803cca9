"""Objects and AdmissionReviews as an API server would send them, and an engine that knows the quota rule only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.decision import Decision, Domain, Violation
from core.ids import uuid7
from core.inputs import AdmissionConfig
from core.names import SHARES_PER_GPU
from tests.simulators.ports import ScriptedEngine

GPU = SHARES_PER_GPU
TABLE = {"nvidia.com/gpu": GPU, "nvidia.com/mig-1g.10gb": GPU // 7}
PLURALS = {"Pod": "pods", "Deployment": "deployments", "ReplicaSet": "replicasets", "Job": "jobs", "ConfigMap": "configmaps"}


def container(
    gpus: Any = None, *, name: str = "main", image: str = "registry.acme.example/ml/serve:1", **more: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "image": image, **more}
    if gpus is not None:
        found["resources"] = {"limits": {"nvidia.com/gpu": gpus}}
    return found


def pod_spec(gpus: Any = None, **more: Any) -> dict[str, Any]:
    return {"containers": [container(gpus)], **more}


def meta(name: str, uid: str | None = None, **more: Any) -> dict[str, Any]:
    found = {"name": name, "namespace": "team-a", **more}
    return found if uid is None else {**found, "uid": uid}


def pod(gpus: Any = None, *, name: str = "p", uid: str | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta(name, uid, **metadata), "spec": pod_spec(gpus)}


def deployment(
    gpus: Any = None, replicas: Any = 1, *, name: str = "chat", uid: str | None = None, **metadata: Any
) -> dict[str, Any]:
    return templated("apps/v1", "Deployment", gpus, name=name, uid=uid, replicas=replicas, **metadata)


def templated(
    version: str, kind: str, gpus: Any = None, *, name: str = "x", uid: str | None = None, replicas: Any = None, **metadata: Any
) -> dict[str, Any]:
    spec: dict[str, Any] = {"template": {"metadata": {}, "spec": pod_spec(gpus)}}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": version, "kind": kind, "metadata": meta(name, uid, **metadata), "spec": spec}


def document(
    operation: str,
    found: dict[str, Any] | None,
    *,
    old: dict[str, Any] | None = None,
    uid: str | None = None,
    user: str = "alice@acme.example",
    dry_run: bool = False,
    **request: Any,
) -> dict[str, Any]:
    present = found or old or {}
    group = present["apiVersion"].rpartition("/")[0]
    body = {
        "uid": uid or uuid7(),
        "operation": operation,
        "kind": {"group": group, "version": "v1", "kind": present["kind"]},
        "resource": {"group": group, "version": "v1", "resource": PLURALS.get(present["kind"], "things")},
        "namespace": present["metadata"].get("namespace", ""),
        "name": present["metadata"].get("name", ""),
        "userInfo": {"username": user},
        "object": found,
        "oldObject": old,
        "dryRun": dry_run,
        **request,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": body}


def create(found: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(document("CREATE", found, **more)).encode()


def update(found: dict[str, Any], old: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(document("UPDATE", found, old=old, **more)).encode()


def remove(old: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(document("DELETE", None, old=old, **more)).encode()


@dataclass
class QuotaEngine(ScriptedEngine):
    """The quota rule in Python, and the denial of unknown kinds, so that the ledger is tested without a bundle."""

    def decide(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        request, facts, config = input["request"], input["facts"], input["config"]
        limit, used = config.get("gpu_limit_shares", 0), facts["quota"]["used_shares"]
        found: list[Violation] = []
        if request["gpu_shares"] and used + request["gpu_shares"] > limit:
            args = {"asked": request["gpu_shares"], "used": used, "limit": limit}
            found.append(Violation("admission/gpu-quota", "enforce", request["pod_path"], args, message="over quota"))
        if request["accelerators_found"] and not request["known_kind"]:
            found.append(Violation("admission/gpu-quota", "enforce", "", {}, message="unknown kind"))
        self.violations = tuple(found)
        return super().decide(domain, input)


def config(limit_gpus: int = 4, **more: Any) -> AdmissionConfig:
    values = {"tenant": "acme", "team": "a", "controller_namespaces": ["kube-system"], **more}
    return AdmissionConfig(revision="sha256:" + "1" * 64, gpu_limit_shares=limit_gpus * GPU, **values)
