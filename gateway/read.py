"""Step 1: a chat request from a stranger's bytes to a typed call. Pure; what is not understood is refused, never passed on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core import jsonread
from core.errors import BadInput

STEERING = frozenset(
    {
        "api_base", "base_url", "api_key", "api_version", "custom_llm_provider", "model_id", "model_list", "fallbacks",
        "extra_headers", "extra_body", "extra_query", "organization", "proxy", "deployment_id", "target",
    }
)  # fmt: skip
"""Fields with which other gateways let a caller choose the upstream or its credentials (litellm#24952, #41810)."""

MAX_PURPOSE = 64


@dataclass(frozen=True, slots=True)
class Call:
    """A chat completion that was asked for. `body` is the parsed request (it came in `size` bytes), forwarded written anew."""

    served: str
    stream: bool
    purpose: str | None
    body: Mapping[str, Any]
    size: int

    def forward(self, max_tokens: int | None) -> bytes:
        """The bytes for the upstream; with `max_tokens` no larger amount is asked for."""
        body = dict(self.body)
        if max_tokens is not None:
            names = [name for name in ("max_tokens", "max_completion_tokens") if isinstance(body.get(name), int)]
            for name in names or ["max_tokens"]:
                body[name] = min(body.get(name, max_tokens), max_tokens)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def read_call(data: bytes, *, query: bytes, purpose: bytes | None, max_bytes: int) -> Call:
    """The call in `data`. BadInput (TooLarge) for everything that has more than one meaning or steers the proxy."""
    if query:
        raise BadInput("this route takes no query; the model stands in the body", where="query")
    body = jsonread.loads_object(data, max_bytes=max_bytes)
    steering = sorted(key for key in body if key.lower() in STEERING)
    if steering:
        raise BadInput(f"the field {steering[0][:40]!r} is not accepted: the upstream is the operator's choice", where="body")
    variants = [key for key in body if key != "model" and key.lower() == "model"]
    served = body.get("model")
    if variants or not isinstance(served, str) or not 0 < len(served) <= 128:
        raise BadInput("name one model, as text, in the field model", where="model")
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise BadInput("messages must be a list with at least one message", where="messages")
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise BadInput("stream must be true or false", where="stream")
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise BadInput("must be a whole number above 0", where=name)
    return Call(served, stream, read_purpose(purpose), body, len(data))


def read_purpose(value: bytes | None) -> str | None:
    """X-Portcullis-Purpose: one word of letters, digits, dots, dashes and underscores."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if not 0 < len(text) <= MAX_PURPOSE or not all(c.isascii() and (c.isalnum() or c in "._-") for c in text):
        raise BadInput(
            f"write one purpose of at most {MAX_PURPOSE} letters, digits, '.', '_' and '-'", where="x-portcullis-purpose"
        )
    return text
