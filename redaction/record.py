"""What of a model call may reach the inference log, by policy: the parts that go to the redactor, and the rest as its size only.

Pure, and imports nothing heavy: the gateway calls it on its way. Under `content: withhold` a value leaves the gateway's memory
only where the chat completions API has a field that holds no message content, and only there: the same name anywhere else (below
a message's content, in a tool's arguments) is content. A text is kept when it is one word, and it is still redacted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Content = Literal["withhold", "redact"]
Kind = Literal["kept", "size", "words"]
"""Of a field: `kept` as it is (a text if it is one word); its `size` only; or a mapping of the caller's own `words` to words."""

MAX_DEPTH = 64
MAX_ITEMS = 256
_WORD = re.compile(r"[!-~]{1,128}\Z")


def _each(names: str, kind: Kind) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


_PART = _each("type", "kept") | _each("text image_url input_audio file refusal", "size")
_TOOL_CALL = _each("id type index", "kept") | {"function": _each("name arguments", "size")}
_MESSAGE = {
    **_each("role tool_call_id", "kept"),
    **_each("name refusal audio reasoning_content annotations", "size"),
    "content": _PART,
    "tool_calls": _TOOL_CALL,
}
_USAGE = {
    **_each("prompt_tokens completion_tokens total_tokens", "kept"),
    "prompt_tokens_details": _each("cached_tokens audio_tokens", "kept"),
    "completion_tokens_details": _each(
        "reasoning_tokens audio_tokens accepted_prediction_tokens rejected_prediction_tokens", "kept"
    ),
}
_TOOL = _each("type", "kept") | {"function": _each("name", "size") | _each("strict", "kept")}
DOCUMENT: Mapping[str, Any] = {
    **_each("model user safety_identifier prompt_cache_key service_tier reasoning_effort verbosity store", "kept"),
    **_each("temperature top_p n seed frequency_penalty presence_penalty logprobs top_logprobs", "kept"),
    **_each("max_tokens max_completion_tokens stream parallel_tool_calls", "kept"),
    **_each("id object created system_fingerprint unreadable bytes", "kept"),
    **_each("stop prediction modalities web_search_options audio", "size"),
    "metadata": "words",
    "messages": _MESSAGE,
    "tools": _TOOL,
    "tool_choice": _TOOL,
    "stream_options": _each("include_usage", "kept"),
    "response_format": _each("type", "kept") | _each("json_schema", "size"),
    "choices": {
        **_each("index finish_reason", "kept"),
        **_each("text logprobs", "size"),
        "message": _MESSAGE,
        "delta": _MESSAGE,
    },
    "usage": _USAGE,
    "error": _each("type", "kept") | _each("message code param", "size"),
    "text": "size",
}
"""The fields of a request and of an answer (OpenAI's API reference, chat completions). Any other key is a caller's text: counted."""


def loggable(document: Any, content: Content) -> Any:
    """`document` (a request's or an answer's JSON) as it may go to the redactor."""
    return _judgeable(document, 0) if content == "redact" else _shape(document, DOCUMENT)


def _shape(value: Any, field: Any) -> Any:
    if field == "kept":
        plain = _is_number(value) or (isinstance(value, str) and _WORD.match(value))
        return value if plain else _size(value)
    if field == "words" and isinstance(value, Mapping) and len(value) <= MAX_ITEMS:
        kept = {key: _shape(item, "kept") for key, item in value.items() if _WORD.match(key)}
        return _counted(kept, value)
    if isinstance(field, Mapping):
        if isinstance(value, Mapping):
            return _counted({key: _shape(item, field[key]) for key, item in value.items() if key in field}, value)
        if isinstance(value, list) and len(value) <= MAX_ITEMS:
            return [_shape(item, field) if isinstance(item, Mapping) else _size(item) for item in value]
        if field is _TOOL and isinstance(value, str):  # tool_choice: auto
            return _shape(value, "kept")
    return _size(value)


def _counted(kept: dict[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    return kept if len(kept) == len(whole) else {**kept, "withheld_fields": len(whole) - len(kept)}


def _size(value: Any) -> Any:
    """How much there is. True, false and null say nothing and stay."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, list):
        return {"withheld_items": len(value)}
    if isinstance(value, Mapping):
        return {"withheld_fields": len(value)}
    return {"withheld_characters": len(str(value))}


def _judgeable(value: Any, depth: int) -> Any:
    """Without what no recognizer can judge: a text cut into tokens (`logprobs`), and numbers that stand for text (bytes, token ids)."""
    if depth > MAX_DEPTH:
        return _size(value)
    if isinstance(value, Mapping):
        return {
            key: _size(item) if key in {"logprobs", "top_logprobs"} and not _is_number(item) else _judgeable(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return _size(value) if any(_is_number(item) for item in value) else [_judgeable(item, depth + 1) for item in value]
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
