"""What is charged against what is allowed, by team: the configuration's limits beside the ledger's accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from core.names import shares_of
from policies.store import ConfigStore


class Account(Protocol):
    @property
    def team(self) -> str: ...

    @property
    def used_shares(self) -> int: ...


class Accounts(Protocol):
    """The admission door's ledger as it is read here."""

    async def accounts(self, tenant: str) -> Sequence[Account]: ...


async def rows(config: ConfigStore, ledger: Accounts, tenant: str, team: str | None = None) -> list[dict[str, Any]]:
    """One row per configured team of `tenant` (or only `team`): shares used and allowed; no limit is `None`."""
    tenants = (await config.effective()).tenants
    teams = tenants[tenant].teams if tenant in tenants else {}
    used = {account.team: account.used_shares for account in await ledger.accounts(tenant)}
    return [
        {
            "team": name,
            "used_shares": used.get(name, 0),
            "limit_shares": None if found.gpu_quota is None else shares_of(found.gpu_quota),
        }
        for name, found in sorted(teams.items())
        if team in (None, name)
    ]
