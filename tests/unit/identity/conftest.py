from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from core.principal import Principal
from identity.keys import ApiKeys
from identity.people import Approvers
from identity.roles import Roles
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder

PEPPER = bytes(range(32))
ADMIN = Principal(id="person:root", kind="user", tenant="acme", roles=frozenset({"admin"}))


@dataclass
class House:
    """Everything of identity over one database, as a door would compose it."""

    database: Database
    recorder: MemoryRecorder = field(default_factory=MemoryRecorder)
    clock: FixedClock = field(default_factory=FixedClock)
    commitments: MemoryCommitments = field(default_factory=MemoryCommitments)

    def parts(self) -> dict[str, Any]:
        return {"recorder": self.recorder, "commitments": self.commitments, "clock": self.clock}

    def keys(self, *, pepper: bytes = PEPPER, cache_seconds: float = 0) -> ApiKeys:
        return ApiKeys(self.database, pepper=pepper, cache_seconds=cache_seconds, **self.parts())

    @property
    def people(self) -> Approvers:
        return Approvers(self.database, **self.parts())

    @property
    def roles(self) -> Roles:
        return Roles(self.database, **self.parts())

    def actions(self) -> list[str]:
        return [str(entry.details["action"]) for entry in self.recorder.entries]


@pytest.fixture
def house(database: Database) -> House:
    return House(database)
