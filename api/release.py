"""`POST /api/v1/keys/release`: the key of sealed weights, where policy grants it."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import Depends
from fastapi.responses import JSONResponse

from api.access import By, Door
from api.routing import Routes, Sent, sent
from core.names import ModelRef
from weights.keys import WrappedKey

routes = Routes("/api/v1/keys", "keys")


class Asked(Sent):
    """`model` is NAME@VERSION, `manifest` its digest, `keys` the entries of the folder's keys.json."""

    model: str
    manifest: str
    keys: list[dict[str, str]]


@routes.post("/release", "admin", "operator", "service", body=Asked)
async def release(door: Door, by: By, asked: Annotated[Asked, Depends(sent(Asked))]) -> Any:
    """Releases the key of a sealed folder (`key`, base64) with the decision; 403 with the decision when policy does not.

    The rule weights/key-release decides, whatever the caller's role here: a grant in the domain weights is needed.
    """
    wrapped = [WrappedKey.of(item) for item in asked.keys]
    released = await door.key_release.release(by, ModelRef.parse(asked.model), asked.manifest, wrapped)
    decision = released.decision
    if released.key is None:
        error = {"message": decision.explanation or "denied", "code": decision.code or "denied", "where": ""}
        return JSONResponse({"error": error, "decision": decision.as_json()}, 403)
    return {"key": base64.b64encode(released.key).decode(), "decision": decision.as_json()}
