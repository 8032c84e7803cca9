from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput, ConfigError, Conflict, EvidenceUnavailable, Forbidden, NotFound, Unavailable
from core.inputs import AdmissionConfig, ImageSource, Obligations
from core.names import SHARES_PER_GPU, ModelRef
from core.principal import Principal
from policies.config import show_time
from policies.store import ConfigStore
from storage.database import Database
from tests.simulators.ports import FixedClock, MemoryCommitments, MemoryRecorder

OPERATOR = Principal(id="person:olga", kind="user", tenant="home", roles=frozenset({"operator"}))
ACME_ADMIN = Principal(id="person:ann", kind="user", tenant="acme", roles=frozenset({"admin"}))
LLAMA = ModelRef("llama-3", "7")

ACME = """
tenants:
  acme:
    images: [{registry: registry.acme.example, repository: ml}]
    required_approvals: 3
    requests_per_minute: 40
    teams:
      vision: {namespaces: [vision-prod, vision-dev], gpu_quota: "4", requests_per_minute: 20}
      speech: {namespaces: [speech-prod], gpu_quota: 3/7}
    keys:
      KFAST: {requests_per_minute: 9000}
  other:
    teams: {vision: {namespaces: [other-prod]}}
grants:
  - {id: vision-llama, tenant: acme, domain: gateway, model: llama-3, version: "7", teams: [vision], callers: ["key:K1"]}
  - {id: all-llama, tenant: acme, domain: gateway, model: llama-3, roles: [service]}
  - {id: keys, tenant: acme, domain: weights, model: llama-3, teams: [vision]}
modes:
  - {rule: admission/approved-model, mode: dryrun}
  - {rule: admission/approved-model, mode: warn, tenant: acme}
  - {rule: admission/approved-model, mode: enforce, namespace: vision-prod}
  - {rule: gateway/purpose, mode: warn, tenant: acme}
exemptions:
  - {id: EX-1, rule: admission/approved-images, tenant: acme, owner: "person:ann", reason: migration, ticket: T-1,
     expires: 2027-01-31T00:00:00Z, namespaces: [vision-prod], subjects: [Deployment/chat]}
  - {id: EX-2, rule: admission/gpu-quota, tenant: acme, subjects: ["*"]}
obligations:
  - {tenant: acme, max_tokens: 2048, log_retention_days: 183, headers: {x-ai-notice: generated}}
"""


async def namespace(
    store: ConfigStore, name: str, *, subject: str = "Deployment/chat", models: Sequence[ModelRef] = (LLAMA,)
) -> AdmissionConfig:
    return await store.admission(name, subject=subject, caller="ann", models=models)


def caller(tenant: str, team: str | None = "vision", id: str = "key:K1") -> Principal:
    return Principal(id, "caller", tenant, team=team)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "config"
    place.mkdir()
    (place / "acme.yaml").write_text(ACME)
    return place


class Bench:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.recorder, self.clock = MemoryRecorder(), FixedClock()

    def store(self, **options: Any) -> ConfigStore:
        options = {"files": [self.folder], "max_age_seconds": 0, **options}
        return ConfigStore(self.database, commitments=MemoryCommitments(), recorder=self.recorder, clock=self.clock, **options)


@pytest.fixture
def bench(database: Database, folder: Path) -> Bench:
    return Bench(database, folder)


async def test_admission_finds_what_concerns_a_namespace(bench: Bench) -> None:
    found = await namespace(bench.store(), "vision-prod")
    assert (found.tenant, found.team, found.required_approvals) == ("acme", "vision", 3)
    assert found.gpu_limit_shares == 4 * SHARES_PER_GPU
    assert found.images == [ImageSource(registry="registry.acme.example", repository="ml")]
    assert found.controller_namespaces == ["kube-system"]
    assert [exemption.id for exemption in found.exemptions] == ["EX-1", "EX-2"]
    assert found.exemptions[0].owner == await MemoryCommitments().ref("acme", "person:ann")
    assert found.exemptions[0].reason_given
    assert found.exemptions[0].expires_unix == 1_801_353_600
    assert not found.exemptions[1].reason_given


