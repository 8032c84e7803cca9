"""What a change of the configuration is: what is edited, who may, and what it takes when it weakens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import BadInput, ConfigError, Conflict, Forbidden, NeedsApproval
from core.principal import Principal
from policies import config_overlay as overlay
from policies.config import Document, Path, Tenant

EDITORS = frozenset({"admin", "operator"})
MAX_REASON = 1000
MAX_PATH = 512
MAX_TOLD = 10
"""Ways of weakening that a refusal lists; a proposal lists all."""

Edit = Callable[[dict[str, Any]], dict[str, Any]]
ChangeKind = Literal["config_change", "exemption", "freeze"]


@dataclass(frozen=True, slots=True)
class Intent:
    """Why a change is made, as it is recorded. `subject` is what the record is about, where that is not the path; `path` and
    `subject` stand in the record, so a person in them is a reference."""

    kind: ChangeKind
    action: str
    path: str
    author: Principal
    reason: str
    subject: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Weighed:
    """An edit as it would be made now: what the database holds and would hold, what is and would be in force, what weakens, and
    the typed `document` in force."""

    version: int
    stored: dict[str, Any]
    changed: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    weakens: tuple[str, ...]
    document: Document

    @property
    def differences(self) -> list[overlay.Change]:
        """What is in force and would not be, or the other way round. A section that one side lacks is empty there."""
        empty: dict[str, Any] = {name: {} for name in overlay.IDENTITY}
        return list(overlay.differences(empty | self.before, empty | self.after))


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What enough people have signed. `policies.reviewed` makes one after the rules of the domain `bundle` have allowed it.

    `weakens`: the ways that they saw; `close` ends the proposal in the transaction that saves the change, so that it is made once.
    """

    weakens: frozenset[str]
    close: Callable[[AsyncSession], Awaitable[None]]


def editable(path: str) -> Path:
    """The path of a value that `set` and `unset` may change."""
    parts = overlay.parse_path(path)
    if parts[0] == "freezes":
        raise BadInput("a freeze is made and lifted by portcullis freeze and unfreeze only", where=path)
    return parts


def kind_of(path: Path) -> ChangeKind:
    return "exemption" if path[0] == "exemptions" else "config_change"


def its_own(error: ConfigError, path: str) -> BadInput:
    """What a change at `path` broke, without the file or the version that it would have stood in."""
    _, _, place = error.where.partition(": ")
    return BadInput(error.message, where=place or path)


def check(intent: Intent) -> None:
    """Forbidden without the role, BadInput without a reason."""
    if not EDITORS & intent.author.roles:
        raise Forbidden(f"changing the configuration needs one of the roles {', '.join(sorted(EDITORS))}")
    if not intent.reason.strip() or len(intent.reason) > MAX_REASON or not intent.reason.isprintable():
        raise BadInput(f"a change needs a reason: one printable line of at most {MAX_REASON} characters", where="reason")
    if len(intent.path) > MAX_PATH:
        raise BadInput(f"longer than {MAX_PATH} characters", where="path")


def check_scope(weighed: Weighed, home: str | None, author: Principal) -> None:
    """Forbidden when an author of another tenant than `home` changes what is not their own tenant's."""
    if home is None or author.tenant == home:
        return
    for change in weighed.differences:
        path = overlay.parse_path(change.path)
        if tenants_of(path, weighed.before, weighed.after) != {author.tenant}:
            raise Forbidden(f"only operators of {home} may change what is not {author.tenant}'s own", where=change.path)


def check_reviewed(weighed: Weighed, reviewed: Reviewed | None, intent: Intent, home: str | None) -> None:
    """NeedsApproval when the change weakens and nobody has signed it; Conflict when it weakens in ways that nobody has signed."""
    if reviewed is not None:
        unseen = [way for way in weighed.weakens if way not in reviewed.weakens]
        if unseen:
            raise Conflict(f"it would weaken now what nobody has signed: {told(unseen)}; propose it again", where=intent.path)
        return
    if not weighed.weakens:
        return
    tenant = home or intent.author.tenant
    needed = (weighed.document.tenants.get(tenant) or Tenant()).required_approvals
    proposes = "Propose it" if intent.author.tenant == tenant else f"Have an operator of {tenant} propose it"
    raise NeedsApproval(
        f"this weakens what is in force: {told(weighed.weakens)}. That takes {needed} registered approvers besides its author. "
        f"{proposes} (portcullis config propose PATH VALUE -m WHY; an exemption: exemption add ... --propose), have them sign it "
        "(portcullis policy bundle approve ID --key KEY.pem), then portcullis config apply ID. Where nobody is registered: "
        "portcullis identity approver add, or set it in a file of the configuration, whose changes are reviewed where it is kept.",
        where=intent.path,
    )


def told(ways: Sequence[str]) -> str:
    more = [f"and {len(ways) - MAX_TOLD} more"] if len(ways) > MAX_TOLD else []
    return "; ".join([*ways[:MAX_TOLD], *more])


def tenants_of(path: Path, before: dict[str, Any], after: dict[str, Any]) -> set[str | None]:
    """Whose the value at `path` was and will be; None stands for the installation's."""
    if path[0] == "tenants" and len(path) > 1:
        return {path[1]}
    if path[0] in overlay.IDENTITY:
        keys = [path[1]] if len(path) > 1 else [*before.get(path[0], {}), *after.get(path[0], {})]
        items = [side.get(path[0], {}).get(key) for side in (before, after) for key in keys]
        return {item.get("tenant") for item in items if item is not None}
    return {None}


def document_before(before: Mapping[str, Any], after: Mapping[str, Any], document: Document) -> Document:
    """The typed configuration before a change, of which `document` is what is `after` it. Sections that are the same are the very
    objects of `document`.

    What cannot be typed was unusable, so that every door refused: against the defaults, which are strict, whatever a repair loosens
    shows.
    """
    same = {name: getattr(document, name) for name in Document.model_fields if before.get(name) == after.get(name)}
    shown = overlay.listed({name: value for name, value in before.items() if name not in same})
    try:
        return Document.model_validate(shown).model_copy(update=same)
    except ValidationError:
        return Document().model_copy(update=same)
