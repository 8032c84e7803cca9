"""Log policies, and what of a call they let out of the gateway's memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from redaction import load
from redaction.policy import ENTITIES, names, read_policy
from redaction.presidio import PortcullisAnalyzer
from redaction.record import DOCUMENT, Content, loggable

CONTENTS: tuple[Content, ...] = ("withhold", "redact")


def test_the_shipped_policies_and_their_default() -> None:
    assert names() == ["default", "patterns"]
    assert read_policy("default").content == "withhold", "until names are found, message content stays out"
    assert read_policy("patterns").content == "redact"


WRONG = {
    "an unknown key": "description: x\ncontent: withhold\nmode: lax\n",
    "a wrong word": "description: x\ncontent: keep\n",
    "no content": "description: x\n",
    "a wrong type": "description: x\ncontent: withhold\nthreshold: high\n",
    "a threshold beyond one": "description: x\ncontent: withhold\nthreshold: 40.0\n",
    "a key twice": "description: x\ncontent: withhold\ncontent: redact\n",
    "no mapping": "- withhold\n",
    "no entity": "description: x\ncontent: redact\nentities: []\n",
    "not YAML": "{",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_policy_that_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(WRONG[name])
    with pytest.raises(ConfigError):
        read_policy(str(tmp_path / "own.yaml"))


def test_an_unknown_name_says_which_there_are() -> None:
    for name in ("lax", "../policies/default", "", "default.json"):
        with pytest.raises(ConfigError, match="default, patterns"):
            read_policy(name)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy("/nowhere/own.yaml")


def test_a_policy_of_ones_own_narrows_what_is_found(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("description: mail only\ncontent: redact\nentities: [EMAIL_ADDRESS]\n")
    text = "jane.roe@example.org, 4111 1111 1111 1111"
    assert load(str(own)).redact(text).text == "<EMAIL_ADDRESS>, 4111 1111 1111 1111"
    own.write_text("description: x\ncontent: redact\nentities: [E_MAIL]\n")
    with pytest.raises(ConfigError, match="nothing finds E_MAIL; known are"):
        load(str(own))


def test_presidio_users_can_drop_the_analyzer_in() -> None:
    from presidio_analyzer import AnalyzerEngine

    analyzer = PortcullisAnalyzer()
    assert isinstance(analyzer, AnalyzerEngine)
    text = "write to alice@\u200bexample.com or 4111 1111 1111 1111"
    found = analyzer.analyze(text, language="en")
    assert {(one.entity_type, text[one.start : one.end]) for one in found} == {
        ("EMAIL_ADDRESS", "alice@\u200bexample.com"), ("CREDIT_CARD", "4111 1111 1111 1111")
    }  # fmt: skip
    only = analyzer.analyze(text=text, language="en", entities=["CREDIT_CARD"], score_threshold=0.1)
    assert [one.entity_type for one in only] == ["CREDIT_CARD"]
    with pytest.raises(ValueError, match=r"xx|No matching"):
        analyzer.analyze("some text", language="xx")


REQUEST: dict[str, Any] = {
    "model": "llama-3",
    "user": "jane.roe@example.org",
    "temperature": 0.5,
    "stream": True,
    "stop": ["CANARY"],
    "metadata": {"CANARY of mine": "x", "team": "CANARY wrote", "order": "o-17"},
    "logit_bias": {"1234": 5},
    "prompt_in_another_field": "CANARY",
    "CANARY": {"deep": 1},
    "messages": [
        {"role": "user", "content": "CANARY says hello", "name": "CANARY"},
        {"role": "user", "content": [{"type": "text", "text": "CANARY"}, {"type": "image_url", "image_url": {"url": "data:CANARY"}}]},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"q": "CANARY"}'}}]},
        {"role": "CANARY is my name", "content": None},
    ],
    "tools": [{"type": "function", "function": {"name": "CANARY", "description": "CANARY", "parameters": {"properties": {"CANARY": {}}}}}],
}  # fmt: skip
RESPONSE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "CANARY", "reasoning_content": "CANARY", "refusal": None},
            "logprobs": {
                "content": [{"token": "CANARY", "bytes": [67, 65], "logprob": -0.1, "top_logprobs": [{"token": "CANARY"}]}]
            },
        }
    ],
    "usage": {"total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}},
}


def test_withheld_content_stays_in_the_gateway_and_the_rest_goes_on() -> None:
    shown = loggable({"request": REQUEST["messages"], "response": RESPONSE}, "withhold", served="llama-3")
    assert "CANARY" not in json.dumps(shown)
    request = loggable(REQUEST, "withhold", served="llama-3")
    assert "CANARY" not in json.dumps(request)
    assert (request["temperature"], request["model"], request["stream"]) == (0.5, "llama-3", True)
    assert request["user"] == {"withheld_characters": 20}
    assert request["messages"][0] == {
        "role": "user",
        "content": {"withheld_characters": 17},
        "name": {"withheld_characters": 6},
    }
    assert request["metadata"] == {"withheld_fields": 3}
    assert request["withheld_fields"] == 3
    response = loggable(RESPONSE, "withhold", served="llama-3")
    assert response["usage"] == RESPONSE["usage"]
    assert response["choices"][0]["finish_reason"] == "stop"
    assert loggable(REQUEST, "redact", served="llama-3") == REQUEST


HIDDEN: dict[str, Any] = {
    "a field's name inside of a content": {"messages": [{"content": {"user": "CANARY", "id": "CANARY", "model": "CANARY"}}]},
    "arguments that are no text": {"messages": [{"tool_calls": [{"function": {"arguments": {"user": "CANARY", "n": 4111}}}]}]},
    "a number as content": {"messages": [{"content": 4111}], "choices": [{"message": {"content": 4111.5}}]},
    "numbers in a content's parts": {"messages": [{"content": [4111, {"type": "text", "text": 4111}]}]},
    "lists in lists": {"messages": [[{"role": "CANARY"}]], "stop": [["CANARY"]], "choices": [[["CANARY"]]]},
    "a word where a mapping belongs": {"messages": ["CANARY"], "usage": "CANARY", "choices": "CANARY", "metadata": "CANARY"},
    "a mapping where a word belongs": {"user": {"id": "CANARY"}, "model": ["CANARY"], "metadata": {"a": {"id": "CANARY"}}},
    "a tool's parameters": {"tools": [{"function": {"parameters": {"type": "CANARY"}, "type": "CANARY"}}]},
    "a name that is no function's": {"tool_choice": {"type": "function", "function": {"name": "CANARY", "id": "CANARY"}}},
    "another level": {"request": {"user": "CANARY"}},
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_kept_field_is_kept_only_where_the_api_has_it(name: str) -> None:
    shown = json.dumps(loggable(HIDDEN[name], "withhold", served="llama-3"))
    assert "CANARY" not in shown
    assert "4111" not in shown


def test_what_no_recognizer_can_judge_does_not_go_with_the_content() -> None:
    """Row 26: a mail address as tokens, as bytes, or as token ids passes every recognizer."""
    shown = loggable(RESPONSE, "redact", served="llama-3")
    assert shown["choices"][0]["logprobs"] == {"withheld_fields": 1}
    assert shown["choices"][0]["message"] == RESPONSE["choices"][0]["message"]
    assert loggable({"logprobs": True, "top_logprobs": 5, "prompt": [67, 65]}, "redact", served="llama-3") == {
        "logprobs": True, "top_logprobs": 5, "prompt": {"withheld_items": 2}
    }  # fmt: skip
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    for content in CONTENTS:
        assert len(json.dumps(loggable({"messages": deep}, content, served="m"))) < 500


def test_the_entities_that_a_policy_may_name_are_those_that_are_found() -> None:
    assert set(PortcullisAnalyzer().get_supported_entities("en")) == ENTITIES
    with pytest.raises(ConfigError, match="nothing finds NAME"):
        PortcullisAnalyzer(entities=["NAME"])


MARK = "kumquat"
"""One word, no blank: what a field of one word would let through."""


def places(document: Any) -> list[tuple[Any, ...]]:
    """The path to every value of `document`, and to every key (ending in None: the key itself is the place)."""
    found: list[tuple[Any, ...]] = [()]
    if isinstance(document, dict):
        for key, item in document.items():
            found += [(key, None), *((key, *rest) for rest in places(item))]
    if isinstance(document, list):
        for at, item in enumerate(document):
            found += [(at, *rest) for rest in places(item)]
    return found


def marked(document: Any, path: tuple[Any, ...], mark: Any) -> Any:
    """A copy of `document` with `mark` at `path`."""
    if not path:
        return mark
    if path[1:] == (None,):
        return {(mark if key == path[0] else key): item for key, item in document.items()}
    if isinstance(document, list):
        return [marked(item, path[1:], mark) if at == path[0] else item for at, item in enumerate(document)]
    return {key: marked(item, path[1:], mark) if key == path[0] else item for key, item in document.items()}


def every_field(field: Any) -> Any:
    """A document that has every field of the API, each list with one item."""
    if not isinstance(field, Mapping):
        return "x"
    return {name: [every_field(inner)] if isinstance(inner, Mapping) else "x" for name, inner in field.items()}


WHOLE: list[Any] = [REQUEST, RESPONSE, every_field(DOCUMENT)]
PLACES = [(at, path) for at, document in enumerate(WHOLE) for path in places(document)]


@given(
    place=st.sampled_from(PLACES),
    word=st.text("abcdefghijklmnopqrstuvwxyz_-.@0123456789", min_size=1, max_size=40),
    wrap=st.sampled_from(
        [lambda m: m, lambda m: [m], lambda m: {"role": m}, lambda m: {m: 1}, lambda m: [{"type": m, "id": m}]]
    ),
)
def test_no_word_gets_through_wherever_it_stands(place: Any, word: str, wrap: Any) -> None:
    mark = f"{MARK}{word}{MARK}"
    at, path = place
    put = mark if path[-1:] == (None,) else wrap(mark)
    shown = json.dumps(loggable(marked(WHOLE[at], path, put), "withhold", served="llama-3"))
    assert MARK not in shown


def test_no_word_gets_through_at_any_of_the_places() -> None:
    """The same, place by place, so that no run of luck passes over one."""
    for at, path in PLACES:
        shown = json.dumps(loggable(marked(WHOLE[at], path, MARK), "withhold", served="llama-3"))
        assert MARK not in shown, path


@pytest.mark.parametrize("number", [4111_1111_1111_1111, 5_551_234_567, -78_051_120, 4.111111111111111, 0.4111111, 1e300])
def test_no_number_that_could_say_something_gets_through(number: float) -> None:
    """A card's, a phone's, an insurance number, whole or as the places of a fraction."""
    for at, path in PLACES:
        if path[-1:] != (None,):
            assert str(number) not in json.dumps(loggable(marked(WHOLE[at], path, number), "withhold", served="llama-3")), path


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(MARK) | st.just(f"{MARK} or two"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["content", "text", "user", MARK, "messages", "role", "metadata", "choices", "id", "model", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_no_word_gets_through_whatever_the_document(document: Any) -> None:
    assert MARK not in json.dumps(loggable(document, "withhold", served="llama-3"))


def test_words_of_closed_lists_and_the_resolved_model_are_kept() -> None:
    document = {
        "model": "llama-3", "tool_choice": "auto", "response_format": {"type": "json_object"}, "service_tier": "flex", "n": 2,
        "messages": [{"role": "tool", "content": [{"type": "text"}]}], "choices": [{"finish_reason": "length", "index": 0}],
        "error": {"type": "server_error", "code": "context_length_exceeded"}, "temperature": 0.70001,
    }  # fmt: skip
    assert loggable(document, "withhold", served="llama-3") == document | {"temperature": 0.7}
    assert loggable({"model": "llama-3"}, "withhold", served="other") == {"model": {"withheld_characters": 7}}


def test_a_number_that_json_does_not_have_is_said_to_be_one() -> None:
    for number in (float("nan"), float("inf"), -float("inf")):
        for content in CONTENTS:
            shown = loggable({"temperature": number, "choices": [{"message": {"n": number}}]}, content, served="m")
            assert json.loads(json.dumps(shown, allow_nan=False))["temperature"] == {"withheld": "number"}