async def test_nothing_of_a_person_travels(bench: Bench) -> None:
    store = bench.store()
    text = (await namespace(store, "vision-prod")).model_dump_json() + (
        await store.gateway(caller("acme"), LLAMA)
    ).model_dump_json()
    assert "ann" not in text
    assert "key:K1" not in text
    assert "migration" not in text


async def test_a_namespace_of_nobody_has_no_tenant_and_no_limit(bench: Bench) -> None:
    found = await namespace(bench.store(), "kube-public")
    assert (found.tenant, found.team, found.gpu_limit_shares, found.images) == (None, None, None, [])
    assert found.modes == {"admission/approved-model": "dryrun"}


async def test_the_narrower_mode_wins_and_enforce_is_silent(bench: Bench) -> None:
    store = bench.store()
    assert (await namespace(store, "vision-dev")).modes == {"admission/approved-model": "warn"}
    assert (await namespace(store, "vision-prod")).modes == {}
    assert (await namespace(store, "other-prod")).modes == {"admission/approved-model": "dryrun"}
    assert (await store.gateway(caller("acme"), LLAMA)).modes == {"gateway/purpose": "warn"}
    assert (await store.gateway(caller("other"), LLAMA)).modes == {}


async def test_grants_are_those_of_tenant_model_version_and_domain(bench: Bench) -> None:
    store = bench.store()
    assert [grant.id for grant in (await store.gateway(caller("acme"), LLAMA)).grants] == ["all-llama", "vision-llama"]
    assert [grant.id for grant in (await store.gateway(caller("acme"), ModelRef("llama-3", "8"))).grants] == ["all-llama"]
    assert (await store.gateway(caller("other"), LLAMA)).grants == []
    assert [grant.id for grant in (await store.weights(caller("acme"), LLAMA)).grants] == ["keys"]
    granted = (await store.gateway(caller("acme"), LLAMA)).grants[1]
    assert granted.callers == [await MemoryCommitments().ref("acme", "key:K1")]
    assert (await store.gateway(caller("acme"), LLAMA)).obligations == Obligations(
        max_tokens=2048, log_retention_days=183, headers={"x-ai-notice": "generated"}
    )
    assert (await store.gateway(caller("other"), LLAMA)).obligations == Obligations()


async def test_the_narrowest_rate_limit_holds(bench: Bench) -> None:
    store = bench.store()
    assert await store.requests_per_minute("acme", "vision", "KFAST") == 9000
    assert await store.requests_per_minute("acme", "vision", "K1") == 20
    assert await store.requests_per_minute("acme", "speech", "K1") == 40
    assert await store.requests_per_minute("acme", None, "K1") == 40
    assert await store.requests_per_minute("other", "vision", "K1") == 60
    assert await store.requests_per_minute("nobody", None, "K1") == 60


async def test_defaults_lie_below_files_below_the_database(bench: Bench) -> None:
    store = bench.store()
    assert (await store.accelerators())["nvidia.com/mig-3g.40gb"] == 3 * SHARES_PER_GPU // 7
    (bench.folder / "gpus.yaml").write_text('accelerators: {nvidia.com/gpu.shared: "1/8", example.com/npu: 2}')
    assert (await store.accelerators())["nvidia.com/gpu.shared"] == SHARES_PER_GPU // 8
    await store.set("accelerators.nvidia.com/gpu.shared", "1/4", author=OPERATOR, reason="measured")
    table = await store.accelerators()
    assert table["nvidia.com/gpu.shared"] == SHARES_PER_GPU // 4
    assert (table["example.com/npu"], table["nvidia.com/gpu"]) == (2 * SHARES_PER_GPU, SHARES_PER_GPU)
    (bench.folder / "claims.yaml").write_text(f"accelerators: {{{NIC_CLASS}: 0}}")
    assert (await store.accelerators())[NIC_CLASS] == 0
    await store.unset("accelerators.nvidia.com/gpu.shared", author=OPERATOR, reason="measured wrongly")
    assert (await store.accelerators())["nvidia.com/gpu.shared"] == SHARES_PER_GPU // 8


