"""The management API over a real state folder, called in process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from admission.ledger import QuotaLedger
from api.app import application
from api.compose import Served, build_served
from core.principal import Principal
from core.settings import parse, rooted

CONFIG = {
    "tenants": {"acme": {"teams": {"vision": {"namespaces": ["vision"], "gpu_quota": 4}}}, "other": {"teams": {}}},
    "grants": [{"id": "w", "tenant": "acme", "domain": "weights", "model": "llama-3", "roles": ["service"]}],
}


@dataclass
class Api:
    """`client` speaks to the application; `key` makes a key with roles in a tenant."""

    served: Served
    client: httpx.AsyncClient
    folder: Path

    async def key(self, *roles: str, tenant: str = "acme", team: str | None = None) -> str:
        by = Principal("local:test", "operator", tenant, roles=frozenset({"admin"}))
        made = await self.served.management.keys.create(name="test", by=by, roles=roles, team=team)
        return made.token

    async def call(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self.client.request(method, path, headers=headers | more.pop("headers", {}), **more)

    def recorded(self) -> list[dict[str, Any]]:
        """Every record, integrated now."""
        from evidence.reader import Reader

        self.served.management.sequencer.integrate_if_free()
        return list(Reader(Path(self.served.management.settings.evidence.dir)).records())


@pytest.fixture
async def api(tmp_path: Path, database_url: str) -> AsyncIterator[Api]:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    settings = parse(
        yaml.safe_dump({"tenant": "acme", "config": [str(tmp_path / "config.yaml")], "storage": {"url": database_url}})
    )
    served = await build_served(rooted(settings, tmp_path / "state"), {}, accounts=QuotaLedger)
    transport = httpx.ASGITransport(app=application(served))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield Api(served, client, tmp_path)
    await served.close()
