"""What must not survive, what must, and that nothing here reaches for a network. Rows: failure-cases of redaction."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer

from redaction import Redactor, Span, load
from redaction.files import WITHHELD, redact_stream
from redaction.presidio import _TOKEN, BlankNlp, _Context
from redaction.redactor import merge

# Key shapes are put together here so that no scanner takes this file for a leak.
AWS = "AKIA" + "ABCDEFGHIJKLMNOP"
GITHUB = "ghp_" + "a1B2" * 9
JWT = f"{'eyJhbGciOiJIUzI1NiJ9'}.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
PEM = "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END " + "PRIVATE KEY-----"

MUST_GO: dict[str, tuple[str, str]] = {
    "an e-mail address": ("mail alice@example.com now", "alice@example.com"),
    "row 1, zero width": ("to ali\u200bce@exa\u200bmple.com", "exa"),
    "row 3, full width mail": ("to bob\uff20test.org", "bob"),
    "row 3, full width card": ("card \uff14111 1111 1111 1111", "1111"),
    "row 4, soft hyphen": ("to jo\u00adhn@example.com", "hn@"),
    "row 6, other digits": ("card \u0664111 1111 1111 1111", "1111"),
    "row 8, percent": ("to alice%40example.com", "alice"),
    "row 8, entity": ("to alice&#64;example.com", "alice"),
    "row 9, escape": (r"to alice\u0040example.com", "alice"),
    "row 13, separators": ("card 4111-1111-1111-1111", "1111"),
    "row 15, spaced lower-case IBAN": ("pay de89 3704 0044 0532 0130 00", "3704"),
    "row 16, plus address": ("to a+b@example.co", "a+b"),
    "row 17, IPv6 that maps IPv4": ("from ::ffff:10.0.0.1", "10.0.0.1"),
    "a phone number": ("call +1 415 555 0123", "555"),
    "row 28, AWS": (f"use {AWS}", AWS),
    "row 28, GitHub": (f"use {GITHUB}", GITHUB),
    "row 28, JWT": (f"use {JWT}", JWT),
    "row 28, PEM": (PEM, "MC4CAQ"),
    "row 28, PEM with escaped newlines": (PEM.replace("\n", "\\n"), "MC4CAQ"),
    "row 28, connection string": ("postgres://u:p4ssw0rd@host/db", "p4ssw0rd"),
    "row 27, a bearer header": ("Authorization: Bearer abcdefghijklmnopqrstuvwx", "abcdefgh"),
    "a password": ("password=hunter22xyz done", "hunter22xyz"),
}
MUST_STAY = (
    "row 14: order 4539578763621486 shipped",
    "row 29: AKIAIOSFODNN7EXAMPLE",
    "row 31: 1607635102.00 -0.96",
    "row 31: 08:51:06 INFO worker started",
    "version 1.2.3 of 12 parts",
)


@pytest.fixture(scope="module")
def redactor() -> Iterator[Redactor]:
    """Loaded and used with every way to a network closed."""

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("redaction reached for a network")

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", refuse)
    patch.setattr(socket, "getaddrinfo", refuse)
    yield load()
    patch.undo()


@pytest.mark.parametrize("case", MUST_GO)
def test_it_does_not_survive_and_redacting_again_changes_nothing(redactor: Redactor, case: str) -> None:
    text, value = MUST_GO[case]
    found = redactor.redact(text)
    assert value not in found.text
    assert found.spans
    assert redactor.redact(found.text).text == found.text


@pytest.mark.parametrize("text", MUST_STAY)
def test_what_only_looks_alike_stays(redactor: Redactor, text: str) -> None:
    assert redactor.redact(text).text == text


def test_spans_are_ranges_of_the_original(redactor: Redactor) -> None:
    text = "to ali\u200bce@exa\u200bmple.com and on"
    (span,) = redactor.redact(text).spans
    assert text[span.start : span.end] == "ali\u200bce@exa\u200bmple.com"
    assert not hasattr(span, "text")


def test_json_keys_numbers_and_nested_documents(redactor: Redactor) -> None:
    value = {
        "alice@example.com": 1,
        "ssn": "536904399",
        "card": 4111111111111111,
        "count": 12,
        "args": json.dumps({"to": json.dumps({"mail": "bob@example.org"})}),
        "list": [{"password": "hunter2222"}],
    }
    result, counts = redactor.redact_json(value)
    shown = json.dumps(result)
    for gone in ("alice", "536904399", "4111111111111111", "bob@", "hunter2222"):
        assert gone not in shown
    assert result["count"] == 12
    assert result["<EMAIL_ADDRESS>"] == 1
    assert counts["EMAIL_ADDRESS"] == 2


class Counting:
    """Finds nothing; keeps how much it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def find(self, text: str) -> Sequence[Span]:
        self.given.append(len(text))
        return []


