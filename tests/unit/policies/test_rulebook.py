from __future__ import annotations

from pathlib import Path

from policies.check import load_tree
from policies.rulebook import page
from tests.conftest import ROOT
from tests.unit.policies import trees


def test_page_of_the_shipped_rules_is_up_to_date() -> None:
    assert (ROOT / "docs" / "rules.md").read_text("utf-8") == page(), "run scripts/rules"


def test_every_message_and_control_of_every_rule_is_there() -> None:
    text = page()
    for rule in load_tree().catalogue.rules():
        for said in (*rule.messages.values(), *rule.remediations.values(), *rule.controls, rule.description, rule.message):
            assert said in text


def test_own_rule_is_documented_with_what_it_reads_through_helpers_and_defaults(tmp_path: Path) -> None:
    body = (
        "default checked := false\n\nchecked if is_string(input.request.namespace)\n\n"
        'deny contains {"path": "", "args": {"team": object.get(input.config, "team", "")}} if {\n'
        '\tsome use in input.request.models\n\tnot first(use)\n}\n\nfirst(use) if use.version == "1"\n'
    )
    text = page(None, [trees.extra(tmp_path, "admission/mine", body)])
    own = text[text.index("## admission/mine") :].split("\n## ")[0]
    assert "`input.config.team`, `input.request.models[_].version`, `input.request.namespace`" in own
    assert "| medium | no | test/1 |" in own
    assert "| other | something else: {what} | Ask for less. |" in own


def test_an_authors_text_cannot_break_the_page(tmp_path: Path) -> None:
    metadata = trees.METADATA.format(title="'a | b <script>'")
    own = trees.extra(tmp_path, "admission/mine", trees.SILENT_BODY, metadata=metadata)
    text = page(None, [own])
    assert "| a \\| b &lt;script> |" in text
    assert "<script>" not in text
