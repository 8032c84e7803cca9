"""What every engine's evaluation looks like to `policies.engine`, and how it fails."""

from __future__ import annotations

from typing import Any, Protocol

from core.decision import Domain
from core.errors import EngineUnavailable


class EngineFailure(EngineUnavailable):
    """An evaluation that gave no answer. `rule` is the reason in the denial (`messages.OWN_RULES`), `args` its values."""

    def __init__(self, rule: str, **args: Any) -> None:
        super().__init__(str(args.get("problem", rule)), where=rule)
        self.rule = rule
        self.args_shown = args


class Evaluator(Protocol):
    """Runs `data.portcullis.DOMAIN.decision` over an input, given as JSON bytes. Raises EngineFailure, nothing else."""

    name: str

    def evaluate(self, domain: Domain, document: bytes) -> Any: ...

    async def evaluate_async(self, domain: Domain, document: bytes) -> Any: ...

    def close(self) -> None: ...