@pytest.mark.parametrize("length", [1, 19_999, 20_000, 20_001, 100_000, 1_000_000])
def test_the_work_grows_with_the_length(length: int) -> None:
    """Row 32: the detector sees windows of bounded size, together at most a little more than the text."""
    finder = Counting()
    Redactor(finder).redact("x" * length)
    assert max(finder.given) <= 20_000
    assert length <= sum(finder.given) <= 1.2 * length + 20_000


@pytest.mark.parametrize("filler", [".", "a@", "1", " ", "password=", "eyJ", "-----BEGIN "])
def test_no_pattern_blows_up_on_a_window(redactor: Redactor, filler: str) -> None:
    """Row 32: the text comes back; a pattern with exponential time would not let this end."""
    assert redactor.redact(filler * (20_000 // len(filler))).text


@pytest.mark.parametrize("offset", [17_990, 17_999, 18_000, 19_985, 19_999, 20_000])
def test_a_value_on_the_edge_of_a_window_is_found_whole(redactor: Redactor, offset: int) -> None:
    text = "x " * (offset // 2) + "alice@example.com" + " y" * 3_000
    found = redactor.redact(text)
    assert "alice" not in found.text
    assert [text[span.start : span.end] for span in found.spans] == ["alice@example.com"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10), st.sampled_from("ABC")), max_size=12))
def test_merged_spans_cover_the_same_and_never_overlap(found: list[tuple[int, int, str]]) -> None:
    spans = [Span(kind, start, start + length, 0.5) for start, length, kind in found]
    merged = merge(spans)
    covered = {at for span in spans for at in range(span.start, span.end)}
    assert {at for span in merged for at in range(span.start, span.end)} == covered
    assert all(first.end <= second.start for first, second in pairwise(merged))
    assert merge(list(reversed(spans))) == merged


def test_lines_of_json_and_lines_that_are_none(redactor: Redactor) -> None:
    source = io.BytesIO(b'{"to":"alice@example.com"}\nnot json, bob@example.org\n\xff\xfe ok\n')
    sink = io.BytesIO()
    report = redact_stream(source, sink, "jsonl", redactor)
    lines = sink.getvalue().splitlines()
    assert json.loads(lines[0]) == {"to": "<EMAIL_ADDRESS>"}
    assert lines[1] == b"not json, <EMAIL_ADDRESS>"
    assert lines[2].decode() == "\ufffd\ufffd ok", "what cannot be read does not pass"
    assert (report.lines, report.unreadable, report.counts["EMAIL_ADDRESS"]) == (3, 2, 2)


class Dead:
    def find(self, text: str) -> Sequence[Span]:
        raise RuntimeError(f"died on {text}")


def test_a_detector_that_dies_withholds_the_line() -> None:
    """Row 37: closed, and counted; the text is in no message."""
    sink = io.BytesIO()
    report = redact_stream(io.BytesIO(b"alice@example.com\nbob\n"), sink, "text", Redactor(Dead()))
    assert sink.getvalue() == f"{WITHHELD}\n{WITHHELD}\n".encode()
    assert report.withheld == 2


