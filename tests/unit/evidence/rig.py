"""One evidence folder with a writer, a sequencer and a reader, as a process would have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.canonical import canonical, digest, sha256
from core.decision import Decision, Violation
from core.ids import uuid7
from core.record import Entry
from evidence.keys import log_signer
from evidence.log import Log
from evidence.recorder import EvidenceRecorder
from evidence.sequencer import Sequencer
from tests.simulators.ports import FixedClock

ORIGIN = "portcullis.test/log"
BUNDLE = {".manifest": b"{}\n", "rules/admission/gpu-quota/gpu-quota.rego": b"package x\n"}
REVISION = digest({"format": 1, "modules": {path: sha256(data) for path, data in BUNDLE.items() if path != ".manifest"}})


def entry(number: int = 0, *, tenant: str = "acme", kind: Any = "access", **more: Any) -> Entry:
    return Entry(kind=kind, actor="ref:" + "a" * 32, tenant=tenant, subject=f"thing/{number}", details={"n": number}, **more)


def decide(input: dict[str, Any], *, violations: tuple[Violation, ...] = (), **more: Any) -> Decision:
    return Decision(
        **{
            "domain": "gateway",
            "allow": not violations,
            "evaluated": ("gateway/model-access",),
            "grants": ("gateway/model-access:g1",),
            "violations": violations,
            "warnings": (),
            "obligations": {},
            "decision_id": uuid7(),
            "policy_revision": REVISION,
            "config_revision": "sha256:" + "1" * 64,
            "engine": "embedded",
            "input_digest": sha256(canonical(input)),
            **more,
        }
    )


@dataclass
class Rig:
    folder: Path
    clock: FixedClock = field(default_factory=FixedClock)

    def __post_init__(self) -> None:
        self.recorder = EvidenceRecorder(self.folder, clock=self.clock)

    def sequencer(self, step: Callable[[str], None] | None = None) -> Sequencer:
        return Sequencer(self.folder, origin=ORIGIN, clock=self.clock, **({"step": step} if step else {}))

    def integrate(self) -> int:
        return self.sequencer().integrate_once()

    def log(self) -> Log:
        return Log(self.folder / "log", log_signer(self.folder, ORIGIN).verifier_key)

    def key(self) -> str:
        return (self.folder / "keys" / "log.pub").read_text()

    async def events(self, count: int, **more: Any) -> list[str]:
        return [await self.recorder.event(entry(number, **more)) for number in range(count)]
