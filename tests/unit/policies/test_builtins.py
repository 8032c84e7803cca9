"""Nothing that fails, varies or reaches out gets into a decision: the embedded half (tests/e2e/test_opa.py has the server's)."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from policies import builtins
from policies.check import check_tree
from policies.engine import load_embedded
from tests.unit.policies import trees

CHECKED = "default checked := false\n\nchecked := true\n\n"

REFUSED = {
    "http.send": ('deny contains {"path": "", "args": http.send({"url": "http://x"})}', "http.send"),
    "time.now_ns": ('deny contains {"path": "", "args": {}} if time.now_ns() > 3', "time.now_ns"),
    "to_number": ('deny contains {"path": "", "args": {}} if to_number(input.request.kind) > 3', "to_number"),
    "rand.intn": ('deny contains {"path": "", "args": {"n": rand.intn("x", 5)}}', "rand.intn"),
    "uuid": ('deny contains {"path": uuid.rfc4122("x"), "args": {}}', "uuid.rfc4122"),
    "opa.runtime": ('deny contains {"path": "", "args": opa.runtime()}', "opa.runtime"),
    "lookup": ('deny contains {"path": "", "args": {}} if net.lookup_ip_addr("x")', "net.lookup_ip_addr"),
    "sprintf": ('deny contains {"path": sprintf("%d", [1]), "args": {}}', "sprintf"),
    "regex": ('deny contains {"path": "", "args": {}} if regex.match("a", input.request.kind)', "regex.match"),
    "json": ('deny contains {"path": "", "args": json.unmarshal("{}")}', "json.unmarshal"),
    "walk": ('deny contains {"path": "", "args": {}} if walk(input, [_, 3])', "walk"),
    "print": ('deny contains {"path": "", "args": {}} if print("x")', "print"),
    "lower": ('deny contains {"path": lower("X"), "args": {}}', "lower"),
    "max of nothing": ('deny contains {"path": "", "args": {"m": max([])}}', "max"),
    "a name nobody knows": ('deny contains {"path": "", "args": {"m": fetch("x")}}', "fetch"),
    "division": ('deny contains {"path": "", "args": {"n": 1 / input.now_unix}}', "/"),
    "remainder": ('deny contains {"path": "", "args": {"n": 5 % input.now_unix}}', "%"),
    "division as a call": ('deny contains {"path": "", "args": {"n": div(1, 2)}}', "/"),
    "multiplication": ('deny contains {"path": "", "args": {"n": 2 * input.now_unix}}', "*"),
    "multiplication as a call": ('deny contains {"path": "", "args": {"n": mul(1, 2)}}', "*"),
    "product": ('deny contains {"path": "", "args": {"n": product([1, 2])}}', "product"),
    "replace": ('deny contains {"path": replace("a", "", "b"), "args": {}}', "replace"),
    "a prefix of any": ('deny contains {"path": "", "args": {}} if strings.any_prefix_match("a", ["a"])', "strings.any_prefix_match"),
    "union of none": ('deny contains {"path": "", "args": object.union_n([])}', "object.union_n"),
    "in an index": ('deny contains {"path": "", "args": {}} if input.request[http.send({}).x]', "http.send"),
    "below a call": ('deny contains {"path": http.send({}).body, "args": {}}', "http.send"),
    "in a head's key": ('p[http.send({})] := 1\n\ndeny contains {"path": "", "args": {}}', "http.send"),
    "in an else": ('p := 1 if false\nelse := time.now_ns()\n\ndeny contains {"path": "", "args": {}} if p > 1', "time.now_ns"),
    "in a comprehension": ('deny contains {"path": "", "args": {"l": [x | x := time.now_ns()]}}', "time.now_ns"),
    "in an object comprehension": ('deny contains {"path": "", "args": {"l": {k: 1 | k := uuid.rfc4122("a")}}}', "uuid.rfc4122"),
    "in every": ('deny contains {"path": "", "args": {}} if every x in [1] { time.now_ns() > x }', "time.now_ns"),
    "behind not": ('deny contains {"path": "", "args": {}} if not http.send({})', "http.send"),
    "in a function": ('f(x) := time.now_ns() + x\n\ndeny contains {"path": "", "args": {"n": f(1)}}', "time.now_ns"),
    "in a function's default": ('default f(_) := 1\n\nf(x) := http.send(x)\n\ndeny contains {"path": "", "args": {"n": f(1)}}', "http.send"),
    "as an argument": ('deny contains {"path": "", "args": {"n": count([http.send({})])}}', "http.send"),
    "in some … in": ('deny contains {"path": "", "args": {}} if some _ in http.send({}).l', "http.send"),
}  # fmt: skip

FORBIDDEN = {
    "with": ('deny contains {"path": "", "args": {}} if count(input.request) > 1 with input as {}', "with"),
    "mocked built-in": ('deny contains {"path": "", "args": {}} if count([1]) == 1 with count as 1', "with"),
    "data elsewhere": ('deny contains {"path": "", "args": {}} if data.secrets.x', "data"),
    "data by index": ('deny contains {"path": "", "args": {}} if data["secrets"].x', "data"),
    "all of data": ('deny contains {"path": "", "args": {"d": data}}', "data"),
    "data computed": ('deny contains {"path": "", "args": {}} if data[input.request.kind]', "data"),
    "portcullis computed": ('deny contains {"path": "", "args": {}} if data.portcullis[input.request.kind]', "data"),
    "import of data": ('import data.secrets as s\n\ndeny contains {"path": "", "args": {}} if s.x', "data"),
    "a function that is not there": ('import data.portcullis.lib.none as n\n\ndeny contains {"path": "", "args": n.f(1)}', "call"),
    "alias like a namespace": (
        'import data.portcullis.lib.modes as time\n\ndeny contains {"path": time.mode("x"), "args": {}}',
        "reserved-name",
    ),
    "a sign before a value": ('deny contains {"path": "", "args": {"n": -input.now_unix}}', "syntax"),
    "a computed call": ('deny contains {"path": "", "args": {"n": data.portcullis.lib[input.request.kind](1)}}', "parse"),
    "rule like a built-in": ('count(_) := 3\n\ndeny contains {"path": "", "args": {"n": count(1)}}', "reserved-name"),
    "rule like a namespace": ('http := 3\n\ndeny contains {"path": "", "args": {"n": http}}', "reserved-name"),
}  # fmt: skip


def _findings(folder: Path, body: str) -> list[tuple[str, str]]:
    head, _, rest = body.rpartition("import ")
    assert not head
    imports, code = ("import " + rest.split("\n", 1)[0] + "\n\n", rest.split("\n", 1)[1]) if _ else ("", body)
    root = trees.write(folder / "root", trees.files())
    added = trees.extra(folder / "extra", "admission/mine", imports + CHECKED + code)
    found = check_tree(root, [added])
    assert all(finding.path.endswith("mine.rego") for finding in found)
    with pytest.raises(ConfigError) as caught:
        load_embedded(root, [added])
    assert "mine.rego" in str(caught.value)
    return [(finding.code, finding.message) for finding in found]


@pytest.mark.parametrize("name", REFUSED)
def test_built_in_off_the_list_is_refused(tmp_path: Path, name: str) -> None:
    body, culprit = REFUSED[name]
    assert [(code, message.split(" ")[0]) for code, message in _findings(tmp_path, body)] == [("builtin", culprit)]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_rules_may_not_do_is_refused(tmp_path: Path, name: str) -> None:
    body, code = FORBIDDEN[name]
    assert code in {found for found, _ in _findings(tmp_path, body)}


def test_permitted_built_ins_load_and_answer(tmp_path: Path) -> None:
    body = CHECKED + (
        'f(x) := x + 1\n\ndeny contains {"path": concat("/", ["a", "b"]), "args": {"n": f(count([1, 2]) + 4 - 1)}} if {\n'
        '\tstartswith(input.request.kind, "D")\n\tevery x in [1, 2] { x < 3 }\n\t{1, 2} & {2} == {2}\n\t2 in {1} | {2}\n}\n'
    )
    root = trees.write(tmp_path / "root", trees.files())
    engine = load_embedded(root, [trees.extra(tmp_path / "extra", "admission/mine", body)])
    decision = engine.decide("admission", trees.admission_input())
    engine.close()
    assert [(v.rule, v.path, v.args) for v in decision.violations] == [("admission/mine", "a/b", {"n": 6})]


def test_list_holds_nothing_that_fails_or_varies() -> None:
    forbidden = {"http", "time", "rand", "uuid", "opa", "net", "io", "crypto", "regex", "json", "units", "semver", "glob"}
    assert not {name for name in builtins.ALLOWED if name.partition(".")[0] in forbidden}
    assert not builtins.ALLOWED & {
        "to_number",
        "sprintf",
        "div",
        "rem",
        "max",
        "min",
        "walk",
        "print",
        "lower",
        "upper",
        "substring",
    }
    assert not builtins.OPERATORS & {"/", "%"}
    assert {name.partition(".")[0] for name in builtins.ALLOWED} <= builtins.RESERVED
