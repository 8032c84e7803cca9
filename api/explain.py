"""Why a recorded decision came out as it did: its input opened again, under the policies of that day where they are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import PortcullisError
from evidence.bundles import Bundles
from evidence.recorder import decision_document
from evidence.replay import COMPARED, Opened, opened
from policies.engine import Engine, load_bundle
from policies.explain import Explanation, explain


@dataclass(frozen=True, slots=True)
class Explained:
    """`allow`: what was recorded. `same_policies`: explained under the bundle that decided. The explanation's notes say what differs."""

    record: dict[str, Any]
    allow: bool
    same_policies: bool
    explanation: Explanation

    def as_json(self) -> dict[str, Any]:
        return {**self.explanation.as_json(), "recorded_allow": self.allow, "same_policies": self.same_policies}


def explained(folder: Path, wanted: str, current: Callable[[], Engine]) -> Explained:
    """The decision with this record or decision id, explained. `current` gives the engine for when its own bundle is not kept.

    NotFound when the log has no such decision, or its input is not there any more.
    """
    found = opened(folder, wanted)
    revision = str(found.decision["policy_revision"])
    try:
        engine = load_bundle(Bundles(folder).load(revision))
    except PortcullisError as error:
        engine = current()
        note = (
            f"The policies that decided ({revision}) cannot be used: {error.message}. This explains it under {engine.revision}."
        )
        return _explained(found, engine, same=False, notes=() if engine.revision == revision else (note,))
    try:
        return _explained(found, engine, same=True, notes=())
    finally:
        engine.close()


def _explained(found: Opened, engine: Engine, *, same: bool, notes: tuple[str, ...]) -> Explained:
    explanation = explain(engine, found.decision["domain"], found.input)
    now = decision_document(explanation.decision)
    different = [name for name in COMPARED if now[name] != found.decision.get(name)]
    if different:
        said = "allowed" if found.decision["allow"] else "denied"
        notes = (*notes, f"It was {said} when it was recorded; made again it differs in {', '.join(different)}.")
    told = replace(explanation, notes=(*notes, *explanation.notes))
    return Explained(found.record, found.decision["allow"] is True, same or not notes, told)
