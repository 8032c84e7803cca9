"""The door as it is really built: the shipped rules, the evidence spool, a database of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from admission.compose import build
from core.errors import ConfigError
from core.settings import Settings, parse, rooted
from lineage.deployments import Deployments
from tests.simulators.ports import MemoryModels
from tests.unit.admission.reviews import create, deployment, meta

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    return rooted(parse(f"{{tenant: acme, config: ['{EXAMPLES / 'config.yaml'}']}}"), tmp_path / "state")


async def test_a_door_answers_and_leaves_evidence(settings: Settings, tmp_path: Path) -> None:
    door = await build(settings, {}, models=lambda _: MemoryModels(), deployments=Deployments)
    try:
        web = deployment(name="web")
        web["metadata"] = meta("web") | {"namespace": "search"}
        web["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.acme.example/ml/web:1"
        assert (await door.service.review(create(web)))["response"]["allowed"] is True
        web["spec"]["template"]["spec"]["containers"][0]["image"] = "evil.example/web:1"
        refused = (await door.service.review(create(web)))["response"]
        assert "admission/approved-images" in refused["status"]["message"]
        web["spec"]["replicas"] = "many"
        unreadable = (await door.service.review(create(web)))["response"]
        assert "door/readable" in unreadable["status"]["message"]
        tls = door.tls(["portcullis.gov.svc"])
        assert Path(tls.cert).exists()
        assert (door.tls_folder / "ca.crt").exists()
    finally:
        await door.close()
    spooled = "".join(file.read_text() for file in (tmp_path / "state" / "evidence" / "spool").rglob("*") if file.is_file())
    for decision in (refused, unreadable):
        assert decision["auditAnnotations"]["decision-id"] in spooled
    assert "alice" not in spooled
    assert json.dumps("door/readable") in spooled


async def test_a_configuration_that_cannot_be_used_does_not_start(settings: Settings, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("tenants: {acme: {no_such_key: 1}}\n")
    with pytest.raises(ConfigError):
        await build(
            settings.model_copy(update={"config": [str(bad)]}), {}, models=lambda _: MemoryModels(), deployments=Deployments
        )
