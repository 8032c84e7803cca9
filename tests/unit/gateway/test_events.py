"""An upstream's stream, however it writes its events, is one answer again before it is judged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events import messages, streamed


def event(delta: Any, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta}]}


ONE = b'{"a":1}'
FORMS: dict[str, tuple[bytes, list[Any]]] = {
    "a blank after the colon": (b"data: " + ONE + b"\n\n", [{"a": 1}]),
    "no blank": (b"data:" + ONE + b"\n\n", [{"a": 1}]),
    "CR LF": (b"data:" + ONE + b"\r\n\r\ndata: 2\r\n\r\n", [{"a": 1}, 2]),
    "CR": (b"data:" + ONE + b"\r\rdata: 2\r\r", [{"a": 1}, 2]),
    "a byte order mark": (b"\xef\xbb\xbfdata:" + ONE + b"\n\n", [{"a": 1}]),
    "several lines for one text": (b'data: {"a":\ndata: 1}\n\n', [{"a": 1}]),
    "one text in each line": (b"data: 1\ndata: 2\n\n", [1, 2]),
    "other fields": (b"event: x\nid: 3\ndata:" + ONE + b"\n: comment\nretry: 3\n\n", [{"a": 1}]),
    "no end": (b"data:" + ONE, [{"a": 1}]),
    "cut": (b'data: 1\n\ndata: {"a', [1]),
    "no JSON": (b"data: [DONE]\n\ndata\n\ndatax: 1\n\n", []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", FORMS)
def test_events_are_read_as_the_standard_has_them(name: str) -> None:
    data, expected = FORMS[name]
    assert list(messages(data)) == expected


DELTAS: dict[str, tuple[list[Any], Any]] = {
    "content": ([{"role": "assistant", "content": ""}, {"role": "assistant", "content": "jane"}, {"content": ".roe"}],
                {"role": "assistant", "content": "jane.roe"}),
    "refusal": ([{"refusal": "I ca"}, {"refusal": "nnot"}], {"refusal": "I cannot"}),
    "reasoning": ([{"reasoning": "a", "reasoning_content": "c"}, {"reasoning": "b", "reasoning_content": "d"}],
                  {"reasoning": "ab", "reasoning_content": "cd"}),
    "tool calls": (
        [
            {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}, {"index": 1, "function": {"arguments": "x"}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
        ],
        {"tool_calls": [
            {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"index": 1, "function": {"arguments": "x"}},
        ]},
    ),
    "null between": ([{"content": "a"}, {"content": None}, {"content": "b"}], {"content": "ab"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DELTAS)
def test_what_was_cut_into_deltas_is_put_together(name: str) -> None:
    deltas, expected = DELTAS[name]
    data = b"".join(b"data:" + json.dumps(event(delta)).encode() + b"\n\n" for delta in deltas)
    assert streamed(data) == {"choices": [{"delta": expected, "index": 0}]}


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["content", "refusal", "reasoning"]), st.text(max_size=5))))
def test_every_piece_of_every_choice_is_there_in_order(pieces: list[tuple[int, str, str]]) -> None:
    data = b"".join(b"data: " + json.dumps(event({name: text}, index)).encode() + b"\n\n" for index, name, text in pieces)
    whole: dict[int, dict[str, str]] = {}
    for index, name, text in pieces:
        said = whole.setdefault(index, {})
        said[name] = said.get(name, "") + text
    assert {choice["index"]: choice["delta"] for choice in streamed(data)["choices"]} == whole


ODD = [
    b'{"choices":[{"index":[],"delta":{"content":"a"}}]}',
    b'{"choices":[{"index":0,"delta":{"content":{"a":["b",["c"]]}}},{"index":0,"delta":{"content":"d"}}]}',
    b'{"a":' + b"[" * 100_000,
    b'{"choices":[{"delta":{"content":' + b"[" * 500 + b"]" * 500 + b"}}]}",
    b'{"choices":[3,{"delta":[]}]}',
    b'{"choices":3}',
    b"[1]",
]


@pytest.mark.parametrize("data", ODD, ids=range(len(ODD)))
def test_an_upstream_cannot_stop_the_log(data: bytes) -> None:
    json.dumps(streamed(b"data: " + data + b"\n\ndata: " + data))
