from __future__ import annotations

from typing import Any

import pytest

from admission import models, workloads
from core.inputs import ModelUse, WeightsUse
from tests.unit.admission.reviews import deployment

HEX = "sha256:" + "a" * 64


def template(annotations: Any = None, **container: Any) -> workloads.Template:
    found = deployment(1)
    found["spec"]["template"]["metadata"] = {"annotations": annotations}
    found["spec"]["template"]["spec"]["containers"][0].update(container)
    (sort,) = workloads.pods_of(found, workloads.WORKLOADS["apps", "Deployment"], {})
    return sort.template


def test_the_named_model() -> None:
    path = "spec.template.metadata.annotations[portcullis.dev/model]"
    assert models.models(template({"portcullis.dev/model": "llama-3@7"})) == [ModelUse(path=path, name="llama-3", version="7")]
    assert models.models(template()) == []


@pytest.mark.parametrize("value", ["llama-3", "llama 3@7", "@7", "llama-3@", "", "a@b@c", None])
def test_a_model_that_cannot_be_read_is_a_use_without_a_name(value: Any) -> None:
    (use,) = models.models(template({"portcullis.dev/model": value}))
    assert use.name is None


PLAIN: dict[str, tuple[dict[str, Any], str]] = {
    "a flag": ({"args": ["--model", "s3://bucket/x"]}, "s3"),
    "a flag with =": ({"args": ["--model=gs://bucket/x"]}, "gs"),
    "upper-case scheme": ({"args": ["--model=HF://org/x"]}, "hf"),
    "in a shell's text": ({"command": ["sh", "-c", "aws s3 cp s3://bucket/x /m && serve"]}, "s3"),
    "positional": ({"args": ["s3://bucket/x"]}, "s3"),
    "inside JSON": ({"args": ['--config={"model":"s3://bucket/x"}']}, "s3"),
    "a variable": ({"env": [{"name": "ANY", "value": "s3://bucket/x"}]}, "s3"),
    "https for a model": ({"args": ["--model-path", "https://example.com/x.safetensors"]}, "https"),
    "https in a variable": ({"env": [{"name": "MODEL_URL", "value": "https://example.com/x"}]}, "https"),
    "any scheme for a model": ({"args": ["--model", "foo://x"]}, "foo"),
    "a hub id": ({"args": ["--model", "meta-llama/Llama-3-8B"]}, "hf"),
    "a short hub id": ({"args": ["--model=gpt2"]}, "hf"),
    "vllm serve": ({"command": ["vllm", "serve", "org/model"]}, "hf"),
    "a hub id in a variable": ({"env": [{"name": "MODEL_ID", "value": "org/model"}]}, "hf"),
    "a variable nobody can read": ({"args": ["--model=$(PLACE)"]}, "unknown"),
    "a value from a Secret": (
        {"env": [{"name": "MODEL_PATH", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
        "unknown",
    ),
    "a look-alike of sealed": ({"args": ["--model", "sealed+s3://bucket/x"]}, "sealed+s3"),
}
NOTHING: dict[str, dict[str, Any]] = {
    "a mounted path": {"args": ["--model", "/models/llama"]},
    "a served name": {"args": ["--served-model-name", "llama-3"]},
    "an endpoint": {"env": [{"name": "OTEL_ENDPOINT", "value": "https://otel.example"}]},
    "training data": {"args": ["--train-data", "s3://bucket/set", "--output-dir=s3://bucket/out"]},
    "a number": {"args": ["--max-model-len", "4096"]},
    "a plain word": {"args": ["serve", "--port", "8000"], "env": [{"name": "MODEL", "value": "llama-3"}]},
}


@pytest.mark.parametrize(("container", "scheme"), PLAIN.values(), ids=PLAIN.keys())
def test_plain_weights_are_seen(container: dict[str, Any], scheme: str) -> None:
    uses = models.weights(template(**container))
    assert [(use.scheme, use.sealed) for use in uses] == [(scheme, False)]
    assert uses[0].path.startswith("spec.template.spec.containers[0].")


@pytest.mark.parametrize("container", NOTHING.values(), ids=NOTHING.keys())
def test_what_is_not_weights(container: dict[str, Any]) -> None:
    assert models.weights(template(**container)) == []


def test_sealed_weights_carry_their_digest() -> None:
    uses = models.weights(template({"portcullis.dev/weights": f"sealed://store/llama@{HEX}, sealed://store/other"}))
    path = "spec.template.metadata.annotations[portcullis.dev/weights]"
    assert uses == [
        WeightsUse(path=path, scheme="sealed", sealed=True, manifest_digest=HEX),
        WeightsUse(path=path, scheme="sealed", sealed=True),
    ]


@pytest.mark.parametrize("digest", ["sha256:" + "A" * 64, "sha256:abc", "md5:" + "a" * 32, ""])
def test_a_digest_that_is_none(digest: str) -> None:
    (use,) = models.weights(template({"portcullis.dev/weights": f"sealed://store/llama@{digest}"}))
    assert use.manifest_digest is None


@pytest.mark.parametrize("value", ["", "llama", "/models/x"])
def test_an_annotation_without_a_scheme_is_not_sealed(value: str) -> None:
    (use,) = models.weights(template({"portcullis.dev/weights": value}))
    assert (use.scheme, use.sealed) == ("unknown", False)


def test_init_containers_count() -> None:
    found = template()
    found.spec["initContainers"] = [{"name": "get", "image": "a", "args": ["s3://bucket/x", "/mnt/models"]}]
    assert [use.scheme for use in models.weights(found)] == ["s3"]
