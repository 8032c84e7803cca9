"""What of a model call may reach the inference log, by policy: the parts that go to the redactor, and the rest as its size only.

Pure, and imports nothing heavy: the gateway calls it on its way. Under `content: withhold` only what the chat completions API
itself names is looked at; a text leaves the gateway's memory only where it stands in a field that by the API's definition holds
no message content, is one word, and then only redacted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Content = Literal["withhold", "redact"]

TEXTS = frozenset(
    ["model", "user", "safety_identifier", "prompt_cache_key", "service_tier", "reasoning_effort", "verbosity", "role", "type", "finish_reason", "id", "object", "system_fingerprint", "tool_choice", "tool_call_id"]
)
"""Fields whose text is kept (redacted) when it is one word of at most 128 visible ASCII characters."""

FIELDS = TEXTS | frozenset(
    ["messages", "content", "name", "tool_calls", "function", "arguments", "refusal", "audio", "store", "frequency_penalty", "logprobs", "max_tokens", "max_completion_tokens", "n", "modalities", "prediction", "presence_penalty", "response_format", "json_schema", "strict", "seed", "stop", "stream", "stream_options", "include_usage", "temperature", "top_p", "top_logprobs", "tools", "parallel_tool_calls", "web_search_options", "created", "choices", "index", "message", "delta", "usage", "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details", "cached_tokens", "audio_tokens", "reasoning_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens", "annotations", "text", "image_url", "input_audio", "file", "error", "code", "param", "reasoning_content"]
)
"""The API's own field names. Any other key is a caller's text, so it and what stands below it are only counted."""

MAX_DEPTH = 16
MAX_ITEMS = 256
_WORD = re.compile(r"[!-~]{1,128}\Z")


def loggable(document: Any, content: Content) -> Any:
    """`document` (a request's or an answer's JSON) as it may go to the redactor."""
    return document if content == "redact" else _shape(document, "", 0)


def _shape(value: Any, field: str, depth: int) -> Any:
    """Structure, numbers and truth values; texts as their length."""
    if isinstance(value, str):
        return value if field in TEXTS and _WORD.match(value) else {"withheld_characters": len(value)}
    if isinstance(value, Mapping):
        if depth >= MAX_DEPTH:
            return {"withheld_fields": len(value)}
        kept = {key: _shape(item, key, depth + 1) for key, item in value.items() if key in FIELDS}
        return kept if len(kept) == len(value) else {**kept, "withheld_fields": len(value) - len(kept)}
    if isinstance(value, list):
        # Lists of numbers are token ids, embeddings or bytes: content in another spelling.
        if depth >= MAX_DEPTH or len(value) > MAX_ITEMS or any(_is_number(item) for item in value):
            return {"withheld_items": len(value)}
        return [_shape(item, "", depth + 1) for item in value]
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