async def test_set_changes_the_revision_and_is_recorded_without_names(bench: Bench) -> None:
    store = bench.store()
    before = await store.refresh()
    version = await store.set("tenants.acme.teams.vision.gpu_quota", "0.5", author=OPERATOR, reason="less work")
    after = await store.refresh()
    assert version == 1
    assert after != before
    assert (await namespace(store, "vision-prod")).gpu_limit_shares == SHARES_PER_GPU // 2
    assert (await namespace(store, "vision-prod")).revision == after
    (entry,) = bench.recorder.entries
    assert entry.kind == "config_change"
    assert entry.digests == {"config_before": before, "config": after}
    assert entry.subject == "config/tenants.acme.teams.vision.gpu_quota"
    assert entry.actor == await MemoryCommitments().ref("home", "person:olga")
    (row,) = await store.history()
    assert (row.version, row.reason, row.created_unix, row.author_ref) == (1, "less work", bench.clock.now, entry.actor)
    (change,) = await store.diff(0)
    assert (change.path, change.after, change.added) == ("tenants", {"acme": {"teams": {"vision": {"gpu_quota": "0.5"}}}}, True)


async def test_without_a_record_nothing_changes(bench: Bench) -> None:
    store = bench.store()
    before = await store.refresh()
    bench.recorder.broken = True
    with pytest.raises(EvidenceUnavailable):
        await store.set("requests_per_minute", 1, author=OPERATOR, reason="test")
    assert await store.refresh() == before
    assert await store.history() == []


async def test_the_record_stands_before_the_row(bench: Bench) -> None:
    store = bench.store()
    rows: list[int] = []

    async def watching(entry: Any) -> str:
        rows.append(len(await store.history()))
        return "id"

    bench.recorder.event = watching  # type: ignore[method-assign]
    await store.set("requests_per_minute", 1, author=OPERATOR, reason="test")
    assert rows == [0]


async def test_setting_what_is_set_changes_and_records_nothing(bench: Bench) -> None:
    store = bench.store()
    assert await store.set("requests_per_minute", 1, author=OPERATOR, reason="test") == 1
    assert await store.set("requests_per_minute", 1, author=OPERATOR, reason="test") == 1
    assert len(bench.recorder.entries) == 1


async def test_of_two_writers_from_one_version_one_wins(bench: Bench) -> None:
    stores = [bench.store() for _ in range(6)]
    results = await asyncio.gather(
        *(
            store.set("requests_per_minute", rate, author=OPERATOR, reason="race", expected_version=0)
            for rate, store in enumerate(stores, 1)
        ),
        return_exceptions=True,
    )
    assert sum(result == 1 for result in results) == 1
    assert all(result == 1 or isinstance(result, Conflict) for result in results)
    assert [row.version for row in await stores[0].history()] == [1]


async def test_an_old_version_is_a_conflict(bench: Bench) -> None:
    store = bench.store()
    await store.set("requests_per_minute", 1, author=OPERATOR, reason="first")
    with pytest.raises(Conflict):
        await store.set("requests_per_minute", 2, author=OPERATOR, reason="second", expected_version=0)


async def test_another_process_sees_a_change_and_a_file(bench: Bench) -> None:
    one, two = bench.store(), bench.store()
    assert (await namespace(two, "speech-prod")).gpu_limit_shares == 3 * SHARES_PER_GPU // 7
    await one.set("tenants.acme.teams.speech.gpu_quota", 2, author=OPERATOR, reason="more work")
    assert (await namespace(two, "speech-prod")).gpu_limit_shares == 2 * SHARES_PER_GPU
    (bench.folder / "zz.yaml").write_text("requests_per_minute: 7")
    assert await two.requests_per_minute("nobody", None, "K") == 7


async def test_answers_are_kept_for_the_age_and_not_longer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("policies.store.time.monotonic", lambda: now[0])
    store = bench.store(max_age_seconds=0.5)
    first = await namespace(store, "vision-prod", subject="Job/train")
    (bench.folder / "zz.yaml").write_text("controller_namespaces: [kube-system, gpu-operator]")
    now[0] += 0.49
    assert await namespace(store, "vision-prod", subject="Job/train") is first
    now[0] += 0.42  # beyond what a build may take
    assert (await namespace(store, "vision-prod", subject="Job/train")).controller_namespaces == ["kube-system", "gpu-operator"]


