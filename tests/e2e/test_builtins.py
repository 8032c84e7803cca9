"""Each built-in that rules may use, in all three engines: the same answer, or in none an answer. What differs is off the list.

Sets have no place in JSON: the order in which an engine writes one is its own, so answers that are sets are sorted here, and the
aggregator sorts those in a violation's args.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from core.canonical import canonical
from core.decision import DOMAINS, Domain
from core.errors import ConfigError
from policies import builtins
from policies.bundle import Bundle
from policies.check import load_tree
from policies.distribution import compile_wasm
from policies.embedded import Embedded
from policies.evaluate import EngineFailure
from policies.wasm import Wasm
from tests.e2e.test_opa import Server, opa
from tests.unit.policies import trees

__all__ = ["opa"]
pytestmark = pytest.mark.e2e

ODD = ['""', '"a"', '"\\u0000"', '"a\\u0000b"', '"žluť"', '"e\\u0301"', '"\\ud83d\\ude00"', '"\\ufffd"', '"ß"', '"\\u200b"']
"""Texts: empty, NUL, two and four bytes a letter, composed of parts, folding to two, invisible."""
NUMBERS = ["0", "-1", "1", "9007199254740991", "-9007199254740991", "9007199254740992"]
MIXED = '[3, "a", null, true, false, [1], {"a": 1}, 1, "", -1, {}, [], "\\ufffd", "\\ud83d\\ude00"]'
JSON_KINDS = ["1", '"a"', "true", "null", "[1]", '{"a": 1}', "[]", "{}", "0"]
PAIRS = [f"{a}, {b}" for a, b in product(ODD, ODD)]
KINDS = ["1", '"a"', "true", "null", "[1]", "{1}", '{"a": 1}', "[]", "set()", "{}", '""', "0"]

CALLS: dict[str, list[str]] = {
    "abs": NUMBERS,
    "count": ["[]", "[1, 2]", "{1}", "set()", '{"a": 1}', "{}", MIXED, *(text for text in ODD if "ud83d" not in text)],
    "sum": ["[]", "set()", "[1, 2]", "{3}", "[-3, 3]", "[9007199254740991, 9007199254740991]", "[9007199254740991, -1]"],
    "sort": ["[]", "set()", "{2, 1}", MIXED, f"[{', '.join(ODD)}]", f"[{', '.join(NUMBERS)}]"],
    "union": ["set()", "{set()}", "{{1}, {2}}", '{{1, "a"}, {null}, set()}'],
    "intersection": ["set()", "{set()}", "{{1, 2}, {2}}", "{{1}, {2}}", '{{"ž", 1}, {"ž"}}'],
    "array.concat": ["[1], [2]", "[], []", '["ž"], []', f"{MIXED}, {MIXED}"],
    "array.reverse": ["[1, 2]", "[]", MIXED],
    "array.slice": [f"[1, 2, 3], {a}, {b}" for a, b in product([-9, -1, 0, 1, 3, 9], repeat=2)] + ["[], 0, 0", "[], -1, 1"],
    "object.get": [
        '{"a": 1}, "a", 0', '{"a": 1}, "b", 0', '{"a": {"b": 2}}, ["a", "b"], 0', '{"a": {"b": 2}}, ["a", "c"], 0',
        '{"a": 1}, ["a", "b"], 0', "{}, [], 0", "{}, 1, 0", '{"a": null}, "a", 0', '{"a": false}, "a", 0', '{"ž": 1}, "ž", 0',
        '{"": 1}, "", 0', '{"a": [7]}, ["a", 0], 0', '{"a": [7]}, ["a", 1], 0', '{"a": [7]}, ["a", -1], 0', '{"a": 1}, null, 0',
    ],
    "object.keys": ['{"b": 1, "a": 2}', "{}", '{"ž": 1, "": 2}'],
    "object.remove": ['{"a": 1, "b": 2}, ["a"]', '{"a": 1}, {"x"}', '{"a": 1}, {"a": 2}', "{}, []", '{"ž": 1}, ["ž"]', '{"a": 1}, []'],
    "object.filter": ['{"a": 1, "b": 2}, ["a"]', '{"a": 1}, {"x"}', '{"a": 1}, {"a": 2}', "{}, []", '{"ž": 1}, ["ž"]', '{"a": 1}, []'],
    "object.union": ['{"a": 1}, {"a": 2, "b": 3}', '{"a": {"b": 1}}, {"a": {"c": 2}}', "{}, {}", '{"a": {"b": 1}}, {"a": null}'],
    "concat": ['"/", ["a", "b"]', '"", []', '"ž", ["", ""]', '"-", set()', f'"", [{", ".join(ODD)}]', f'"|", [{", ".join(ODD)}]'],
    **dict.fromkeys(("contains", "startswith", "endswith", "split", "trim", "trim_left", "trim_right", "trim_prefix", "trim_suffix"), PAIRS),
    **{f"is_{kind}": KINDS for kind in ("array", "boolean", "null", "number", "object", "set", "string")},
    "type_name": KINDS,
}  # fmt: skip
LONGER = {
    "split": ['"a/b/", "/"', '"//", "/"', '"žaž", "ž"', '"abc", ""', '"žlu", ""'],
    "trim": ['"xxaxx", "x"', '"žaž", "ž"', '"xyax", "yx"', '" a\\n", " \\n"'],
    "trim_left": ['"xxaxx", "x"', '"žža", "ž"'],
    "trim_right": ['"xxaxx", "x"', '"ažž", "ž"'],
    "trim_prefix": ['"xxa", "x"', '"žža", "ž"'],
    "trim_suffix": ['"axx", "x"', '"ažž", "ž"'],
}
PLAIN = [
    *[f"{a} {op} {b}" for op, a, b in product("+-", NUMBERS, NUMBERS)],
    *[f"sort({a} {op} {b})" for op, a, b in product("-|&", ["set()", "{1}", '{1, "ž"}'], ["set()", "{1}", '{"ž"}'])],
    *[f"{a} {op} {b}" for op, a, b in product(["<", "<=", "==", "!="], [*JSON_KINDS, *ODD], [*JSON_KINDS, *ODD])],
    "1 in [1]", '"a" in {"a": "b"}', '"b" in {"a": "b"}', "null in [null]", "{1} in {{1}}", '"\\ufffd" in {"\\ud83d\\ude00"}',
]  # fmt: skip
SETS = {"union", "intersection", "object.keys"}
"""Built-ins whose answer is a set."""
VALUES: list[Any] = [None, True, 7, -1, 1.5, 2**53, "", "a", "ž", [], ["a"], [1], [None], [["a"]], {}, {"a": 1}, {"a": None}]
RIGHT: dict[str, list[Any]] = {
    **{name: ["a", "a"] for name in CALLS if CALLS[name] is PAIRS},
    **{name: [1] for name in CALLS if name.startswith("is_") or name in {"abs", "type_name"}},
    **{name: [[1]] for name in ("count", "sum", "sort", "array.reverse", "union", "intersection")},
    "array.concat": [[1], [2]],
    "array.slice": [[1, 2], 0, 1],
    "object.get": [{"a": 1}, "a", 0],
    "object.keys": [{"a": 1}],
    "object.remove": [{"a": 1}, ["a"]],
    "object.filter": [{"a": 1}, ["a"]],
    "object.union": [{"a": 1}, {"b": 1}],
    "concat": ["/", ["a"]],
}
"""Arguments that a call takes; each is replaced by every one of VALUES, whatever its type."""

OPERATORS = sorted({*builtins.OPERATORS, "<", "<=", "==", "!=", ">", ">="})
Ask = Callable[[Domain, dict[str, Any]], Any]


def _literal() -> list[str]:
    found = [(name, f"{name}({given})") for name, table in sorted(CALLS.items()) for given in (*table, *LONGER.get(name, []))]
    return [*(f"sort({call})" if name in SETS else call for name, call in found), *PLAIN]


def _modules() -> dict[str, str]:
    """admission decides all literal calls; gateway one built-in over the input's arguments, so that no type is known before."""
    literal = "".join(f"decision[{index}] := {call}\n\n" for index, call in enumerate(_literal()))
    calls = {op: f"input.given[0] {op} input.given[1]" for op in OPERATORS}
    calls |= {name: f"{name}({', '.join(f'input.given[{i}]' for i in range(len(given)))})" for name, given in RIGHT.items()}
    single = "".join(
        f'answers contains [value] if {{\n\tinput.call == "{name}"\n\tvalue := {call}\n}}\n\n' for name, call in calls.items()
    )
    return {
        **_nothing(),
        "admission.rego": f"package portcullis.admission\n\n{literal}",
        "gateway.rego": f"package portcullis.gateway\n\ndecision := [found | some found in answers]\n\n{single}",
    }


