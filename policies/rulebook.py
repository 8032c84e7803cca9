"""A page about every rule for the people who meet it, made from METADATA and from what the rule reads: docs/rules.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from core.decision import DOMAINS
from policies.catalogue import Rule
from policies.check import load_tree
from policies.reads import Pattern, RuleReader
from policies.shapes import Place, Step, show_place

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
    loaded = load_tree(root, extra)
    reader = RuleReader(loaded.bundle.modules)
    rules = loaded.catalogue.rules()
    parts = [HEAD, _contents(rules)]
    parts += [_rule(rule, _paths(reader, rule)) for domain in DOMAINS for rule in rules if rule.domain == domain]
    return "\n".join(parts)


def _paths(reader: RuleReader, rule: Rule) -> list[str]:
    """What the rule reads, helpers included: the longest paths, in order."""
    package = ("portcullis", "rules", *rule.id.split("/"))
    read = {show_place(_place(path)) for export in ("checked", "deny", "grant") for path in reader.reads(package, export).paths}
    return sorted(one for one in read if not any(other.startswith((f"{one}.", f"{one}[")) for other in read))


def _place(pattern: Pattern) -> Place:
    return ("input", *(Step("each", "") if part is None else part for part in pattern))


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
