from __future__ import annotations

import json
from typing import Any

import pytest

from admission import review
from core.errors import BadInput, TooLarge
from tests.unit.admission.reviews import create, deployment, document, pod, remove, update


def edited(**request: Any) -> dict[str, Any]:
    found = document("CREATE", pod(1))
    for key, value in request.items():
        if value is ...:
            del found["request"][key]
        else:
            found["request"][key] = value
    return found


BAD_REVIEWS: dict[str, dict[str, Any]] = {
    "no request": {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"},
    "v1beta1": {**edited(), "apiVersion": "admission.k8s.io/v1beta1"},
    "another kind": {**edited(), "kind": "Review"},
    "request is a list": {**edited(), "request": []},
    "no uid": edited(uid=...),
    "empty uid": edited(uid=""),
    "uid a number": edited(uid=7),
    "no kind": edited(kind=...),
    "kind is text": edited(kind="Pod"),
    "no object": edited(object=...),
    "object is text": edited(object="pod"),
    "no operation": edited(operation=...),
    "unknown operation": edited(operation="PATCH"),
    "no user": edited(userInfo=...),
    "empty user": edited(userInfo={"username": ""}),
    "dryRun is text": edited(dryRun="true"),
    "update without old object": edited(operation="UPDATE", oldObject=None),
    "another kind inside": edited(object=deployment(1)),
    "another group inside": edited(object={**pod(1), "apiVersion": "evil.example/v1"}),
    "no apiVersion inside": edited(object={"kind": "Pod", "metadata": {}}),
    "another namespace inside": edited(namespace="team-b"),
    "another name inside": edited(name="other"),
    "metadata is a list": edited(object={**pod(1), "metadata": []}),
}
BAD_BYTES = {
    "empty": b"", "not JSON": b"{", "a list": b"[]", "twice the same key": b'{"request":{},"request":{}}', "NaN": b'{"a":NaN}',
    "not UTF-8": b'{"a":"\xff"}', "two documents": b"{}{}",
}  # fmt: skip


@pytest.mark.parametrize("found", BAD_REVIEWS.values(), ids=BAD_REVIEWS.keys())
def test_a_review_that_is_wrong_names_the_field(found: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        review.read(found)
    assert caught.value.where


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES.keys())
def test_bytes_that_are_no_review(data: bytes) -> None:
    with pytest.raises(BadInput):
        review.parse(data)


def test_too_large_and_too_deep() -> None:
    with pytest.raises(TooLarge):
        review.parse(b" " * (review.MAX_BYTES + 1))
    with pytest.raises(TooLarge):
        review.parse(b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}")


def test_what_is_read() -> None:
    found = review.read(review.parse(create(deployment(1, uid="u-1"), uid="r-1")))
    assert (found.uid, found.operation, found.group, found.kind, found.subject) == (
        "r-1",
        "CREATE",
        "apps",
        "Deployment",
        "Deployment/chat",
    )
    assert found.namespace == "team-a"
    assert not found.dry_run
    assert review.read(review.parse(remove(pod(1)))).present == pod(1)
    assert review.read(review.parse(update(pod(1), pod(2)))).old_object == pod(2)


def test_a_generated_name_is_taken_from_the_object() -> None:
    assert review.read(edited(name="")).name == "p"


def test_answers() -> None:
    allowed = review.answer("u", allowed=True, warnings=["two\nlines " + "x" * 400], annotations={"a": "b"})
    assert allowed["response"]["allowed"] is True
    assert "status" not in allowed["response"]
    assert "\n" not in allowed["response"]["warnings"][0]
    assert len(allowed["response"]["warnings"][0]) == review.MAX_WARNING
    denied = json.loads(json.dumps(review.answer("u", allowed=False, message="no")))["response"]
    assert denied == {
        "uid": "u",
        "allowed": False,
        "status": {"status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"},
    }