def _nothing() -> dict[str, str]:
    return {f"{domain}.rego": f"package portcullis.{domain}\n\ndecision := 1\n" for domain in DOMAINS}


@pytest.fixture(scope="module")
def engines(opa: str) -> Iterator[dict[str, Ask]]:
    """Asks for the decision of a domain; the text `error` when there is none."""
    modules = _modules()
    embedded, wasm, server = Embedded(modules), Wasm(compile_wasm(Bundle(modules), opa)), Server(opa)
    for name, text in modules.items():
        server.put(name, text)

    def of_server(domain: Domain, asked: dict[str, Any]) -> Any:
        address = f"{server.url}/v1/data/portcullis/{domain}/decision?strict-builtin-errors=true"
        request = urllib.request.Request(address, data=json.dumps({"input": asked}).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)["result"]
        except urllib.error.HTTPError:
            return "error"

    def of(engine: Embedded | Wasm) -> Ask:
        def ask(domain: Domain, asked: dict[str, Any]) -> Any:
            try:
                return engine.evaluate(domain, json.dumps(asked).encode())
            except EngineFailure:
                return "error"

        return ask

    yield {"opa": of_server, "embedded": of(embedded), "wasm": of(wasm)}
    embedded.close()
    wasm.close()
    server.stop()


def _written(value: Any) -> str:
    """As one text for equal values: 2.0 is 2 in JSON."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def test_the_tables_name_every_permitted_built_in() -> None:
    assert set(CALLS) == set(RIGHT) == builtins.ALLOWED


def test_every_permitted_built_in_answers_alike_in_three_engines(engines: dict[str, Ask]) -> None:
    """And is total: for arguments of its types there is exactly one answer, and never an error."""
    calls = _literal()
    answers = {name: ask("admission", {}) for name, ask in engines.items()}
    assert "error" not in answers.values()
    wrong = {
        call: {name: found.get(str(index)) for name, found in answers.items()}
        for index, call in enumerate(calls)
        if len({_written(found.get(str(index), "nothing")) for found in answers.values()}) > 1
    }
    assert wrong == {}
    assert len(answers["opa"]) == len(calls), "each has an answer"


def _mistyped() -> Iterator[dict[str, Any]]:
    for name, arguments in RIGHT.items():
        for place in range(len(arguments)):
            for value in VALUES:
                yield {"call": name, "given": [*arguments[:place], value, *arguments[place + 1 :]]}
    for op in OPERATORS:
        for one, other in product(VALUES[1::2], VALUES[::2]):
            yield {"call": op, "given": [one, other]}


def test_a_wrong_type_has_an_answer_in_all_engines_or_in_none(engines: dict[str, Ask]) -> None:
    """Where it has none, the server with strict errors and the interpreter fail and Wasm goes on without the value; that is why
    an input fits its schema before any engine sees it."""
    wrong, without = {}, 0
    for asked in _mistyped():
        answers = {name: ask("gateway", asked) for name, ask in engines.items()}
        written = {"none" if answer in ("error", []) else _written(answer) for answer in answers.values()}
        without += "none" in written
        if len(written) > 1:
            wrong[_written(asked)] = answers
    assert wrong == {}
    assert without > 100, "there are wrong types among them"


DIFFERING: dict[str, tuple[str, Any, Any]] = {
    "replace of nothing": ('replace(input.x, "", "b")', "bab", "error"),
    "object.union_n of none": ("object.union_n([y | some y in [input.x]; y == 1])", {}, None),
    "a product beyond 64 bits": ("9007199254740991 * 9007199254740991", 8.112963841460666e31, 81129638414606663681390495662081),
    "strings.any_prefix_match": ('strings.any_prefix_match([input.x], ["a"])', True, "refused"),
    "strings.any_suffix_match": ('strings.any_suffix_match([input.x], ["a"])', True, "refused"),
    "letters beyond 16 bits counted": ('count("\\ud83d\\ude00")', 2, 1),
}
"""Expression, the interpreter's answer, Wasm's. All but `count`, which rules need for lists, are off the list for it."""


@pytest.mark.parametrize("name", DIFFERING)
def test_what_is_said_to_differ_does(opa: str, name: str) -> None:
    """When this fails, OPA or regorus changed: look at policies/builtins.py again."""
    call, interpreted, compiled = DIFFERING[name]
    modules = {**_nothing(), "admission.rego": f"package portcullis.admission\n\ndecision := {call}\n"}
    assert Embedded(modules).evaluate("admission", b'{"x": "a"}') == interpreted
    module = compile_wasm(Bundle(modules), opa)
    if compiled == "refused":
        with pytest.raises(ConfigError):
            Wasm(module)
    elif compiled == "error":
        with pytest.raises(EngineFailure):
            Wasm(module).evaluate("admission", b'{"x": "a"}')
    else:
        assert Wasm(module).evaluate("admission", b'{"x": "a"}') == compiled


def test_a_set_in_a_violations_args_is_written_in_one_order(opa: str, tmp_path: Path) -> None:
    body = (
        "default checked := false\n\nchecked := true\n\n"
        'deny contains {"path": "p", "args": {"kinds": {x | some x in ["z", "b", "\\u017e", "a"]}, "n": 1}}\n'
    )
    loaded = load_tree(trees.write(tmp_path / "a", trees.files()), [trees.extra(tmp_path / "b", "admission/sets", body)])
    document = canonical(trees.admission_input(1))
    embedded, wasm = Embedded(loaded.bundle.modules), Wasm(compile_wasm(loaded.bundle, opa))
    one, other = embedded.evaluate("admission", document), wasm.evaluate("admission", document)
    assert canonical(one) == canonical(other)
    assert one["violations"][0]["args"] == {"kinds": ["a", "b", "z", "\u017e"], "n": 1}