async def test_an_erased_person_is_asked_for_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bench.store()
    old = (await store.gateway(caller("acme"), LLAMA)).grants[1].callers

    async def fresh(self: Any, tenant: str, person: str) -> str:
        return "ref:new-salt"

    monkeypatch.setattr(MemoryCommitments, "ref", fresh)
    assert (await store.gateway(caller("acme"), LLAMA)).grants[1].callers == ["ref:new-salt"] != old


async def test_a_source_that_breaks_refuses_answers_until_it_is_whole(bench: Bench) -> None:
    store = bench.store()
    await namespace(store, "vision-prod")
    broken = bench.folder / "zz.yaml"
    broken.write_text("tenants: {acme: {teams: {vision: {gpu_qouta: 4}}}}")
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            await namespace(store, "vision-prod")
        assert str(broken) in caught.value.where
        assert "tenants.acme.teams.vision.gpu_qouta" in caught.value.where
    broken.unlink()
    assert (await namespace(store, "vision-prod")).team == "vision"


async def test_a_missing_folder_refuses(bench: Bench) -> None:
    store = bench.store(files=[bench.folder / "nowhere"])
    with pytest.raises(ConfigError, match="no such file"):
        await store.refresh()


async def test_an_unreadable_file_refuses(bench: Bench) -> None:
    store = bench.store()
    await store.refresh()
    (bench.folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00tenants")
    with pytest.raises(ConfigError):
        await store.refresh()


async def test_a_database_that_is_gone_refuses_what_was_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bench.store()
    await store.refresh()

    def gone(**_: Any) -> Any:
        raise Unavailable("the database does not answer: gone")

    monkeypatch.setattr(bench.database, "session", gone)
    with pytest.raises(Unavailable):
        await namespace(store, "vision-prod")


async def test_a_configmap_mount_is_read_once(bench: Bench) -> None:
    data = bench.folder / "..2026_11_21"
    data.mkdir()
    (data / "linked.yaml").write_text("requests_per_minute: 11")
    (bench.folder / "..data").symlink_to("..2026_11_21")
    (bench.folder / "linked.yaml").symlink_to("..data/linked.yaml")
    assert (await bench.store().effective()).requests_per_minute == 11


NIC_CLASS = "nic.example.com.deviceclass.resource.k8s.io/devices"
BAD_CHANGES: dict[str, tuple[str, Any]] = {
    "unknown section": ("tenant.acme", {}),
    "unknown key": ("tenants.acme.teams.vision.gpus", "4"),
    "wrong type": ("tenants.acme.require_image_digest", "yes"),
    "one approval": ("tenants.acme.required_approvals", 1),
    "a fraction as a float": ("tenants.acme.teams.vision.gpu_quota", 0.5),
    "a share that is not whole": ("tenants.acme.teams.vision.gpu_quota", "1/11"),
    "a negative quota": ("tenants.acme.teams.vision.gpu_quota", "-1"),
    "a free accelerator": ("accelerators.nvidia.com/gpu", 0),
    "a namespace claimed twice": ("tenants.other.teams.vision.namespaces", ["other-prod", "vision-prod"]),
    "a mode that does not exist": ("modes.admission/gpu-quota", {"mode": "allow"}),
    "a mode of no rule": ("modes.gpu-quota", {"mode": "warn"}),
    "a gateway mode by namespace": ("modes.gateway/purpose[namespace=vision-prod]", {"mode": "warn"}),
    "a mode of an unknown tenant": ("modes.gateway/purpose[tenant=nobody]", {"mode": "warn"}),
    "a grant of an unknown team": ("grants.vision-llama.teams", ["vison"]),
    "a grant to nobody": ("grants.all-llama.roles", []),
    "a grant of another domain": ("grants.all-llama.domain", "admission"),
    "another identity": ("grants.all-llama.id", "x"),
    "two identities": ("grants.all-llama", {"id": "x"}),
    "half an item": ("grants.new", {"tenant": "acme"}),
    "an expiry without a zone": ("exemptions.EX-1.expires", "2027-01-31T00:00:00"),
    "an expiry that is a date": ("exemptions.EX-1.expires", "2027-01-31"),
    "a header that splits": ("obligations.acme.headers", {"x-a": "b\r\nset-cookie: c"}),
    "a header name that splits": ("obligations.acme.headers", {"x-a: b": "c"}),
    "below a plain value": ("requests_per_minute.fast", 1),
    "no path": ("", 1),
    "an empty part": ("tenants..acme", {}),
    "an open quote": ('tenants."acme', {}),
    "a list instead of a map": ("tenants", []),
    "bytes": ("tenants.acme.images", b"x"),
    "a number beyond JSON": ("requests_per_minute", 2**60),
}


@pytest.mark.parametrize("name", BAD_CHANGES)
async def test_a_bad_change_is_refused_and_leaves_nothing(bench: Bench, name: str) -> None:
    path, value = BAD_CHANGES[name]
    store = bench.store()
    before = await store.refresh()
    with pytest.raises(BadInput) as caught:
        await store.set(path, value, author=OPERATOR, reason="test")
    assert str(bench.folder) not in str(caught.value), "a place in the document, not one on our disk"
    assert await store.refresh() == before
    assert bench.recorder.entries == []
    assert await store.history() == []


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001, "two\nlines"])
async def test_a_change_needs_a_reason(bench: Bench, reason: str) -> None:
    with pytest.raises(BadInput):
        await bench.store().set("requests_per_minute", 1, author=OPERATOR, reason=reason)


