"""The linter's cases run in three engines: what it calls a trap is silent where the case says so, and the right form denies in each.

All of them are rules of one bundle, built past the linter. It has some 130 rules, more than fit the memory that OPA writes into a
Wasm module, so that a large bundle is tried here too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from policies import aggregator
from policies.aggregator import Member
from policies.bundle import Bundle
from policies.check import load_tree
from policies.distribution import compile_wasm
from policies.embedded import Embedded
from policies.wasm import Wasm
from tests.unit.policies import trees
from tests.unit.policies.traps import CASES, SAFE, SHARED

pytestmark = pytest.mark.e2e

ENGINES = ("opa", "regorus", "wasm")


class Form(NamedTuple):
    """A case in one form: `bad`, `good` or `safe`; the id of its rule, and the input that shows it."""

    case: str
    form: str
    rule: str
    body: str
    document: str


def forms() -> Iterator[Form]:
    texts = [(name, form, getattr(case, form), case.input) for name, case in CASES.items() for form in ("bad", "good")]
    texts += [(name, "safe", body, {}) for name, body in SAFE.items()]
    for number, (name, form, body, more) in enumerate(texts):
        yield Form(name, form, f"admission/c{number}", body, json.dumps(document(more)))


def document(more: dict[str, Any]) -> dict[str, Any]:
    """Fits the schema, without any optional field that the case does not bring."""
    base = trees.admission_input()
    return {part: {**base[part], **more.get(part, {})} if isinstance(base[part], dict) else base[part] for part in base}


def bundle(given: list[Form]) -> Bundle:
    modules = {path: text for path, text in load_tree().bundle.modules.items() if path.startswith("lib/")}
    for form in given:
        imports, gap, rest = form.body.partition("\n\n") if form.body.startswith("import") else ("", "", form.body)
        name = form.rule.split("/")[1]
        text = f"package portcullis.rules.admission.{name}\n\n{imports}{gap}checked := true\n\n{rest}\n{SHARED}"
        modules[f"rules/{form.rule}/{name}.rego"] = text
    members = [Member(form.rule, deny=True, grant=False) for form in given]
    return Bundle({**modules, **aggregator.generate(members)})


def asked_of_opa(program: str, folder: Path, built: Bundle, documents: set[str]) -> dict[str, Any]:
    built.write(folder / "bundle")
    answers = {}
    for text in documents:
        (folder / "input.json").write_text(text)
        command = [
            program,
            "eval",
            "--bundle",
            folder / "bundle",
            "--input",
            folder / "input.json",
            "data.portcullis.admission.decision",
        ]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        answers[text] = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, bool]]:
    """By case and form, whether its rule denies in each engine."""
    program = os.environ.get("PORTCULLIS_OPA") or shutil.which("opa")
    if program is None:
        pytest.skip("there is no OPA program: scripts/opa builds one, or set PORTCULLIS_OPA")
    given = list(forms())
    built = bundle(given)
    documents = {form.document for form in given}
    decisions = {"opa": asked_of_opa(program, tmp_path_factory.mktemp("traps"), built, documents)}
    for name, engine in (("regorus", Embedded(built.modules)), ("wasm", Wasm(compile_wasm(built, program)))):
        decisions[name] = {text: engine.evaluate("admission", text.encode()) for text in documents}
        engine.close()
    denied = {
        (name, text): {violation["rule"] for violation in decision["violations"]}
        for name, found in decisions.items()
        for text, decision in found.items()
    }
    return {(f.case, f.form): {name: f.rule in denied[name, f.document] for name in ENGINES} for f in given}


@pytest.mark.parametrize("name", CASES)
def test_trap_is_silent_where_it_says_and_the_right_form_nowhere(
    name: str, answers: dict[tuple[str, str], dict[str, bool]]
) -> None:
    assert tuple(engine for engine in ENGINES if not answers[name, "bad"][engine]) == CASES[name].silent
    assert all(answers[name, "good"].values())


@pytest.mark.parametrize("name", SAFE)
def test_engines_agree_on_what_is_safe(name: str, answers: dict[tuple[str, str], dict[str, bool]]) -> None:
    assert len(set(answers[name, "safe"].values())) == 1
