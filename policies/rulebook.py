"""A page about every rule for the people who meet it, made from METADATA and from what the rule reads: docs/rules.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from core.decision import DOMAINS
from policies.catalogue import Rule
from policies.check import load_tree
from policies.lint import reads
from policies.syntax import parse
from policies.tree import read_tree

HEAD = """\
# Rules

Made from the rules themselves by `scripts/rules`; `portcullis policy docs` makes it for your own. A mandatory rule must have been
evaluated before its domain allows anything. What stands in braces comes from the violation's args.
"""


def write_rules(file: Path) -> Path:
    """Writes the page of the shipped rules."""
    file.write_text(page(), encoding="utf-8")
    return file


def page(root: Path | None = None, extra: Sequence[Path] = ()) -> str:
    """The page of the rules below `root` (the shipped ones when None) and the extra folders. ConfigError as `load_tree`."""
    catalogue = load_tree(root, extra).catalogue
    paths = reads({source: parse(source.path, source.text) for source in read_tree(root, extra).modules})
    rules = catalogue.rules()
    parts = [HEAD, _contents(rules)]
    parts += [_rule(rule, paths[rule.id]) for domain in DOMAINS for rule in rules if rule.domain == domain]
    return "\n".join(parts)


def _contents(rules: Iterable[Rule]) -> str:
    rows = [
        f"| [{rule.id}](#{rule.id.replace('/', '')}) | {_cell(rule.title)} | {rule.severity} | {'yes' if rule.mandatory else ''} |"
        for rule in rules
    ]
    return "\n".join(["| rule | title | severity | mandatory |", "|---|---|---|---|", *rows, ""])


def _rule(rule: Rule, paths: Sequence[str]) -> str:
    lines = [f"## {rule.id}", "", f"**{_text(rule.title)}.** {_text(rule.description)}", ""]
    lines += ["| severity | mandatory | controls |", "|---|---|---|"]
    lines += [f"| {rule.severity} | {'yes' if rule.mandatory else 'no'} | {_cell(', '.join(rule.controls)) or 'none'} |", ""]
    lines += ["| reason | message | what to do |", "|---|---|---|", *_messages(rule), ""]
    lines += ["Reads " + (", ".join(f"`{path}`" for path in paths) or "nothing of the input") + ".", ""]
    return "\n".join(lines)


def _messages(rule: Rule) -> list[str]:
    reasons: Mapping[str, str] = {"": rule.message, **rule.messages}
    return [
        f"| {_cell(reason)} | {_cell(message)} | {_cell(rule.remediations.get(reason, rule.remediation))} |"
        for reason, message in reasons.items()
    ]


def _cell(text: str) -> str:
    """Text in a table: no line and no column of its own."""
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """Text of a rule's author as Markdown that says the same: one line, no tags."""
    return " ".join(text.split()).replace("<", "&lt;")
