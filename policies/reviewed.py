"""Changes of the configuration that people sign before they are made.

A proposal of the kind `configuration` holds the exact edit, what stood and would stand at its path, and the ways in which it
weakens: all of it is what people sign. It is made only as signed: when the value at the path has become another one, or the edit
would weaken in another way, it must be proposed again.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Literal

from core.canonical import digest
from core.errors import BadInput, Conflict, NotFound
from core.jsonread import loads_object
from core.ports import Engine
from core.principal import Principal
from policies import changes
from policies import config_overlay as overlay
from policies.changes import Edit, Intent, Reviewed, Weighed
from policies.config import Path
from policies.proposals import MAX_CONTENT, Proposal, Proposals, as_content, close_in
from policies.store import ConfigStore

Action = Literal["set", "unset"]


class ReviewedChanges:
    """`config propose` and `config apply`. Who may sign, and whether enough have, is decided by the rules of the domain `bundle`."""

    def __init__(self, store: ConfigStore, proposals: Proposals) -> None:
        self._store = store
        self._proposals = proposals

    async def propose(self, path: str, value: Any = None, *, action: Action = "set", by: Principal, reason: str) -> Proposal:
        """Keeps the edit as a proposal, checked as if it were made now. BadInput when it changes nothing; else as
        `ConfigStore.set`."""
        parts = changes.editable(path)
        shown = overlay.show_path(parts)
        clean = overlay.plain(value, where=path) if action == "set" else None
        weighed = await self._store.weigh(
            _edit(action, parts, clean), Intent(changes.kind_of(parts), action, shown, by, reason)
        )
        if weighed.changed == weighed.stored:
            raise BadInput("this changes nothing", where=shown)
        content = {"action": action, "path": shown, "value": clean, "weakens": list(weighed.weakens), **_sides(weighed, parts)}
        summary = {
            "action": action,
            "path": shown,
            "weakens": list(weighed.weakens),
            "differences": [asdict(change) for change in weighed.differences],
        }
        revision = overlay.revision(weighed.after)
        return await self._proposals.propose(
            "configuration", as_content(content), revision=revision, summary=summary, by=by, reason=reason
        )

    async def propose_exemption(self, *, by: Principal, **fields: Any) -> Proposal:
        """As `propose`, for the exemption that `ConfigStore.add_exemption` would add; its fields and errors."""
        path, item = await self._store.new_exemption(**fields)
        return await self.propose(overlay.show_path(path), item, by=by, reason=item["reason"])

    async def apply(self, id: str, *, by: Principal, engine: Engine) -> int:
        """Makes the edit of an approved proposal and closes it; the version that holds it.

        Raises NotFound, BadInput (a proposal of another kind), Refused (not open, not enough signatures), Conflict (the
        configuration changed meanwhile so that it is another edit), Forbidden, EvidenceUnavailable.
        """
        found = await self._proposals.get(id)
        if found.change != "configuration":
            raise BadInput("this proposal changes rules; portcullis policy rollout start puts it into effect", where=id)
        content = loads_object(await self._proposals.content(id), max_bytes=MAX_CONTENT)
        parts = overlay.parse_path(content["path"])
        edit = _edit(content["action"], parts, content["value"])
        details = {"proposal": id, "proposed_by": found.author}
        intent = Intent(
            changes.kind_of(parts),
            content["action"],
            content["path"],
            by,
            found.reason,
            details=details,
            digests={"content": found.digest},
        )
        # What is not open is refused by the rules, on record.
        weighed = await self._same(edit, intent, parts, content) if found.state == "open" else None
        await self._proposals.activate(id, found.digest, by=by, engine=engine)
        reviewed = Reviewed(frozenset(content["weakens"]), partial(close_in, id=id, state="done"))
        version = None if weighed is None else weighed.version
        return await self._store.apply(edit, intent, version, reviewed=reviewed)

    async def _same(self, edit: Edit, intent: Intent, parts: Path, content: dict[str, Any]) -> Weighed:
        try:
            weighed = await self._store.weigh(edit, intent)
        except (BadInput, NotFound) as error:
            raise Conflict(f"the change can be made no more: {error.message}; propose it again", where=intent.path) from error
        sides = _sides(weighed, parts)
        if any(sides[name] != content[name] for name in sides):
            raise Conflict(
                "what stands there, or would, is not what was signed: the configuration changed meanwhile; propose it again",
                where=intent.path,
            )
        return weighed


def _edit(action: str, parts: Path, value: Any) -> Edit:
    if action == "unset":
        return lambda document: overlay.drop(document, parts)
    return lambda document: overlay.put(document, parts, value)


def _sides(weighed: Weighed, parts: Path) -> dict[str, str | None]:
    """Digests of what is and would be in force at the path; None where there is nothing."""
    return {"before": _at(weighed.before, parts), "after": _at(weighed.after, parts)}


def _at(document: dict[str, Any], parts: Path) -> str | None:
    try:
        return digest({"value": overlay.get(document, parts)})
    except NotFound:
        return None
