"""Which model a workload names, and where it takes weights from. The form users write: docs/formats/workload-annotations.md.

A place that cannot be read (a variable, a value from a Secret) counts as one that is not sealed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from admission import fields
from admission.accelerators import containers
from admission.rows import Template
from core.errors import BadInput
from core.inputs import ModelUse, WeightsUse
from core.names import ModelRef, is_digest

MODEL = "portcullis.dev/model"
WEIGHTS = "portcullis.dev/weights"

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://\S*\Z")
_SPLIT = re.compile(r"[\s'\"`;|&()<>,]+")
_STORES = frozenset(
    {"s3", "s3a", "s3n", "gs", "gcs", "hf", "huggingface", "oci", "pvc", "sealed", "abfs", "abfss", "az", "azure", "adl"}
    | {"wasb", "wasbs", "oss", "cos", "obs", "swift", "hdfs", "webhdfs", "nfs", "ngc", "modelscope", "ms", "mlflow"}
    | {"mlflow-artifacts", "models", "runs", "dvc"}
)
"""Schemes that weights are loaded from. `http`, `https`, `file` and others count only after a flag that names a model."""

_MODEL_FLAG = re.compile(
    r"-{1,2}(?:model|model[-_]?(?:id|path|dir|uri|url|repo|tag|store|name[-_]or[-_]path|repository)|hf[-_]?(?:repo|model)(?:[-_]id)?"
    r"|pretrained[-_]model[-_]name[-_]or[-_]path|weights?(?:[-_](?:path|dir|uri|url))?|checkpoint|ckpt(?:[-_]path)?"
    r"|lora[-_]modules|adapter[-_]id|speculative[-_]model|draft[-_]model|storage[-_]uri)\Z",
    re.IGNORECASE,
)
_MODEL_VARIABLE = re.compile(
    r"(?:[A-Z0-9]+_)*(?:MODEL(?:_(?:ID|PATH|DIR|URI|URL|REPO|STORE|REPOSITORY))?|WEIGHTS(?:_(?:PATH|DIR|URI|URL))?|CHECKPOINT(?:_PATH)?"
    r"|STORAGE_URI)\Z",
    re.IGNORECASE,
)
_BARE_ID_VARIABLE = re.compile(r"(?:HF_)?(?:MODEL|HF_MODEL)(?:_ID|_REPO)\Z", re.IGNORECASE)
_NOT_WEIGHTS = re.compile(
    r"(?:-{1,2})?(?:[a-z0-9]+[-_])*(?:data|dataset|datasets|corpus|output|out|log|logs|logdir|results?|metrics|tracking)"
    r"(?:[-_](?:path|dir|uri|url|root|bucket))?\Z",
    re.IGNORECASE,
)
"""Flags and variables that say what a store is used for: a training job's data and results are not weights."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?\Z")


def models(template: Template) -> list[ModelUse]:
    """The model that the pod template's annotation names. A value that is not NAME@VERSION gives a use without a name."""
    annotations = fields.mapping(template.metadata.get("annotations"), f"{template.metadata_path}.annotations")
    if MODEL not in annotations:
        return []
    path = f"{template.metadata_path}.annotations[{MODEL}]"
    try:
        ref = ModelRef.parse((fields.text(annotations[MODEL], path) or "").strip())
    except BadInput:
        return [ModelUse(path=path)]
    return [ModelUse(path=path, name=ref.name, version=ref.version)]


def weights(template: Template) -> list[WeightsUse]:
    """Every place that this pod names as a source of weights: the annotation, commands, arguments, variables, and fields of the kind."""
    found: list[WeightsUse] = []
    annotations = fields.mapping(template.metadata.get("annotations"), f"{template.metadata_path}.annotations")
    if WEIGHTS in annotations:
        path = f"{template.metadata_path}.annotations[{WEIGHTS}]"
        value = fields.text(annotations[WEIGHTS], path) or ""
        found.extend(_place(part, path) for part in _SPLIT.split(value) if part)
        if not value.strip():
            found.append(WeightsUse(path=path, scheme="unknown", sealed=False))
    found.extend(_place(uri, path) for path, uri in template.sources)
    for path, container in containers(template.spec, template.path):
        found.extend(_arguments(container, path))
        found.extend(_variables(container, path))
    return list(dict.fromkeys(found))


def _place(value: str, path: str) -> WeightsUse:
    """One source. Schemes have no case (RFC 3986, 3.1): `HF://` is `hf://`."""
    match = _URI.match(value)
    scheme = match[1].lower() if match else "unknown"
    if scheme != "sealed":
        return WeightsUse(path=path, scheme=scheme, sealed=False)
    digest = value.rpartition("@")[2]
    return WeightsUse(path=path, scheme=scheme, sealed=True, manifest_digest=digest if is_digest(digest) else None)


def _arguments(container: dict[str, Any], path: str) -> Iterator[WeightsUse]:
    """Sources among command and arguments, `--flag value`, `--flag=value` and inside a shell's `-c` text alike."""
    flag, previous = "", ""
    for key in ("command", "args"):
        for index, item in enumerate(fields.sequence(container.get(key), f"{path}.{key}")):
            place = f"{path}.{key}[{index}]"
            for token in _SPLIT.split(fields.text(item, place, most=2**20) or ""):
                name, equals, value = token.partition("=")
                if token.startswith("-") and not equals:
                    flag, previous = token, token
                    continue
                if equals and "://" not in name:
                    flag = name
                else:
                    value = token
                positional = previous == "serve" and not flag and "/" in value  # vllm serve ORG/NAME
                if value:
                    use = _value(value, flag, place, bare_id=positional or bool(_MODEL_FLAG.match(flag)))
                    if use is not None:
                        yield use
                    flag, previous = "", value


def _variables(container: dict[str, Any], path: str) -> Iterator[WeightsUse]:
    for place, variable in fields.items(container, "env", path):
        name = fields.text(variable.get("name"), f"{place}.name") or ""
        if variable.get("valueFrom") is not None:
            if _MODEL_VARIABLE.match(name):
                yield WeightsUse(path=place, scheme="unknown", sealed=False)
            continue
        for value in _SPLIT.split(fields.text(variable.get("value"), f"{place}.value", most=2**20) or ""):
            use = _value(value, name, place, bare_id=bool(_BARE_ID_VARIABLE.match(name))) if value else None
            if use is not None:
                yield use


def _value(value: str, name: str, place: str, *, bare_id: bool) -> WeightsUse | None:
    """The source that `value`, given by the flag or variable `name`, is; None when it is none."""
    about_models = bool(_MODEL_FLAG.match(name) or _MODEL_VARIABLE.match(name))
    match = _URI.search(value)
    if match:
        if about_models or (match[1].lower() in _STORES and not _NOT_WEIGHTS.match(name)):
            return _place(match[0], place)
        return None
    if about_models and "$" in value:
        return WeightsUse(path=place, scheme="unknown", sealed=False)
    # A bare name after --model is fetched from the Hugging Face hub; an absolute or dotted path is a mounted file.
    if bare_id and _HUB_ID.match(value) and not value.isdigit():
        return WeightsUse(path=place, scheme="hf", sealed=False)
    return None
