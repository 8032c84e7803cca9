"""`load(settings)` gives the engine; `Engine.decide(domain, input)` gives the decision.

A decision, step by step:

1. The input is written as canonical JSON and digested. A decision that was made on exactly this input before is given again
   (`policies.memory`); an input that does not fit the domain's type is a denial.
2. The engine evaluates `data.portcullis.DOMAIN.decision` over exactly those bytes; a failure is a denial.
3. The answer is read strictly: anything but the agreed document is a denial, and only a literal true allows.
4. Every mandatory rule must have been evaluated, and where the domain needs a grant a mandatory rule must have given it,
   whatever the answer says.
5. Messages, severity, remediation and controls are added from the catalogue.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from core.canonical import canonical, sha256
from core.decision import DOMAINS, MANDATORY, NEEDS_GRANT, STOPS, Decision, Domain, Violation
from core.errors import BadInput, ConfigError
from core.ids import uuid7
from core.settings import Policy, Settings
from policies.answer import Answer, read_answer
from policies.bundle import Bundle
from policies.bundle_keys import VerifyKey, read_verify_key
from policies.catalogue import Catalogue
from policies.check import Loaded, load_modules, load_tree
from policies.distribution import Distribution, read_file
from policies.embedded import Embedded
from policies.evaluate import EngineFailure, Evaluator
from policies.memory import Memory
from policies.messages import explain, own_violation
from policies.validate import Problem, check_input


def load(settings: Settings) -> Engine:
    """The engine that `settings.policy` asks for, over its bundle, or over the shipped rules and the operator's extra folders.

    ConfigError when a rule is not permitted, not complete, or there is none; BadSignature or Broken for a bundle that is not what
    it should be; an OPA server is first asked at the first decision.
    """
    return load_policy(settings.policy)


def load_policy(policy: Policy) -> Engine:
    """As `load`, for the section `policy` of the settings."""
    if policy.bundle is None:
        return engine_over(policy, load_tree(None, [Path(folder) for folder in policy.extra]), None)
    found = distribution_of(policy)
    return engine_over(policy, found.loaded, found.wasm)


def configured(policy: Policy) -> Loaded:
    """The rules that the settings name, without an engine over them. Errors as `load`."""
    if policy.bundle is None:
        return load_tree(None, [Path(folder) for folder in policy.extra])
    return distribution_of(policy).loaded


def engine_over(policy: Policy, loaded: Loaded, module: bytes | None) -> Engine:
    """The engine of `policy.engine` over these rules. ConfigError for `wasm` without a module."""
    # What an engine is made of is imported where it is used: most commands need none of the three.
    if policy.engine == "opa":
        return Engine(loaded, _opa_server(policy, loaded.bundle))
    if policy.engine == "wasm" and module is None:
        raise ConfigError("engine: wasm needs a bundle with a Wasm module; build it where an opa program is", where="policy")
    if policy.engine == "embedded" or module is None:
        from policies.confined import Confined

        return Engine(loaded, Confined(loaded.bundle.modules, deadline_ms=policy.deadline_ms))
    from policies.wasm import Wasm

    return Engine(loaded, Wasm(module, deadline_ms=policy.deadline_ms))


def _opa_server(policy: Policy, bundle: Bundle) -> Evaluator:
    from policies.opa import OpaServer

    token = None
    if policy.token_file is not None:
        try:
            token = Path(policy.token_file).read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise ConfigError("the token's file cannot be read", where=f"policy.token_file: {policy.token_file}") from error
        if not token or not token.isascii() or not token.isprintable():
            raise ConfigError("has no token: one line of printable ASCII", where=f"policy.token_file: {policy.token_file}")
    return OpaServer(str(policy.url), bundle, deadline_ms=policy.deadline_ms, ca=policy.ca, token=token)


def distribution_of(policy: Policy) -> Distribution:
    """The bundle file that the settings name, signed as they ask for. Errors as `load`."""
    return read_file(Path(str(policy.bundle)), key=verify_key(policy))


def verify_key(policy: Policy) -> VerifyKey | None:
    """The key that a bundle must be signed with. ConfigError when it cannot be read."""
    return None if policy.verify_key is None else _verify_key(policy.verify_key)


def _verify_key(path: str) -> VerifyKey:
    where = f"policy.verify_key: {path}"
    try:
        return read_verify_key(Path(path).read_bytes(), where=where)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where) from error
    except BadInput as error:
        raise ConfigError(error.message, where=where) from error


def load_embedded(root: Path | None = None, extra: Sequence[Path] = ()) -> Engine:
    """The interpreter in this process, for commands and tests, over the rules below `root` (the shipped ones when None). ConfigError as `load`."""
    loaded = load_tree(root, extra)
    return Engine(loaded, Embedded(loaded.bundle.modules))


def load_bundle(files: Mapping[str, bytes]) -> Engine:
    """The embedded engine over a bundle as it was written (`Bundle.files`), for replay.

    Broken when the content is not the revision its manifest says; ConfigError when its rules are not permitted.
    """
    loaded = load_modules(Bundle.from_files(files))
    return Engine(loaded, Embedded(loaded.bundle.modules))


class Engine:
    """`core.ports.Engine`. Safe to share between threads and event loops; `close` when done."""

    def __init__(self, loaded: Loaded, evaluator: Evaluator, *, memory: Memory | None = None) -> None:
        """`memory`: of decisions made already; one of its own when None. `Memory(0)` remembers nothing."""
        self.memory = Memory() if memory is None else memory
        self.loaded = loaded
        self.bundle = loaded.bundle
        self.catalogue: Catalogue = loaded.catalogue
        self.failures: Counter[str] = Counter()
        """Evaluations that gave no answer, by reason (`engine/timeout`), since the start."""
        self._evaluator = evaluator
        self._revision = loaded.bundle.revision

    @property
    def name(self) -> str:
        return self._evaluator.name

    @property
    def revision(self) -> str:
        return self._revision

    def apart(self) -> Engine:
        """The same rules on the same evaluator, remembering nothing: for trying inputs that nobody sent. It is not closed by itself."""
        return Engine(Loaded(self.bundle, self.catalogue), self._evaluator, memory=Memory(0))

    @property
    def paused(self) -> bool:
        """Whether its server did not answer so often that calls are denied without asking it."""
        return bool(getattr(self._evaluator, "paused", False))

    def close(self) -> None:
        self._evaluator.close()

    def decide(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        """The decision over `input`. BadInput for an unknown domain; everything else is a denial that says why."""
        pending = self._begin(domain, input)
        known = pending.known()
        if known is not None:
            return known
        try:
            raw = self._evaluator.evaluate(domain, pending.document)
        except EngineFailure as failure:
            self.failures[failure.rule] += 1
            return pending.deny(own_violation(failure.rule, **failure.args_shown))
        return pending.finish(raw)

    async def decide_async(self, domain: Domain, input: Mapping[str, Any]) -> Decision:
        """As `decide`, without blocking the event loop on a server."""
        pending = self._begin(domain, input)
        known = pending.known()
        if known is not None:
            return known
        try:
            raw = await self._evaluator.evaluate_async(domain, pending.document)
        except EngineFailure as failure:
            self.failures[failure.rule] += 1
            return pending.deny(own_violation(failure.rule, **failure.args_shown))
        return pending.finish(raw)

    def _begin(self, domain: Domain, input: Mapping[str, Any]) -> _Pending:
        if domain not in get_args(Domain):
            raise BadInput(f"there is no domain {str(domain)[:40]!r}; the domains are {', '.join(DOMAINS)}", where="domain")
        return _Pending(self, domain, input)


class _Pending:
    """One decision on its way: the checked input, and what is known about it before and after the engine answered."""

    def __init__(self, engine: Engine, domain: Domain, input: Mapping[str, Any]) -> None:
        self.engine = engine
        self.domain = domain
        self.input: dict[str, Any] = {}
        self.started = time.perf_counter_ns()
        self.document = b""
        self.digest = ""
        try:
            self.input = dict(input)
            self.document = canonical(self.input)
            self.digest = sha256(self.document)
        except (BadInput, ValueError, TypeError, RecursionError, AttributeError):
            self.input = {}

    def known(self) -> Decision | None:
        """What needs no engine: a decision that was made before, or the denial of an input that does not fit the domain's type."""
        if not self.document:
            problem: Problem | None = Problem(
                "", "it cannot be written as JSON (numbers beyond 2^53, NaN, or values that JSON has not)"
            )
        else:
            remembered = self.engine.memory.recall(self.domain, self.digest, self._duration())
            if remembered is not None:
                return remembered
            problem = check_input(self.domain, self.document)
        return None if problem is None else self.deny(own_violation("input/schema", problem.path, problem=problem.message))

    def _duration(self) -> int:
        return (time.perf_counter_ns() - self.started) // 1000

    def deny(self, *violations: Violation) -> Decision:
        """A denial without an engine's answer."""
        return self._decision(Answer.empty(), allow=False, violations=violations, result={})

    def finish(self, raw: Any) -> Decision:
        answer, problem = read_answer(raw)
        result = raw if isinstance(raw, dict) else {}
        if answer is None:
            violation = own_violation("engine/error", problem=problem)
            return self._decision(Answer.empty(), allow=False, violations=(violation,), result=result)
        catalogue = self.engine.catalogue
        told = [explain(catalogue, entry) for entry in answer.violations]
        violations = (*told, *self._ours(answer, told))
        decision = self._decision(answer, allow=answer.allow is True and not violations, violations=violations, result=result)
        self.engine.memory.keep(decision)
        return decision

    def _ours(self, answer: Answer, told: Sequence[Violation]) -> list[Violation]:
        """What Python has against the answer: rules not evaluated, no grant, or a denial without a reason."""
        asked = cast("list[str]", self.input["mandatory"])
        missing = [rule for rule in MANDATORY[self.domain] if rule not in answer.evaluated or rule not in asked]
        missing += [rule for rule in asked if rule not in answer.evaluated and rule not in missing]
        found = [own_violation("policy/mandatory", "mandatory", rule=rule) for rule in missing]
        found += [
            own_violation("engine/error", problem=f"it let {entry.rule} pass, which no mode and no exemption can weaken")
            for entry in answer.warnings
            if entry.rule in STOPS
        ]
        if not found and not told and self.domain in NEEDS_GRANT and not self._granted(answer):
            found.append(own_violation("policy/grant"))
        if not found and not told and answer.allow is not True:
            found.append(own_violation("engine/error", problem="it denied and gave no reason"))
        return found

    def _granted(self, answer: Answer) -> bool:
        return any(grant.startswith(f"{rule}:") for grant in answer.grants for rule in MANDATORY[self.domain])

    def _decision(
        self, answer: Answer, *, allow: bool, violations: tuple[Violation, ...], result: Mapping[str, Any]
    ) -> Decision:
        config = self.input.get("config")
        revision = config.get("revision") if isinstance(config, Mapping) else None
        catalogue = self.engine.catalogue
        return Decision(
            domain=self.domain,
            allow=allow,
            evaluated=answer.evaluated,
            grants=answer.grants,
            violations=violations,
            warnings=tuple(explain(catalogue, entry) for entry in answer.warnings),
            obligations=answer.obligations,
            decision_id=uuid7(),
            policy_revision=self.engine.revision,
            config_revision=revision if isinstance(revision, str) else "",
            engine=self.engine.name,
            input_digest=self.digest,
            duration_us=self._duration(),
            result=result,
        )
