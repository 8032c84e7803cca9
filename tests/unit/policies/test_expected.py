"""Inputs with the decision that each must get, as a bundle's builder is held to them (`policies.corpus`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput
from policies import corpus
from policies.check import Loaded, load_tree
from tests.corpus import cases, lines

CASES = {str(case): case for case in cases()}
GOOD = CASES["gateway: a grant and a model that is fit"]
BAD = CASES["gateway: a revoked model"]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_tree()


def line(input: dict[str, Any], **expect: Any) -> str:
    return json.dumps({"domain": "gateway", "input": input, "expect": expect})


def written(folder: Path, *texts: str) -> list[Path]:
    (folder / "a.jsonl").write_text("\n\n".join(texts))
    return [folder]


def test_what_gets_its_decision_is_counted_in_any_order_and_once(tmp_path: Path, loaded: Loaded) -> None:
    texts = [line(GOOD.input, **GOOD.expect), line(BAD.input, **BAD.expect), line({"x": 2**60}, schema=True)]
    found = corpus.read(written(tmp_path, *texts))
    assert [one.where for one in found] == [f"{tmp_path}/a.jsonl:{number}" for number in (1, 3, 5)]
    assert [problems for _, problems in corpus.failures(loaded, None, found)] == [[], [], []]
    again = corpus.read(written(tmp_path, *texts[::-1], texts[0]))
    assert corpus.summary(found) == corpus.summary(again)
    assert corpus.summary(found)["inputs"] == 3
    other = corpus.read(written(tmp_path, *texts[:2], line({"x": 2**61}, schema=True)))
    assert corpus.summary(other)["digest"] != corpus.summary(found)["digest"]


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "denied, and must be allowed": (BAD.input, {"allow": True}),
    "allowed, and must be denied": (GOOD.input, {"deny": [{"rule": "gateway/model-access"}]}),
    "allowed, and nothing is said": (GOOD.input, {}),
    "denied by another rule": (BAD.input, {"deny": [{"rule": "gateway/purpose"}]}),
    "denied with another value": (BAD.input, {"deny": [{**BAD.expect["deny"][0], "args": {"reason": "other"}}]}),
    "no warning": (GOOD.input, {**GOOD.expect, "warn": [{"rule": "gateway/purpose", "mode": "warn"}]}),
    "another grant": (GOOD.input, {**GOOD.expect, "grants": ["gateway/model-access:other"]}),
    "another obligation": (GOOD.input, {**GOOD.expect, "obligations": {"other": 1}}),
    "fits the schema": (GOOD.input, {"schema": True}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_gets_another_decision_is_a_failure(tmp_path: Path, loaded: Loaded, name: str) -> None:
    given, expect = WRONG[name]
    ((_, problems),) = corpus.failures(loaded, None, corpus.read(written(tmp_path, line(given, **expect))))
    assert problems
    assert all(problem.startswith("embedded: ") for problem in problems)


UNREADABLE: dict[str, str] = {
    "no JSON": "{",
    "no object": "[]",
    "an input alone": json.dumps(GOOD.input),
    "a domain that is none": json.dumps({"domain": "none", "input": {}, "expect": {}}),
    "a misspelt expectation": json.dumps({"domain": "gateway", "input": {}, "expect": {"alow": True}}),
    "text for a truth": json.dumps({"domain": "gateway", "input": {}, "expect": {"allow": "true"}}),
    "a key twice": '{"domain": "gateway", "domain": "gateway", "input": {}, "expect": {}}',
    "nothing": "",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_line_that_says_no_expectation_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        corpus.read(written(tmp_path, UNREADABLE[name]))
    assert "a.jsonl:1" in str(caught.value) or name == "nothing"


def test_a_folder_without_inputs_and_a_file_that_is_not_there_are_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(BadInput, match=str(path)):
            corpus.read([path])


def test_our_own_corpus_can_be_written_as_lines(tmp_path: Path) -> None:
    found = corpus.read(written(tmp_path, *lines()))
    assert len(CASES) - 10 < len(found) <= len(CASES)