def test_a_line_of_many_megabytes_comes_out_without_its_values(redactor: Redactor) -> None:
    """Row 33, in small: a line longer than what is judged at once."""
    text = b"x " * 600_000 + b"alice@example.com" + b" y" * 1_000
    sink = io.BytesIO()
    redact_stream(io.BytesIO(text), sink, "text", redactor)
    assert b"alice" not in sink.getvalue()
    assert sink.getvalue().count(b"x ") == 600_000


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


CUT: dict[str, tuple[list[Any], list[str]]] = {
    "a card": ([part("pay 4111 1111"), part(" 1111 1111 now")], ["pay <CREDIT_CARD>", " now"]),
    "an address over three": ([part("to jane"), part(".roe@exam"), part("ple.org.")], ["to <EMAIL_ADDRESS>", "", "."]),
    "a picture between": (
        [part("to jane.roe@"), {"type": "image_url", "image_url": {"url": "x"}}, part("example.org")],
        ["to <EMAIL_ADDRESS>", ""],
    ),
    "one that the next part spoils": ([part("jane.roe@example.org"), part("Thanks")], ["<EMAIL_ADDRESS>", "Thanks"]),
    "each its own": ([part("jane.roe@example.org "), part("4111 1111 1111 1111")], ["<EMAIL_ADDRESS> ", "<CREDIT_CARD>"]),
    "nothing": ([part("a"), part("b")], ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_what_is_cut_over_the_parts_of_a_message_is_found(name: str, redactor: Redactor) -> None:
    content, expected = CUT[name]
    shown, _ = redactor.redact_json({"messages": [{"role": "user", "content": content}]})
    parts = shown["messages"][0]["content"]
    assert [one["text"] for one in parts if "text" in one] == expected
    assert [one["type"] for one in parts] == [one["type"] for one in content]


SAID = "to jane.roe@example.org, card 4111 1111 1111 1111, thank you"


@given(st.lists(st.integers(0, len(SAID)), max_size=6))
def test_cut_anywhere_and_redacted_is_redacted_whole(redactor: Redactor, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SAID)]
    parts, counts = redactor.redact_parts([SAID[start:end] for start, end in pairwise(edges)])
    whole = redactor.redact(SAID)
    assert ("".join(parts), counts) == (whole.text, whole.counts)
    assert len(parts) == len(edges) - 1


def test_a_document_in_a_string_in_a_document_is_not_looked_at_once_for_every_level() -> None:
    value: Any = "4 " * 20_000
    for _ in range(6):
        value = json.dumps({"a": value})
    finder = Counting()
    Redactor(finder).redact_json({"a": value})
    assert sum(finder.given) < 2 * 40_000


def test_a_long_value_beside_its_key_stays_whole(redactor: Redactor) -> None:
    rest = " and so on" * 300
    shown, _ = redactor.redact_json({"password": "hunter22" + rest, "b": "x" + rest})
    assert shown == {"password": "<PASSWORD>" + rest, "b": "x" + rest}


def test_a_run_of_signs_is_one_token_and_no_word_is_remembered() -> None:
    """spaCy's tokenizer splits it sign by sign, in a time that grows with the square: four seconds for 5,000."""
    nlp = BlankNlp()
    nlp.load()
    artifacts = nlp.process_text("+" * 5_000 + " kumquat: 1", "en")
    assert (artifacts.tokens_indices, artifacts.lemmas[1:]) == ([0, 5_001, 5_008, 5_010], ["kumquat", ":", "1"])
    assert "kumquat" not in nlp.nlp.vocab.strings


@given(st.text("ab: +\n", min_size=1, max_size=30).filter(str.strip), st.data())
def test_the_token_at_a_finding_is_the_one_that_presidio_finds(text: str, data: st.DataObject) -> None:
    tokens = _TOKEN.findall(text)
    indices = [match.start() for match in _TOKEN.finditer(text)]
    start = data.draw(st.integers(0, len(text.rstrip()) - 1))
    theirs = LemmaContextAwareEnhancer._find_index_of_match_token("", start, tokens, indices)
    assert _Context._find_index_of_match_token("", start, tokens, indices) == theirs
