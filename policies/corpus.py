"""Inputs with the decision that each must get: what `tests/corpus` holds the shipped rules to, and a bundle's builder holds theirs to.

One JSON document per line: {"domain", "input", "expect"}. `expect` says what must come out: `allow: true`, or `deny` (rule, and the args
that matter), or `missing` (mandatory rules that cannot be checked), or `no_grant`, or `schema` (it does not fit the domain's type, so no
engine may see it). `warn`, `grants` and `obligations` are compared where they stand; no warning is expected where `warn` does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.canonical import canonical, digest, sha256
from core.decision import Decision, Domain
from core.errors import BadInput
from core.jsonread import loads_object
from policies.check import Loaded
from policies.confined import Confined
from policies.engine import Engine
from policies.memory import Memory
from policies.wasm import Wasm

DEADLINE_MS = 10_000
"""Generous: a slow machine fails no build, and a rule that does not end still ends one."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Denied(_Strict):
    rule: str
    args: dict[str, Any] = {}


class _Warned(_Strict):
    rule: str
    mode: str
    exemption: str = ""


class Expect(_Strict):
    """What must come out; the module's docstring says what each field means."""

    allow: bool = False
    deny: list[_Denied] | None = None
    missing: list[str] = []
    no_grant: bool = False
    no_engine: bool = Field(default=False, alias="schema")
    warn: list[_Warned] = []
    grants: list[str] | None = None
    obligations: dict[str, Any] | None = None

    @property
    def rules(self) -> set[str]:
        """The rules that must deny, and nothing else may."""
        if self.no_engine:
            return {"input/schema"}
        ours = (("policy/mandatory", self.missing), ("policy/grant", self.no_grant))
        return {entry.rule for entry in self.deny or ()} | {rule for rule, wanted in ours if wanted}


class _Line(_Strict):
    domain: Domain
    input: dict[str, Any]
    expect: Expect


@dataclass(frozen=True, slots=True)
class Expected:
    """One input. `where`: its file and line."""

    where: str
    domain: Domain
    input: Mapping[str, Any]
    expect: Expect
    digest: str


def documents(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line of these files, and of the .jsonl files below these folders, with its place. BadInput for what cannot be read."""
    for path in paths:
        files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise BadInput("holds no file NAME.jsonl with inputs", where=str(path))
        for file in files:
            try:
                lines = file.read_bytes().splitlines()
            except OSError as error:
                raise BadInput(f"cannot be read: {error.strerror}", where=str(file)) from error
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file}:{number}", _object(line, f"{file}:{number}")


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        return loads_object(line)
    except BadInput as error:
        raise BadInput(error.message, where=where) from error


def _digest(document: dict[str, Any]) -> str:
    """Not of the canonical form: an input that has none (a number beyond 2^53) is one that must be refused."""
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def input_of(document: dict[str, Any]) -> dict[str, Any]:
    """The input in a line of any kind: a line with an expectation has it inside, else the line is the input."""
    return document["input"] if document.keys() == {"domain", "input", "expect"} else document


def read(paths: Sequence[Path]) -> list[Expected]:
    """The inputs below `paths`, each with what must come out. BadInput names the line that is none, or that nothing was found."""
    found = []
    for where, document in documents(paths):
        try:
            line = _Line.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "the line"
            raise BadInput(f"{key}: {first['msg']}; a line is {{domain, input, expect}}", where=where) from error
        found.append(Expected(where, line.domain, line.input, line.expect, _digest(document)))
    if not found:
        raise BadInput("there is no input in it, so it shows nothing", where=", ".join(map(str, paths)))
    return found


def summary(inputs: Sequence[Expected]) -> dict[str, Any]:
    """What a manifest says of inputs that all passed: how many different ones, and the digest over their digests, in any order."""
    digests = sorted({one.digest for one in inputs})
    return {"inputs": len(digests), "digest": digest(digests)}


def failures(loaded: Loaded, module: bytes | None, inputs: Sequence[Expected]) -> Iterator[tuple[Expected, list[str]]]:
    """Each input in turn with what is wrong, nothing where all is right: the embedded engine's decision, the Wasm module's where there
    is one, and every difference between the two documents."""
    engines = [Engine(loaded, Confined(loaded.bundle.modules, deadline_ms=DEADLINE_MS), memory=Memory(0))]
    try:
        if module is not None:
            engines.append(Engine(loaded, Wasm(module, deadline_ms=DEADLINE_MS), memory=Memory(0)))
        for one in inputs:
            yield one, _wrong(one, [(engine.name, engine.decide(one.domain, one.input)) for engine in engines])
    finally:
        for engine in engines:
            engine.close()


def _wrong(one: Expected, decisions: Sequence[tuple[str, Decision]]) -> list[str]:
    found = [f"{name}: {problem}" for name, decision in decisions for problem in differences(one.expect, decision)]
    if len({canonical(dict(decision.result)) for _, decision in decisions}) > 1:
        found.append("the engines' documents differ: " + " and ".join(name for name, _ in decisions))
    return found


def differences(expect: Expect, decision: Decision) -> list[str]:
    """What in `decision` is not as expected; empty when it is right."""
    found: list[str] = []
    denied = [(violation.rule, dict(violation.args)) for violation in decision.violations]
    if decision.allow is not expect.allow:
        found.append(f"allow is {decision.allow}")
    if {rule for rule, _ in denied} != expect.rules:
        found.append(f"denied by {sorted({rule for rule, _ in denied})}, expected {sorted(expect.rules)}")
    found += [
        f"no violation {entry.model_dump()}; there are {denied}"
        for entry in expect.deny or ()
        if not any(rule == entry.rule and _has(args, entry.args) for rule, args in denied)
    ]
    if expect.deny is not None and len(denied) != len(expect.deny) + len(expect.missing):
        found.append(f"{len(denied)} violations: {denied}")
    missing = sorted(args["rule"] for rule, args in denied if rule == "policy/mandatory")
    if missing != sorted(expect.missing):
        found.append(f"missing {missing}")
    return found + _rest(expect, decision)


def _rest(expect: Expect, decision: Decision) -> list[str]:
    found = []
    warned = [_Warned(rule=one.rule, mode=one.mode, exemption=one.exemption or "") for one in decision.warnings]
    if warned != expect.warn:
        found.append(f"warned {[one.model_dump() for one in warned]}")
    if expect.grants is not None and list(decision.grants) != expect.grants:
        found.append(f"granted {decision.grants}")
    if expect.obligations is not None and dict(decision.obligations) != expect.obligations:
        found.append(f"obliged {decision.obligations}")
    return found


def _has(args: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(args.get(name) == value for name, value in wanted.items())
