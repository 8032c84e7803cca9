"""What must hold of a tree of rules before it may decide anything: `policy check`, and every load.

1. Every module is Rego v1 that the checks can read whole, and uses only what `policies.builtins` permits.
2. Every file stands where its package says, and no package is spread by an extra folder into ours.
3. Every rule has complete METADATA, `checked`, and `deny contains …` or `grant contains …`.
4. There is at least one rule, and the library the aggregators need.
5. No rule falls silent, or differs between engines, because something is undefined (`policies.lint`). Looked at only where the rest
   passed, and never in a bundle that was built already: old evidence must stay replayable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File

from core.decision import DOMAINS
from core.errors import BadInput, ConfigError
from policies import aggregator
from policies.aggregator import Member
from policies.builtins import judge
from policies.bundle import Bundle
from policies.catalogue import Catalogue, Rule, read_rule
from policies.lint import lint
from policies.syntax import Path, Syntax, dotted, parse
from policies.tree import Source, Tree, read_tree

RULE_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
LIBRARY: Mapping[Path, tuple[str, str]] = {
    ("portcullis", "lib", "modes"): ("mode", "function"),
    ("portcullis", "lib", "exemptions"): ("id", "function"),
    ("portcullis", "lib", "obligations"): ("obligations", "complete"),
}
"""What the generated aggregators call."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong. `path` is the file as it was read; `line` 0 means the file as a whole."""

    path: str
    line: int
    code: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.code}: {self.message}"


@dataclass(frozen=True)
class Loaded:
    """A tree that passed: what to run and what to say about it."""

    bundle: Bundle
    catalogue: Catalogue


def check_tree(root: File | None = None, extra: Sequence[File] = ()) -> list[Finding]:
    """Everything that is wrong with the rules below `root` (the shipped ones when None) and the extra folders.

    ConfigError only for what cannot be read at all.
    """
    return _Check(read_tree(root, extra)).findings


def load_tree(root: File | None = None, extra: Sequence[File] = ()) -> Loaded:
    """The rules as a bundle with their catalogue. ConfigError with the first findings when anything is wrong."""
    return _accept(_Check(read_tree(root, extra)))


def load_modules(bundle: Bundle) -> Loaded:
    """A bundle that was built elsewhere (an evidence package's), checked like a tree, with the aggregators it brings."""
    sources = tuple(Source(path, text, path) for path, text in sorted(bundle.modules.items()))
    check = _Check(Tree(sources), built=True)
    loaded = _accept(check)
    return Loaded(bundle, loaded.catalogue)


def _accept(check: _Check) -> Loaded:
    if check.findings:
        shown = "\n".join(f"  {finding}" for finding in check.findings[:10])
        more = f"\n  and {len(check.findings) - 10} more" if len(check.findings) > 10 else ""
        raise ConfigError(f"these rules cannot be used:\n{shown}{more}", where="policies")
    modules = {source.path: source.text for source in check.tree.modules}
    modules.update(aggregator.generate(check.members))
    return Loaded(Bundle(modules), Catalogue.of(check.rules))