@pytest.mark.parametrize("role", ["approver", "auditor", "service"])
async def test_a_change_needs_the_role(bench: Bench, role: str) -> None:
    author = Principal(id="key:K1", kind="caller", tenant="home", roles=frozenset({role}))
    with pytest.raises(Forbidden):
        await bench.store().set("requests_per_minute", 1, author=author, reason="test")


OWN_CHANGES = {
    "own team": ("tenants.acme.teams.vision.gpu_quota", 1),
    "own mode": ("modes.gateway/purpose[tenant=acme]", {"mode": "enforce"}),
    "own grant": ("grants.mine", {"tenant": "acme", "domain": "gateway", "model": "m", "roles": ["service"]}),
}
FOREIGN_CHANGES = {
    "another tenant": ("tenants.other.required_approvals", 4),
    "everybody's mode": ("modes.admission/approved-model", {"mode": "warn"}),
    "everybody's mode in a namespace": ("modes.admission/approved-model[namespace=other-prod]", {"mode": "enforce"}),
    "another tenant's grant": ("grants.mine", {"tenant": "other", "domain": "gateway", "model": "m", "roles": ["service"]}),
    "the table": ("accelerators.nvidia.com/gpu", "1/7"),
    "the controllers": ("controller_namespaces", []),
    "every mode at once": ("modes", [{"rule": "admission/approved-model", "mode": "warn"}]),
}


@pytest.mark.parametrize("name", OWN_CHANGES)
async def test_another_tenants_admin_may_change_what_is_theirs(bench: Bench, name: str) -> None:
    assert await bench.store(home="home").set(*OWN_CHANGES[name], author=ACME_ADMIN, reason="ours") == 1


@pytest.mark.parametrize("name", FOREIGN_CHANGES)
async def test_and_nothing_else(bench: Bench, name: str) -> None:
    with pytest.raises(Forbidden):
        await bench.store(home="home").set(*FOREIGN_CHANGES[name], author=ACME_ADMIN, reason="theirs")
    assert bench.recorder.entries == []
    assert await bench.store(home="home").set(*FOREIGN_CHANGES[name], author=OPERATOR, reason="ours") == 1


async def test_taking_over_another_tenants_grant_is_foreign_too(bench: Bench) -> None:
    store = bench.store(home="home")
    await store.set(
        "grants.theirs",
        {"tenant": "other", "domain": "gateway", "model": "m", "roles": ["service"]},
        author=OPERATOR,
        reason="x",
    )
    with pytest.raises(Forbidden):
        await store.set("grants.theirs.tenant", "acme", author=ACME_ADMIN, reason="mine now")


