"""What of a model call may reach the inference log, by policy: the parts that go to the redactor, and the rest as its size only.

Pure, and imports nothing heavy: the gateway calls it on its way. Under `content: withhold` nothing leaves that a caller or a model
could have worded: words are kept where the chat completions API has a closed list of them and the value is on that list, numbers
where they are too small to say anything, and the model's name where it is the one that the gateway resolved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

Content = Literal["withhold", "redact"]

MAX_DEPTH = 64
MAX_ITEMS = 256
MAX_COUNT = 99_999_999
"""The largest count that is kept: eight digits are shorter than a card's, a phone's or an insurance number."""

Field = Literal["size", "count", "rate", "model"] | frozenset[str] | Mapping[str, Any]
"""Of a field: its `size` only; a `count` up to MAX_COUNT; a `rate` from -2 to 2, to two decimals; the resolved `model`'s name; one
of a closed list of words; or the fields of a mapping (or of each mapping of a list)."""


def _each(names: str, kind: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PART = {"type": _words("text image_url input_audio file refusal")} | _each("text image_url input_audio file refusal", "size")
_TOOL_TYPES = _words("function custom")
_TOOL_CALL = {
    **_each("id", "size"),
    **_each("type", _TOOL_TYPES),
    "index": "count",
    "function": _each("name arguments", "size"),
    "custom": _each("name input", "size"),
}
_MESSAGE = {
    "role": _words("developer system user assistant tool function"),
    **_each("tool_call_id name refusal audio reasoning reasoning_content annotations function_call", "size"),
    "content": _PART,
    "tool_calls": _TOOL_CALL,
}
_USAGE = {
    **_each("prompt_tokens completion_tokens total_tokens", "count"),
    "prompt_tokens_details": _each("cached_tokens audio_tokens", "count"),
    "completion_tokens_details": _each(
        "reasoning_tokens audio_tokens accepted_prediction_tokens rejected_prediction_tokens", "count"
    ),
}
_TOOL = {"type": _TOOL_TYPES, "function": _each("name strict", "size")}
_CHOICE = {"type": _words("function custom allowed_tools"), "function": _each("name", "size")}
_CHOICE_WORDS = _words("none auto required")
_ERROR = {
    "type": _words(
        "invalid_request_error authentication_error permission_error not_found_error rate_limit_error server_error api_error"
        " insufficient_quota tokens requests"
    ),
    "code": _words(
        "context_length_exceeded model_not_found rate_limit_exceeded insufficient_quota invalid_api_key content_filter"
    ),
    **_each("message param", "size"),
}
DOCUMENT: Mapping[str, Any] = {
    "model": "model",
    "object": _words("chat.completion chat.completion.chunk"),
    "service_tier": _words("auto default flex scale priority"),
    "reasoning_effort": _words("none minimal low medium high xhigh"),
    "verbosity": _words("low medium high"),
    **_each("temperature top_p frequency_penalty presence_penalty", "rate"),
    **_each("n top_logprobs max_tokens max_completion_tokens bytes", "count"),
    **_each("store logprobs stream parallel_tool_calls unreadable", "size"),
    **_each("user safety_identifier prompt_cache_key metadata seed id created system_fingerprint", "size"),
    **_each("stop prediction modalities web_search_options audio", "size"),
    "messages": _MESSAGE,
    "tools": _TOOL,
    "tool_choice": _CHOICE,
    "stream_options": _each("include_usage", "size"),
    "response_format": {"type": _words("text json_object json_schema"), "json_schema": "size"},
    "choices": {
        "index": "count",
        "finish_reason": _words("stop length tool_calls content_filter function_call"),
        **_each("text logprobs", "size"),
        "message": _MESSAGE,
        "delta": _MESSAGE,
    },
    "usage": _USAGE,
    "error": _ERROR,
}
"""The fields of a request and of an answer, and the words of its closed lists (OpenAI's API reference, chat completions). Any other
key is a caller's text: counted."""


def loggable(document: Any, content: Content, *, served: str) -> Any:
    """`document` (a request's or an answer's JSON) as it may go to the redactor. `served`: the model's name as it was resolved."""
    return _judgeable(document, 0) if content == "redact" else _shape(document, DOCUMENT, served)


def _shape(value: Any, field: Any, served: str) -> Any:
    if field is _CHOICE and isinstance(value, str):
        field = _CHOICE_WORDS
    if isinstance(field, Mapping):
        if isinstance(value, Mapping):
            kept = {key: _shape(item, field[key], served) for key, item in value.items() if key in field}
            return _counted(kept, value)
        if isinstance(value, list) and len(value) <= MAX_ITEMS:
            return [_shape(item, field, served) if isinstance(item, Mapping) else _size(item) for item in value]
    elif isinstance(value, str):
        known = value in field if isinstance(field, frozenset) else field == "model" and value == served
        return value if known else _size(value)
    elif field == "count" and _is_number(value) and isinstance(value, int) and 0 <= value <= MAX_COUNT:
        return value
    elif field == "rate" and _is_number(value) and -2 <= value <= 2:
        return round(float(value), 2)
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
    return {"withheld_characters": len(value)} if isinstance(value, str) else {"withheld": "number"}


def _judgeable(value: Any, depth: int) -> Any:
    """Without what no recognizer can judge: a text cut into tokens (`logprobs`), and numbers that stand for text (bytes, token ids).
    A number that is none (NaN, or past a float's range) is not JSON's (RFC 8259, 6)."""
    if depth > MAX_DEPTH:
        return _size(value)
    if isinstance(value, Mapping):
        return {
            key: _size(item) if key in {"logprobs", "top_logprobs"} and not _is_number(item) else _judgeable(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return _size(value) if any(_is_number(item) for item in value) else [_judgeable(item, depth + 1) for item in value]
    return _size(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
