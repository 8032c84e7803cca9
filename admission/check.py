"""`portcullis check`: manifests through the same decision as the webhook, before a cluster sees them.

Each document becomes the AdmissionReview of its CREATE, as a dry run: nothing is reserved or recorded, and each is judged
against what the ledger holds now, not against the documents before it. The resource claims, templates and device classes (DRA)
among the documents are those that a workload in the same namespace may name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from admission import decide, fields
from admission.refusal import message_of
from admission.review import API_VERSION
from admission.service import Outcome
from admission.workloads import WORKLOADS
from core import yamlread
from core.decision import Violation
from core.errors import BadInput, Unavailable
from core.ids import uuid7
from core.ports import OperatorConfig

CHECKER = "portcullis:check"
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
Word = Literal["allowed", "denied", "not governed", "unreadable"]


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest: the file it came from, its place there (from 1), and its value or what is wrong with the file."""

    source: str
    index: int
    value: Any = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    source: str
    index: int
    namespace: str
    subject: str
    verdict: Word
    message: str = ""
    violations: tuple[Violation, ...] = ()
    warnings: tuple[Violation, ...] = ()
    decision_id: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "index": self.index,
            "namespace": self.namespace,
            "subject": self.subject,
            "verdict": self.verdict,
            "message": self.message,
            "violations": [violation.as_json() for violation in self.violations],
            "warnings": [warning.as_json() for warning in self.warnings],
            "decision_id": self.decision_id,
        }


class Door(Protocol):
    """What a check needs of `AdmissionService`."""

    async def outcome(self, data: bytes, claims: Sequence[Any] = ()) -> Outcome: ...


def read_manifests(paths: Iterable[Path]) -> list[Document]:
    """Every document of the files and, sorted, of the YAML and JSON files below the folders.

    A file that cannot be read as YAML is one Document with its problem; a path that is not there is a BadInput.
    """
    found: list[Document] = []
    for path in paths:
        if path.is_dir():
            files = sorted(item for item in path.rglob("*") if item.suffix in SUFFIXES and item.is_file())
            if not files:
                raise BadInput("holds no .yaml, .yml or .json file", where=str(path))
        elif path.is_file():
            files = [path]
        else:
            raise BadInput("there is no such file or folder", where=str(path))
        for file in files:
            try:
                found.extend(read_text(file.read_bytes(), str(file)))
            except OSError as error:
                raise Unavailable(f"cannot be read: {error.strerror}", where=str(file)) from error
    return found


def read_text(text: bytes | str, source: str) -> list[Document]:
    """The documents of one stream (`source` `-` for standard input); the items of a `kind: List` one by one."""
    try:
        values = yamlread.load_all(text, where=source)
    except BadInput as error:
        return [Document(source, 1, problem=str(error))]
    found: list[Document] = []
    for value in values:
        is_list = (
            isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list)
        )
        found.extend(Document(source, 0, item) for item in (value["items"] if is_list else [value]))
    return [Document(source, index, document.value) for index, document in enumerate(found, 1)]


async def check(
    documents: Sequence[Document], *, door: Door, config: OperatorConfig, namespace: str = "default"
) -> list[Verdict]:
    """A verdict for each document. `namespace` is that of manifests which name none, as with `kubectl -n`."""
    table = await config.accelerators()
    claims = _claims(documents, namespace)
    return [await _one(document, door, table, namespace, claims) for document in documents]


def _claims(documents: Sequence[Document], namespace: str) -> list[dict[str, Any]]:
    """The objects of DRA among the documents, each with the namespace that it is meant for."""
    found = []
    for document in documents:
        value = document.value
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind == "DeviceClass":
            found.append(value)
        elif kind in decide.CLAIM_KINDS and isinstance(value.get("metadata"), dict):
            metadata = value["metadata"]
            found.append({**value, "metadata": {**metadata, "namespace": metadata.get("namespace") or namespace}})
    return [value for value in found if _is_named(value)]


def _is_named(value: dict[str, Any]) -> bool:
    """Whether others can name the object; what is wrong with one that they cannot is said where it stands."""
    metadata = value.get("metadata")
    named = isinstance(metadata, dict) and isinstance(metadata.get("name"), str) and bool(metadata["name"])
    return named and str(value.get("apiVersion")).startswith(f"{decide.CLAIM_GROUP}/")


async def _one(document: Document, door: Door, table: Any, namespace: str, claims: Sequence[dict[str, Any]]) -> Verdict:
    if document.problem:
        return Verdict(document.source, document.index, "", "", "unreadable", document.problem)
    if isinstance(document.value, dict) and not {"apiVersion", "kind"} & document.value.keys():
        message = "it has no apiVersion and no kind, so it is no Kubernetes object and no cluster would take it"
        return Verdict(document.source, document.index, "", "", "not governed", message)
    try:
        review = synthesize(document.value, namespace)
        data = json.dumps(review, allow_nan=False).encode()
    except (BadInput, TypeError, ValueError) as error:
        problem = str(error) if isinstance(error, BadInput) else "holds a value that JSON has not"
        return Verdict(document.source, document.index, "", "", "unreadable", f"{document.source}: {problem}")
    request = review["request"]
    subject = f"{request['kind']['kind']}/{request['name']}"
    where = (document.source, document.index, request["namespace"], subject)
    group, kind = request["kind"]["group"], request["kind"]["kind"]
    if (group, kind) not in WORKLOADS and not decide.holds_accelerators(group, kind, document.value, table):
        return Verdict(*where, "not governed")
    here = [claim for claim in claims if claim.get("kind") == "DeviceClass" or claim["metadata"]["namespace"] == where[2]]
    outcome = await door.outcome(data, here)
    decision = outcome.decision
    if decision is None:
        raise Unavailable("a dry run was answered from memory")
    message = "" if decision.allow else message_of(decision)
    verdict: Word = "allowed" if decision.allow else "denied"
    return Verdict(*where, verdict, message, decision.violations, decision.warnings, decision.decision_id)


def synthesize(value: Any, namespace: str) -> dict[str, Any]:
    """The AdmissionReview that the API server would send for the CREATE of this manifest."""
    found = fields.mapping(value, "document")
    group, slash, version = fields.needed(found.get("apiVersion"), "apiVersion").rpartition("/")
    metadata = fields.mapping(found.get("metadata"), "metadata")
    name = fields.text(metadata.get("name"), "metadata.name") or fields.text(
        metadata.get("generateName"), "metadata.generateName"
    )
    kind = fields.needed(found.get("kind"), "kind")
    return {
        "apiVersion": API_VERSION,
        "kind": "AdmissionReview",
        "request": {
            "uid": uuid7(),
            "kind": {"group": group if slash else "", "version": version, "kind": kind},
            "resource": {"group": group if slash else "", "version": version, "resource": f"{kind.lower()}s"},
            "operation": "CREATE",
            "namespace": fields.text(metadata.get("namespace"), "metadata.namespace") or namespace,
            "name": name or "",
            "userInfo": {"username": CHECKER},
            "object": found,
            "oldObject": None,
            "dryRun": True,
        },
    }
