"""Whether a change of the configuration weakens what the rules hold people to, and in which ways, in words.

What weakens takes two approvals, as a bundle does: a rule that enforces less somewhere (also by taking a stricter narrower mode
away, or by giving a namespace to a team with weaker modes); an exemption that is wide (every subject, every namespace of a
tenant, more than 90 days), and one that is made longer or wider; fewer required approvals; images no longer held to digests, or
approved by the whole registry; a namespace whose controllers are trusted; an accelerator that is not counted; an obligation
that is taken away.

What does not: quotas and rates in either direction, shares of accelerators, repositories, grants, teams, tenants, and namespaces
that nobody had. Those say who may use how much of what the rules guard, which changes every day; the rules hold as before.
Narrow exemptions for at most 90 days are ordinary too: they name an owner and end by themselves. Numbers of obligations have no
stricter side (a log kept longer is not safer). Freezes have rules of their own (`policies.freezes`): who may lift one is a role.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product

from core.names import shares_of
from policies.config import Document, ExemptionRule, ObligationRule, Tenant, show_time, state_of, unix
from policies.config_lookup import STRICTEST, Modes, Scope, modes_by_scope, namespaces_of, narrowest

LONG_SECONDS = 90 * 86_400
"""An exemption for longer than this is wide."""
MAX_COMPARED = 1_000_000
"""Pairs of modes that are compared; beyond that nobody has looked, so the change is taken to weaken."""
_EVERYWHERE: Scope = (None, None, None, None)


def weakenings(before: Document, after: Document, *, now_unix: int) -> list[str]:
    """The ways in which `after` is weaker than `before`, each as a sentence; nothing when it is not."""
    return [
        *_modes(before, after),
        *_moved(before, after),
        *_exemptions(before, after, now_unix),
        *_tenants(before, after),
        *_ground(before, after),
    ]


# --- modes ------------------------------------------------------------------------------------------------------------


def _modes(before: Document, after: Document) -> Iterator[str]:
    """Where a rule's mode is weaker than before, told at the widest such places.

    Enough to ask where a mode of before and one of after both hold, at least one of them changed: at any other place the mode that
    decides is that of such a place, or the same one as before.
    """
    if before.modes is after.modes:
        return
    old, new = modes_by_scope(before), modes_by_scope(after)
    for rule in sorted({mode.rule for mode in (*before.modes, *after.modes)}):
        was, now = _scopes(old, rule), _scopes(new, rule)
        changed = {scope for scope in {*was, *now} if was.get(scope) != now.get(scope)}
        if len(changed) * len({*was, *now}) > MAX_COMPARED:
            yield f"{rule}: {len(changed)} of its modes change at once, more than can be compared"
            continue
        weaker: dict[Scope, str] = {}
        for scope in _joins(changed, {*was, *now, _EVERYWHERE}):
            one, other = _mode(old, rule, scope), _mode(new, rule, scope)
            if _weaker(other, one):
                weaker[scope] = f"{rule}: {one} becomes {other} {_place(scope)}"
        for scope, said in sorted(weaker.items(), key=lambda found: tuple(part or "" for part in found[0])):
            if not any(wider in weaker for wider in _wider(scope)):
                yield said


def _moved(before: Document, after: Document) -> Iterator[str]:
    """Namespaces that leave their team and find a rule weaker where they go."""
    if before.tenants is after.tenants:
        return
    old, new = modes_by_scope(before), modes_by_scope(after)
    models: dict[str, set[str | None]] = {}
    for mode in (*before.modes, *after.modes):
        if mode.rule.startswith("admission/"):
            models.setdefault(mode.rule, {None}).add(mode.model)
    owners = namespaces_of(after)
    for namespace, owner in sorted(namespaces_of(before).items()):
        then = owners.get(namespace)
        if then == owner:
            continue
        for rule in sorted(models):
            for model in sorted(models[rule], key=lambda name: name or ""):
                one = _mode(old, rule, (*owner, namespace, model))
                other = _mode(new, rule, (*(then or (None, None)), namespace, model))
                if _weaker(other, one):
                    goes = f"goes to team {then[1]} of {then[0]}" if then else "goes to nobody"
                    yield f"{rule}: {one} becomes {other} {_place((None, None, namespace, model))}, which {goes}"


def _scopes(known: Modes, rule: str) -> dict[Scope, str]:
    domain = known.get(rule.partition("/")[0], {})
    return {scope: modes[rule] for scope, modes in domain.items() if rule in modes}


def _mode(known: Modes, rule: str, scope: Scope) -> str:
    return narrowest(known.get(rule.partition("/")[0], {}), *scope).get(rule, "enforce")


def _weaker(mode: str, than: str) -> bool:
    return STRICTEST.index(mode) > STRICTEST.index(than)


def _joins(changed: Collection[Scope], every: Collection[Scope]) -> set[Scope]:
    """The widest places at which two scopes both hold, for every changed one and every other."""
    return {place for one, other in product(changed, every) if (place := _join(one, other)) is not None}


def _join(one: Scope, other: Scope) -> Scope | None:
    parts: list[str | None] = []
    for index, (left, right) in enumerate(zip(one, other, strict=True)):
        if left is None or right is None or left == right:
            parts.append(right if left is None else left)
        elif index == 3 and left.partition("@")[0] == right.partition("@")[0] and ("@" in left) != ("@" in right):
            parts.append(max(left, right, key=len))
        else:
            return None
    return (parts[0], parts[1], parts[2], parts[3])


def _wider(scope: Scope) -> Iterator[Scope]:
    """The scopes that hold wherever this one does, without itself."""
    choices = [dict.fromkeys((None, part)) for part in scope[:3]]
    model = scope[3]
    models = dict.fromkeys((None, None if model is None else model.partition("@")[0], model))
    for tenant, team, namespace, named in product(*choices, models):
        if (tenant, team, namespace, named) != scope:
            yield (tenant, team, namespace, named)


def _place(scope: Scope) -> str:
    tenant, team, namespace, model = scope
    parts = [f"in namespace {namespace}"] if namespace is not None else []
    parts += [f"for team {team} of {tenant}" if team is not None else f"for {tenant}"] if tenant is not None else []
    parts += [f"for model {model}"] if model is not None else []
    return " ".join(parts) or "everywhere"


# --- exemptions -------------------------------------------------------------------------------------------------------


def _exemptions(before: Document, after: Document, now_unix: int) -> Iterator[str]:
    """Those that count after the change and are wide or grew. Taking one away, or its end, never weakens."""
    if before.exemptions is after.exemptions:
        return
    old = {rule.id: rule for rule in before.exemptions}
    for rule in sorted(after.exemptions, key=lambda found: found.id):
        if state_of(rule, now_unix) != "active":
            continue
        known = old.get(rule.id)
        # What never counted, or was a permission to break another rule, is no older form of this one.
        if known is None or (known.rule, known.tenant) != (rule.rule, rule.tenant) or not _complete(known):
            ways = list(_wide(rule, now_unix))
        else:
            ways = list(_grown(known, rule))
        for way in ways:
            yield f"exemption {rule.id} from {rule.rule} {way}"


def _complete(rule: ExemptionRule) -> bool:
    return state_of(rule, 0) == "active"


def _wide(rule: ExemptionRule, now_unix: int) -> Iterator[str]:
    if "*" in rule.subjects:
        yield "covers every subject"
    if rule.rule.startswith("admission/") and not rule.namespaces and not rule.teams:
        yield f"holds in every namespace of {rule.tenant}"
    if _end(rule) > now_unix + LONG_SECONDS:
        yield f"holds until {show_time(_end(rule))}, more than 90 days"


def _grown(old: ExemptionRule, new: ExemptionRule) -> Iterator[str]:
    if _end(new) > _end(old):
        yield f"holds until {show_time(_end(new))} instead of {show_time(_end(old))}"
    if "*" not in old.subjects and not set(new.subjects) <= set(old.subjects):
        yield "covers more subjects"
    for name in ("namespaces", "teams", "models"):
        known, asked = set(getattr(old, name)), set(getattr(new, name))
        # A model's name holds for its versions.
        if known and (not asked or any(not {one, one.partition("@")[0]} & known for one in asked)):
            yield f"holds for more {name}"


def _end(rule: ExemptionRule) -> int:
    return 0 if rule.expires is None else unix(rule.expires)


# --- what the rules stand on ------------------------------------------------------------------------------------------


def _tenants(before: Document, after: Document) -> Iterator[str]:
    """A tenant that is not there counts as one that says nothing, so that taking it away and adding it anew is no way around."""
    if before.tenants is after.tenants:
        return
    for name in sorted({*before.tenants, *after.tenants}):
        old, new = before.tenants.get(name) or Tenant(), after.tenants.get(name) or Tenant()
        if new.required_approvals < old.required_approvals:
            yield f"{name}: {old.required_approvals} required approvals become {new.required_approvals}"
        if old.require_image_digest and not new.require_image_digest:
            yield f"{name}: images need no digest any more"
        for registry in sorted(_whole(new) - _whole(old)):
            yield f"{name}: every image of the registry {registry} is approved"


def _whole(tenant: Tenant) -> set[str]:
    return {image.registry for image in tenant.images if not image.repository}


def _ground(before: Document, after: Document) -> Iterator[str]:
    for namespace in sorted(set(after.controller_namespaces) - set(before.controller_namespaces)):
        yield f"controllers in namespace {namespace} may create workloads for others"
    counted = before.accelerators.keys() - _free(before)
    for name in sorted(counted - after.accelerators.keys() | _free(after) - _free(before)):
        yield f"accelerator {name} is not counted against quotas"
    obliged = {rule.tenant: rule for rule in after.obligations}
    for rule in sorted(before.obligations, key=lambda found: found.tenant):
        kept = obliged.get(rule.tenant) or ObligationRule(tenant=rule.tenant)
        for name in sorted(_obligations(rule) - _obligations(kept)):
            yield f"{rule.tenant}: the obligation {name} is taken away"


def _free(document: Document) -> set[str]:
    """Device classes that the table says are no accelerators. One that the table does not know is counted, or refused."""
    return {name for name, share in document.accelerators.items() if shares_of(share) == 0}


def _obligations(rule: ObligationRule) -> set[str]:
    numbers = {name for name in ("max_tokens", "log_retention_days") if getattr(rule, name) is not None}
    return numbers | {f"header {name}" for name in rule.headers}
