"""AdmissionReview v1 in and out (k8s.io/api/admission/v1). Pure: bytes and values, no sockets, no database.

Reading goes in three steps, so that a request whose `uid` can be read is answered with that uid even when the rest is wrong:
`parse` (bytes to a JSON object), `uid_of`, `read` (to a `Review`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from admission import fields
from core import jsonread
from core.errors import BadInput

API_VERSION = "admission.k8s.io/v1"
MAX_BYTES = 3 * 1024 * 1024
MAX_WARNING = 256
MAX_MESSAGE = 8192

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@dataclass(frozen=True, slots=True)
class Review:
    """One request of the API server. `object` is absent for DELETE, `old_object` for CREATE."""

    uid: str
    operation: Operation
    group: str
    kind: str
    resource_group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    username: str
    dry_run: bool
    object: dict[str, Any] | None
    old_object: dict[str, Any] | None
    options: dict[str, Any]

    @property
    def subject(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def present(self) -> dict[str, Any]:
        """The object that the request is about: the new one, or on DELETE the old one."""
        return self.object or self.old_object or {}

    @property
    def metadata(self) -> dict[str, Any]:
        return fields.mapping(self.present.get("metadata"), "object.metadata")


def parse(data: bytes) -> dict[str, Any]:
    """The review as a JSON object. TooLarge beyond 3 MiB or 64 levels; BadInput for anything that is not strict JSON."""
    return jsonread.loads_object(data, max_bytes=MAX_BYTES)


def uid_of(document: Mapping[str, Any]) -> str | None:
    """The request's uid when it can be read; an answer without it would mean nothing to the API server."""
    request = document.get("request")
    uid = request.get("uid") if isinstance(request, dict) else None
    return uid if isinstance(uid, str) and 0 < len(uid) <= 128 else None


def read(document: dict[str, Any]) -> Review:
    """The typed request. BadInput names the field that is missing, of a wrong type or at odds with another."""
    if document.get("apiVersion") != API_VERSION or document.get("kind") != "AdmissionReview":
        raise BadInput(f"expected kind AdmissionReview of {API_VERSION}", where="apiVersion")
    request = fields.mapping(document.get("request"), "request")
    operation = fields.needed(request.get("operation"), "request.operation")
    if operation not in get_args(Operation):
        raise BadInput("expected CREATE, UPDATE, DELETE or CONNECT", where="request.operation")
    kind = fields.mapping(request.get("kind"), "request.kind")
    resource = fields.mapping(request.get("resource"), "request.resource")
    user = fields.mapping(request.get("userInfo"), "request.userInfo")
    found = Review(
        uid=fields.needed(request.get("uid"), "request.uid", most=128),
        operation=operation,  # type: ignore[arg-type]  # one of the four, checked above
        group=fields.text(kind.get("group"), "request.kind.group", most=253) or "",
        kind=fields.needed(kind.get("kind"), "request.kind.kind", most=63),
        resource_group=fields.text(resource.get("group"), "request.resource.group", most=253) or "",
        resource=fields.text(resource.get("resource"), "request.resource.resource", most=253) or "",
        subresource=fields.text(request.get("subResource"), "request.subResource", most=253) or "",
        namespace=fields.text(request.get("namespace"), "request.namespace", most=253) or "",
        name=fields.text(request.get("name"), "request.name", most=253) or "",
        username=fields.needed(user.get("username"), "request.userInfo.username", most=1024),
        dry_run=fields.flag(request.get("dryRun"), "request.dryRun"),
        object=_object(request.get("object"), "request.object"),
        old_object=_object(request.get("oldObject"), "request.oldObject"),
        options=fields.mapping(request.get("options"), "request.options"),
    )
    return _checked(found)


def _object(value: Any, where: str) -> dict[str, Any] | None:
    return None if value is None else fields.mapping(value, where)


def _checked(review: Review) -> Review:
    """The parts agree with each other: what is decided about is what the API server will store."""
    if review.operation in ("CREATE", "UPDATE") and review.object is None:
        raise BadInput("is missing", where="request.object")
    if review.operation != "DELETE" and review.object is not None:
        _same(review, review.object, "request.object")
    if review.operation == "UPDATE" and review.old_object is None:
        raise BadInput("is missing", where="request.oldObject")
    metadata = review.metadata
    namespace = fields.text(metadata.get("namespace"), "request.object.metadata.namespace", most=253)
    if namespace and review.kind != "Namespace" and namespace != review.namespace:
        raise BadInput("the object's namespace is not the request's", where="request.namespace")
    name = fields.text(metadata.get("name"), "request.object.metadata.name", most=253) or ""
    if review.name and name and review.name != name and review.operation != "CONNECT":
        raise BadInput("the object's name is not the request's", where="request.name")
    return review if review.name else replace(review, name=name)


def _same(review: Review, found: dict[str, Any], where: str) -> None:
    version = fields.needed(found.get("apiVersion"), f"{where}.apiVersion")
    group = version.rpartition("/")[0]
    if group != review.group or fields.needed(found.get("kind"), f"{where}.kind") != review.kind:
        raise BadInput("the object's apiVersion and kind are not those of request.kind", where=where)


def answer(
    uid: str,
    *,
    allowed: bool,
    code: int = 403,
    message: str = "",
    warnings: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The AdmissionReview that answers `uid`. Warnings travel in HTTP headers, so they are one line and short."""
    response: dict[str, Any] = {"uid": uid, "allowed": allowed}
    if not allowed:
        reason = {400: "BadRequest", 403: "Forbidden", 409: "Conflict", 413: "RequestEntityTooLarge", 503: "ServiceUnavailable"}
        response["status"] = {
            "status": "Failure",
            "code": code,
            "reason": reason.get(code, "InternalError"),
            "message": message[:MAX_MESSAGE],
        }
    if warnings:
        response["warnings"] = [" ".join(warning.split())[:MAX_WARNING] for warning in warnings]
    if annotations:
        response["auditAnnotations"] = dict(annotations)
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