EXEMPTION = {
    "id": "EX-9",
    "rule": "admission/encrypted-weights",
    "owner": "person:ann",
    "reason": "vendor model",
    "ticket": "T-9",
    "expires": "2027-04-01T00:00:00Z",
    "tenant": "acme",
    "subjects": ["Deployment/chat"],
    "namespaces": ["vision-dev"],
}


async def test_exemptions_are_added_listed_and_revoked(bench: Bench) -> None:
    store = bench.store()
    await store.add_exemption(**EXEMPTION, author=OPERATOR)
    states = {found.exemption.id: found.state for found in await store.list_exemptions("acme")}
    assert states == {"EX-1": "active", "EX-2": "ownerless", "EX-9": "active"}
    assert [e.id for e in (await namespace(store, "vision-dev")).exemptions] == ["EX-2", "EX-9"]
    bench.clock.now = 1_801_353_600
    assert {f.exemption.id: f.state for f in await store.list_exemptions()}["EX-1"] == "expired"
    await store.revoke_exemption("EX-9", author=OPERATOR, reason="done")
    assert [e.id for e in (await namespace(store, "vision-dev")).exemptions] == ["EX-2"]
    assert [(e.kind, e.details["action"]) for e in bench.recorder.entries] == [("exemption", "add"), ("exemption", "revoke")]


async def test_an_exemption_of_a_file_ends_when_it_is_revoked(bench: Bench) -> None:
    store = bench.store()
    await store.revoke_exemption("EX-1", author=OPERATOR, reason="migrated")
    found = {f.exemption.id: f for f in await store.list_exemptions()}["EX-1"]
    assert (found.state, found.exemption.expires) == ("expired", show_time(bench.clock.now))
    assert (await namespace(store, "vision-prod")).exemptions[0].expires_unix == bench.clock.now


BAD_EXEMPTIONS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "taken": ({"id": "EX-1"}, Conflict),
    "no owner": ({"owner": " "}, BadInput),
    "no reason": ({"reason": ""}, BadInput),
    "no ticket": ({"ticket": ""}, BadInput),
    "expired": ({"expires": "2020-01-01T00:00:00Z"}, BadInput),
    "not a time": ({"expires": "tomorrow"}, BadInput),
    "no subject": ({"subjects": []}, BadInput),
    "unknown tenant": ({"tenant": "nobody", "namespaces": []}, BadInput),
    "another's namespace": ({"namespaces": ["other-prod"]}, BadInput),
    "namespaces at the gateway": ({"rule": "gateway/purpose"}, BadInput),
}


@pytest.mark.parametrize("name", BAD_EXEMPTIONS)
async def test_a_bad_exemption_is_refused(bench: Bench, name: str) -> None:
    change, error = BAD_EXEMPTIONS[name]
    with pytest.raises(error):
        await bench.store().add_exemption(**(EXEMPTION | change), author=OPERATOR)
    assert bench.recorder.entries == []


