"""Whether the corpus would notice a wrong rule: each comparison, membership and `not` turned round, one at a time.

Run by `scripts/mutate`. A mutant that no case notices is a survivor, and the exit status is 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from policies.bundle import Bundle
from policies.check import load_tree
from policies.engine import Engine, load_bundle
from policies.tree import SHIPPED
from tests.corpus import Case, cases, differences

OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "mutation.md"
TURNED = {"==": "!=", "!=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}
_COMPARISON = re.compile(r" (==|!=|<=|>=|<|>) ")
_NOT = re.compile(r"(^\t| if |\| |; )not ")


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    change: str
    text: str


def mutants(path: Path, name: str) -> Iterator[Mutant]:
    """Every mutant of one file; `text` is the whole changed file."""
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.lstrip().startswith("#"):
            continue
        found: list[tuple[str, str]] = []
        for match in _COMPARISON.finditer(line):
            turned = TURNED[match[1]]
            found.append((f"`{match[1]}` → `{turned}`", f"{line[: match.start()]} {turned} {line[match.end() :]}"))
        found += [("`not` dropped", line[: match.end() - 4] + line[match.end() :]) for match in _NOT.finditer(line)]
        changed = _negated_membership(line)
        if changed is not None:
            found.append(("`in` → `not in`", changed))
        for change, text in found:
            yield Mutant(name, number + 1, change, "\n".join([*lines[:number], text, *lines[number + 1 :]]) + "\n")


def _negated_membership(line: str) -> str | None:
    """`x in y` as a condition by itself, negated; `some x in y` iterates and is no condition."""
    if " in " not in line or "some " in line or "not " in line or "every " in line:
        return None
    if " if " in line and not line.rstrip().endswith("{"):
        head, _, body = line.partition(" if ")
        return f"{head} if not {body}"
    return f"\tnot {line.strip()}" if line.startswith("\t") and not line.rstrip().endswith(("{", ",")) else None


def noticed(engine: Engine, by_domain: dict[str, list[Case]], file: str) -> str | None:
    """The first case whose decision is not as stated any more."""
    parts = file.split("/")
    found = by_domain[parts[1]] if parts[0] == "rules" else [case for one in by_domain.values() for case in one]
    return next((str(case) for case in found if differences(case, engine.decide(case.domain, case.input))), None)


def main() -> int:
    by_domain: dict[str, list[Case]] = {}
    for case in cases():
        if not case.expect.get("schema"):
            by_domain.setdefault(case.domain, []).append(case)
    rows: list[str] = []
    survivors = 0
    modules = load_tree().bundle.modules
    for path in sorted(SHIPPED.rglob("*.rego")):
        if path.name.endswith("_test.rego"):
            continue
        name = path.relative_to(SHIPPED).as_posix()
        for mutant in mutants(path, name):
            killer = _judge({**modules, name: mutant.text}, by_domain, name)
            survivors += killer is None
            rows.append(f"| {mutant.file}:{mutant.line} | {mutant.change} | {killer or '**survived**'} |")
            sys.stderr.write("." if killer else "S")
            sys.stderr.flush()
    head = [
        "# Mutants of the rules",
        "",
        f"`scripts/mutate`: {len(rows)} comparisons, memberships and negations turned round one at a time, {survivors} survived.",
        "",
        "| where | change | first noticed by |",
        "|---|---|---|",
    ]
    OUTPUT.write_text("\n".join([*head, *rows]) + "\n", "utf-8")
    sys.stdout.write(f"\n{len(rows)} mutants, {survivors} survived; {OUTPUT.name} is written\n")
    return 1 if survivors else 0


def _judge(modules: Mapping[str, str], by_domain: dict[str, list[Case]], name: str) -> str | None:
    """As a built bundle, which the linter does not look at: what is measured here is whether the corpus notices."""
    try:
        engine = load_bundle(Bundle(modules).files())
    except ConfigError:
        return "refused at load"
    try:
        return noticed(engine, by_domain, name)
    finally:
        engine.close()


if __name__ == "__main__":
    sys.exit(main())