class _Check:
    """One pass over a tree. `built`: the tree is a bundle, so it has aggregators of its own."""

    def __init__(self, tree: Tree, *, built: bool = False) -> None:
        self.tree = tree
        self.built = built
        self.findings: list[Finding] = []
        self.members: list[Member] = []
        self.rules: list[Rule] = []
        self.syntax: dict[Source, Syntax] = {}
        for source in tree.sources:
            self._parse(source)
        self._twice()
        for source, syntax in self.syntax.items():
            self._place(source, syntax)
        self._uses()
        self._rules()
        self._whole()
        if not self.findings and not built:
            self._traps()
        self.findings.sort()

    def _find(self, source: Source, line: int, code: str, message: str) -> None:
        self.findings.append(Finding(source.file, line, code, message))

    def _parse(self, source: Source) -> None:
        try:
            self.syntax[source] = parse(source.path, source.text)
        except BadInput as error:
            self._find(source, 0, "parse", error.message)

    def _twice(self) -> None:
        """No folder brings a file or a rule that another one has."""
        seen: dict[str, Source] = {}
        for source in self.tree.sources:
            for key in (source.path, source.rule_id):
                other = seen.setdefault(key, source) if key else source
                if (other.path == source.path and other is not source) or _folder(other) != _folder(source):
                    self._find(source, 0, "taken", f"{key} is there already ({other.file}); give the rule another name")
                    break

    def _place(self, source: Source, syntax: Syntax) -> None:
        expected = _packages(source, built=self.built)
        if source.extra and source.rule_id is None:
            self._find(source, 0, "place", "an extra folder holds only rules/DOMAIN/RULE/RULE.rego and RULE_test.rego")
        elif not expected:
            self._find(
                source, 0, "place", "stands outside lib/NAME/ and rules/DOMAIN/RULE/ of the domains " + ", ".join(DOMAINS)
            )
        elif syntax.package not in expected:
            self._find(source, 1, "package", f"the package must be {dotted(expected[0])}, as the folder says")

    def _uses(self) -> None:
        functions: dict[Path, frozenset[str]] = {}
        modules = {source: syntax for source, syntax in self.syntax.items() if not source.is_test}
        for syntax in modules.values():
            functions[syntax.package] = functions.get(syntax.package, frozenset()) | syntax.functions
        for source, syntax in modules.items():
            for objection in judge(syntax, functions):
                self._find(source, objection.line, objection.code, objection.message)

    def _rules(self) -> None:
        for source, syntax in self.syntax.items():
            if source.is_test or source.rule_id is None:
                continue
            name = source.rule_id.split("/")[1]
            if not RULE_NAME.match(name) or source.path.rsplit("/", 1)[1] != f"{name}.rego":
                self._find(source, 0, "place", f"a rule is one file {name}.rego in its folder, named in lower case with dashes")
                continue
            self._exports(source, syntax, source.rule_id)
            try:
                self.rules.append(read_rule(source.file, source.text, source.rule_id))
            except BadInput as error:
                self._find(source, 0, "metadata", error.message)

    def _exports(self, source: Source, syntax: Syntax, rule_id: str) -> None:
        kinds: dict[str, set[str]] = {}
        for head in syntax.heads:
            kinds.setdefault(head.name, set()).add(head.kind)
        if kinds.get("checked") != {"complete"}:
            self._find(source, 0, "checked", "must define `checked`, true only when all that it reads is there")
        for name in ("deny", "grant"):
            if name in kinds and kinds[name] != {"contains"}:
                self._find(source, 0, name, f"`{name}` must be a partial set: {name} contains … if …")
        if not kinds.keys() & {"deny", "grant"}:
            self._find(source, 0, "deny", "must define `deny contains …` or `grant contains …`")
        self.members.append(Member(rule_id, deny="deny" in kinds, grant="grant" in kinds))

    def _whole(self) -> None:
        where = self.tree.sources[0].file if self.tree.sources else "rules"
        if not self.members and not self.findings:
            self.findings.append(Finding(where, 0, "empty", "no rule was found, and an empty policy set decides nothing"))
        heads = {
            (syntax.package, head.name, head.kind)
            for source, syntax in self.syntax.items()
            if not source.is_test
            for head in syntax.heads
        }
        for package, (name, kind) in LIBRARY.items():
            if (package, name, kind) not in heads:
                message = f"the {kind} {dotted(package)}.{name} is missing; every decision calls it"
                self.findings.append(Finding(where, 0, "library", message))

    def _traps(self) -> None:
        try:
            self.findings += [Finding(trap.file, trap.line, trap.code, trap.message) for trap in lint(self.syntax)]
        except BadInput as error:
            self.findings.append(Finding(error.where or "rules", 0, "tangled", error.message))


def _folder(source: Source) -> str:
    return source.file.rsplit("/", 1)[0]


def _packages(source: Source, *, built: bool) -> list[Path]:
    """The packages that may stand at this place, the usual one first. Tests may add `_test` to the last part."""
    parts = source.path.removesuffix(".rego").split("/")
    package: Path
    if len(parts) == 4 and parts[0] == "rules" and parts[1] in DOMAINS:
        package = ("portcullis", *parts[:3])
    elif len(parts) in {2, 3} and parts[0] == "lib":
        package = ("portcullis", "lib", parts[1].removesuffix("_test"))
    elif built and len(parts) == 2 and parts[0] == "generated" and parts[1] in DOMAINS:
        return [("portcullis", parts[1])]
    else:
        return []
    tests: Path = (*package[:-1], f"{package[-1]}_test")
    return [package, tests] if source.is_test else [package]
