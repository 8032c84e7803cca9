"""What a user would have on disk: settings, configuration, a card, manifests, and a small model in safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cli.demo.cast import Cast

REGISTRY = "registry.{tenant}.example"


def write_settings(folder: Path, cast: Cast, upstream: str, served: str) -> None:
    settings = {
        "tenant": cast.tenant,
        "config": ["config/"],
        "evidence": {"origin": f"{cast.tenant}.example/log"},
        "gateway": {"upstreams": [{"name": "gpu-a", "url": upstream, "models": [{"served": served, "model": cast.model}]}]},
    }
    name = cast.model.partition("@")[0]
    teams = {
        cast.team: {"namespaces": [cast.namespace], "gpu_quota": cast.quota, "requests_per_minute": 60},
        cast.other_team: {"namespaces": [f"{cast.other_team}-prod"], "gpu_quota": 1},
    }
    config = {
        "tenants": {
            cast.tenant: {
                "required_approvals": 2,
                "images": [{"registry": REGISTRY.format(tenant=cast.tenant), "repository": "serving"}],
                "teams": teams,
            }
        },
        "grants": [
            {"id": "calls", "tenant": cast.tenant, "domain": "gateway", "model": name, "teams": [cast.team]},
            {"id": "keys", "tenant": cast.tenant, "domain": "weights", "model": name, "roles": ["operator"]},
        ],
    }
    (folder / "config").mkdir()
    _yaml(folder / "portcullis.yaml", settings)
    _yaml(folder / "config" / "operator.yaml", config)


def write_card(path: Path, cast: Cast) -> None:
    _yaml(
        path,
        {
            "title": f"{cast.model} for {cast.purpose}",
            "intended_purposes": [cast.purpose],
            "limitations": "Answers in English only; not for decisions about people.",
            "training_data": cast.dataset,
            "evaluation": "Held-out set of 500 prompts, reviewed by the team.",
            "risk_class": "limited",
            "contact": f"ml@{cast.tenant}.example",
        },
    )


def write_model(folder: Path, cast: Cast, seed: int) -> None:
    """A safetensors file of a few small tensors, and its config.json."""
    import numpy as np
    from safetensors.numpy import save_file

    pick = np.random.default_rng(seed)
    shapes = [(int(pick.choice((16, 32, 64))), int(pick.choice((64, 128)))) for _ in range(cast.tensors)]
    tensors = {f"layers.{at}.weight": pick.standard_normal(shape, np.float32) for at, shape in enumerate(shapes)}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "np"})
    (folder / "config.json").write_text(json.dumps({"model_type": "demo", "layers": cast.tensors}, indent=2))


def write_manifests(folder: Path, cast: Cast, digest: str) -> None:
    """Four Deployments: too many GPUs, an image from elsewhere, weights in the clear, and a good one."""
    folder.mkdir()
    good = deployment(cast, digest, replicas=cast.replicas)
    _yaml(folder / "1-too-many-gpus.yaml", deployment(cast, digest, replicas=cast.greedy))
    _yaml(folder / "2-foreign-image.yaml", deployment(cast, digest, replicas=cast.replicas, image="docker.io/library/vllm:1"))
    plain = f"s3://{cast.tenant}-models/{cast.model.partition('@')[0]}/"
    _yaml(folder / "3-plain-weights.yaml", deployment(cast, digest, replicas=cast.replicas, weights=plain))
    _yaml(folder / "4-good.yaml", good)


def deployment(
    cast: Cast, digest: str, *, replicas: int, image: str | None = None, weights: str | None = None
) -> dict[str, Any]:
    labels = {"app": "chat"}
    annotations = {
        "portcullis.dev/model": cast.model,
        "portcullis.dev/weights": weights or f"sealed://models/{cast.model.partition('@')[0]}@{digest}",
    }
    container = {
        "name": "serve",
        "image": image or f"{REGISTRY.format(tenant=cast.tenant)}/serving/vllm:0.9",
        "resources": {"limits": {"nvidia.com/gpu": cast.gpus}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": cast.namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"annotations": annotations, "labels": labels}, "spec": {"containers": [container]}},
        },
    }


def _yaml(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