async def test_revoking_an_unknown_exemption_says_so(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.store().revoke_exemption("EX-404", author=OPERATOR, reason="x")


async def test_show_gives_the_effective_value(bench: Bench) -> None:
    store = bench.store()
    await store.set("exemptions.EX-1.ticket", "T-2", author=OPERATOR, reason="moved")
    assert await store.show("exemptions.EX-1.ticket") == "T-2"
    assert await store.show("exemptions.EX-1.owner") == "person:ann"
    assert [item["id"] for item in await store.show("grants")] == ["all-llama", "keys", "vision-llama"]
    assert (await store.show())["tenants"]["acme"]["required_approvals"] == 3
    with pytest.raises(NotFound):
        await store.show("tenants.nobody")
    await store.unset("exemptions.EX-1.ticket", author=OPERATOR, reason="back")
    assert await store.show("exemptions.EX-1.ticket") == "T-1"
    with pytest.raises(NotFound):
        await store.unset("exemptions.EX-1.ticket", author=OPERATOR, reason="again")


async def test_diff_between_versions(bench: Bench) -> None:
    store = bench.store()
    await store.set("requests_per_minute", 1, author=OPERATOR, reason="a")
    await store.set("requests_per_minute", 2, author=OPERATOR, reason="b")
    assert [(c.path, c.before, c.after) for c in await store.diff(1, 2)] == [("requests_per_minute", 1, 2)]
    assert await store.diff(2) == []
    with pytest.raises(NotFound):
        await store.diff(1, 3)


async def test_a_mode_or_exemption_for_a_rule_that_is_not_there_is_refused(database: Database, tmp_path: Path) -> None:
    """It would do nothing, and whoever wrote it believes that it does."""
    from policies.tree import rule_ids

    own = tmp_path / "own" / "rules" / "admission" / "my-rule"
    own.mkdir(parents=True)
    (own / "my-rule.rego").write_text("package x\n")
    file = tmp_path / "a.yaml"
    file.write_text("tenants: {acme: {}}\n")
    parts: Any = {"commitments": MemoryCommitments(), "recorder": MemoryRecorder(), "clock": FixedClock()}
    store = ConfigStore(database, files=[file], rules=rule_ids([tmp_path / "own"]), max_age_seconds=0, **parts)
    operator = Principal("o", "operator", "acme", roles=frozenset({"operator"}))
    with pytest.raises(BadInput, match="no rule admission/gpu-quotas; did you mean admission/gpu-quota"):
        await store.set("modes.admission/gpu-quotas", {"mode": "warn"}, author=operator, reason="typo")
    await store.set("modes.admission/my-rule", {"mode": "enforce"}, author=operator, reason="ours")
    wanted: Any = {"owner": "o", "reason": "r", "ticket": "t", "expires": "2027-02-01T00:00:00Z", "tenant": "acme"}
    with pytest.raises(BadInput, match="no rule gateway/nothing"):
        await store.add_exemption(id="E", rule="gateway/nothing", subjects=["*"], author=operator, **wanted)
    file.write_text("tenants: {acme: {}}\nmodes: [{rule: weights/key-releases, mode: off}]\n".replace("off", '"off"'))
    with pytest.raises(ConfigError, match=r"a\.yaml: modes\.weights/key-releases"):
        await store.refresh()


async def test_rules_that_went_away_can_be_cleared_one_by_one(database: Database) -> None:
    """A folder of own rules is taken out of the settings while modes and exemptions still name its rules."""
    parts: Any = {"commitments": MemoryCommitments(), "recorder": MemoryRecorder(), "clock": FixedClock(), "files": []}
    with_own = ConfigStore(database, rules={"admission/mine", "gateway/mine"}, max_age_seconds=0, **parts)
    operator = Principal("o", "operator", "acme", roles=frozenset({"operator"}))
    await with_own.set("tenants.acme", {}, author=operator, reason="x")
    for rule in ("admission/mine", "gateway/mine"):
        await with_own.set(f"modes.{rule}", {"mode": "enforce"}, author=operator, reason="x")
    wanted: Any = {"owner": "o", "reason": "r", "ticket": "t", "expires": "2027-02-01T00:00:00Z", "tenant": "acme"}
    await with_own.add_exemption(id="E", rule="gateway/mine", subjects=["llama-3@7"], author=operator, **wanted)
    without = ConfigStore(database, rules={"admission/gpu-quota"}, max_age_seconds=0, **parts)
    with pytest.raises(ConfigError, match="there is no rule"):
        await without.refresh()
    assert [found.exemption.id for found in await without.list_exemptions()] == ["E"]
    await without.revoke_exemption("E", author=operator, reason="x")
    await without.unset("modes.admission/mine", author=operator, reason="x")
    with pytest.raises(ConfigError, match="no rule gateway/mine"):
        await without.refresh()
    with pytest.raises(ConfigError, match="no rule admission/mine"):
        await without.set("modes.admission/mine", {"mode": "off"}, author=operator, reason="x")
    await without.unset("modes.gateway/mine", author=operator, reason="x")
    await without.refresh()
