"""The linter's cases run: what it calls a trap is silent where the case says so, and the right form denies in both engines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
import regorus

from tests.unit.policies import trees
from tests.unit.policies.traps import CASES, SAFE, SHARED

pytestmark = pytest.mark.e2e


def package(form: str, number: int) -> str:
    return f"{form}{number}"


def module(form: str, number: int, body: str) -> str:
    imports, gap, rest = body.partition("\n\n") if body.startswith("import") else ("", "", body)
    return f"package {package(form, number)}\n\n{imports}{gap}{rest}\n{SHARED}"


def document(more: dict[str, Any]) -> dict[str, Any]:
    """Fits the schema, without any optional field that the case does not bring."""
    base = trees.admission_input()
    return {part: {**base[part], **more.get(part, {})} if isinstance(base[part], dict) else base[part] for part in base}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], bool]:
    """Whether a form (bad, good, safe) of a case denies, by case, form and engine; OPA is asked once per input."""
    program = os.environ.get("PORTCULLIS_OPA") or shutil.which("opa")
    if program is None:
        pytest.skip("there is no OPA program: scripts/opa builds one, or set PORTCULLIS_OPA")
    folder = tmp_path_factory.mktemp("traps")
    texts = [(name, form, getattr(case, form), case.input) for name, case in CASES.items() for form in ("bad", "good")]
    texts += [(name, "safe", body, {}) for name, body in SAFE.items()]
    found: dict[tuple[str, str, str], bool] = {}
    modules: dict[str, list[tuple[str, str, str]]] = {}
    for number, (name, form, body, more) in enumerate(texts):
        text = module(form, number, body)
        (folder / f"{package(form, number)}.rego").write_text(text)
        asked = json.dumps(document(more))
        modules.setdefault(asked, []).append((name, form, package(form, number)))
        found[name, form, "regorus"] = in_regorus(text, package(form, number), asked)
    for asked, members in modules.items():
        (folder / "input.json").write_text(asked)
        command = [program, "eval", "--data", folder, "--input", folder / "input.json", "--format", "json", "data"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        data = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
        for name, form, where in members:
            found[name, form, "opa"] = bool(data[where]["deny"])
    return found


def in_regorus(text: str, where: str, asked: str) -> bool:
    engine = regorus.Engine()
    engine.add_policy("rule.rego", text)
    engine.set_input_json(asked)
    return bool(json.loads(engine.eval_rule_as_json(f"data.{where}.deny")))


@pytest.mark.parametrize("name", CASES)
def test_trap_is_silent_where_it_says_and_the_right_form_nowhere(name: str, answers: dict[tuple[str, str, str], bool]) -> None:
    silent = tuple(engine for engine in ("opa", "regorus") if not answers[name, "bad", engine])
    assert silent == CASES[name].silent
    assert answers[name, "good", "opa"]
    assert answers[name, "good", "regorus"]


@pytest.mark.parametrize("name", SAFE)
def test_engines_agree_on_what_is_safe(name: str, answers: dict[tuple[str, str, str], bool]) -> None:
    assert answers[name, "safe", "opa"] == answers[name, "safe", "regorus"]
