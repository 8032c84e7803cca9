"""Decisions recomputed: equal, different, or honestly not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.canonical import canonical, sha256
from core.decision import Decision, Violation
from core.errors import ConfigError, InvalidProof, NotFound
from evidence.package import export
from evidence.replay import FolderSource, PackageSource, ReplayReport, replay
from evidence.verifier import pack, unpack
from tests.unit.evidence.rig import BUNDLE, ORIGIN, REVISION, Rig, decide

DENIED = (Violation("gateway/purpose", "enforce", "purpose", {"n": 1}, message="a message of today"),)


class BundleEngine:
    """Denies what has an odd `n`, as the rig's story says; `result` overrides that."""

    name = "other-engine"

    def __init__(self, files: Mapping[str, bytes], **override: Any) -> None:
        assert files == BUNDLE
        self.revision = REVISION
        self._override = override

    def decide(self, domain: str, input: Mapping[str, Any]) -> Decision:
        assert domain == "gateway"
        violations = DENIED if input["n"] % 2 else ()
        return decide(dict(input), **{"violations": violations, **self._override})

    async def decide_async(self, domain: str, input: Mapping[str, Any]) -> Decision:
        return self.decide(domain, input)


async def recorded(rig: Rig, *decisions: tuple[Decision, dict[str, Any]]) -> None:
    rig.recorder.keep_bundle(REVISION, BUNDLE)
    for decision, document in decisions:
        await rig.recorder.decision("inference.intent", decision, document, actor="a", tenant="acme", subject="m@1")
    rig.integrate()


def run(rig: Rig, load=BundleEngine) -> ReplayReport:
    return replay(FolderSource(rig.folder), load)


async def test_equal_from_the_folder_and_from_a_package(rig: Rig, tmp_path: Path):
    many = tuple(Violation("gateway/purpose", "enforce", f"{n}", {"x": "y" * 300}) for n in range(300))
    await recorded(rig, (decide({"n": 0}), {"n": 0}), (decide({"n": 1}, violations=DENIED), {"n": 1}))
    await rig.events(2)
    rig.integrate()
    assert [item.verdict for item in run(rig).items] == ["equal", "equal"]
    await export(tmp_path / "p.zip", rig.folder, origin=ORIGIN)
    report = replay(PackageSource(tmp_path / "p.zip"), BundleEngine)
    assert report.agrees
    assert report.as_json()["equal"] == 2
    await recorded(rig, (decide({"n": 3}, violations=many), {"n": 3}))
    assert run(rig, lambda files: BundleEngine(files, violations=many)).items[-1].verdict == "equal"  # one too large for a leaf


async def test_one_decision_by_its_id(rig: Rig):
    decision = decide({"n": 0})
    await recorded(rig, (decision, {"n": 0}), (decide({"n": 2}), {"n": 2}))
    report = replay(FolderSource(rig.folder, decision.decision_id), BundleEngine)
    assert [item.decision_id for item in report.items] == [decision.decision_id]
    with pytest.raises(NotFound):
        replay(FolderSource(rig.folder, "nothing"), BundleEngine)


DIFFERENT = {
    "allow": {"allow": False},
    "evaluated": {"evaluated": ()},
    "grants": {"grants": ()},
    "violations": {"violations": DENIED},
    "violation's mode": {"violations": (replace(DENIED[0], mode="warn"),)},
    "violation's path": {"violations": (replace(DENIED[0], path="x"),)},
    "violation's args": {"violations": (replace(DENIED[0], args={}),)},
    "warnings": {"warnings": DENIED},
    "obligations": {"obligations": {"redact_log": True}},
    "config revision": {"config_revision": "x"},
}


@pytest.mark.parametrize("override", DIFFERENT.values(), ids=DIFFERENT)
async def test_different(rig: Rig, override):
    await recorded(rig, (decide({"n": 0}), {"n": 0}))
    report = run(rig, lambda files: BundleEngine(files, **override))
    assert [item.verdict for item in report.items] == ["different"]
    assert not report.agrees


async def test_nothing_recomputed_is_not_agreement(rig: Rig):
    await rig.events(1)
    rig.integrate()
    assert not run(rig).agrees


OWN = {
    "no input": (decide({"n": 0}, input_digest="", policy_revision=REVISION), "no engine was asked"),
    "made by a door": (decide({"n": 0}, input_digest="", policy_revision="", engine="none"), "no engine was asked"),
    "the engine failed then": (decide({"n": 0}, allow=False, violations=(Violation("engine/timeout", "enforce", "", {}),)), "engine/timeout"),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN.values(), ids=OWN)
async def test_what_no_policy_made_is_counted_apart(rig: Rig, case):
    decision, why = case
    await recorded(rig, (decision, {"n": 0}))
    (item,) = run(rig).items
    assert (item.verdict, why in item.note) == ("cannot", True)


async def test_an_engine_that_fails_now(rig: Rig):
    await recorded(rig, (decide({"n": 0}), {"n": 0}))
    failed = (Violation("engine/error", "enforce", "", {}),)
    assert run(rig, lambda files: BundleEngine(files, violations=failed)).items[0].verdict == "cannot"


async def test_a_schema_denial_is_recomputed(rig: Rig):
    schema = (Violation("input/schema", "enforce", "n", {"problem": "wrong type"}),)
    await recorded(rig, (decide({"n": 0}, violations=schema), {"n": 0}))
    assert run(rig, lambda files: BundleEngine(files, violations=schema)).items[0].verdict == "equal"


async def test_a_bundle_that_does_not_load_or_is_another(rig: Rig):
    await recorded(rig, (decide({"n": 0}), {"n": 0}), (decide({"n": 2}), {"n": 2}))
    loads = []

    def refuse(files):
        loads.append(1)
        raise ConfigError("rule not permitted")

    report = run(rig, refuse)
    assert [item.verdict for item in report.items] == ["cannot", "cannot"]
    assert len(loads) == 1

    class Other(BundleEngine):
        def __init__(self, files):
            super().__init__(files)
            self.revision = "sha256:" + "0" * 64

    assert "the bundle is revision" in run(rig, Other).items[0].note


async def test_an_input_put_in_the_place_of_another(rig: Rig, tmp_path: Path):
    await recorded(rig, (decide({"n": 0}), {"n": 0}))
    await export(tmp_path / "p.zip", rig.folder, origin=ORIGIN)
    files = unpack((tmp_path / "p.zip").read_bytes())
    files["inputs/" + sha256(canonical({"n": 0}))[7:]] = canonical({"n": 2})
    (tmp_path / "q.zip").write_bytes(pack(files))
    (item,) = replay(PackageSource(tmp_path / "q.zip"), BundleEngine).items
    assert item.verdict == "cannot"


def test_no_package(tmp_path: Path):
    with pytest.raises(NotFound):
        PackageSource(tmp_path / "none.zip")
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(InvalidProof):
        PackageSource(tmp_path / "bad.zip")


async def test_with_the_real_engine(rig: Rig):
    """The shipped policies, through the embedded engine: record, then recompute from the bundle that was kept."""
    from policies.engine import load_bundle, load_embedded

    engine = load_embedded()
    rig.recorder.keep_bundle(engine.revision, engine.bundle.files())
    for document in ({"now_unix": 1}, {"not": "an input"}):
        decision = engine.decide("gateway", document)
        await rig.recorder.decision("inference.intent", decision, document, actor="a", tenant="acme", subject="m@1")
    engine.close()
    rig.integrate()
    report = run(rig, load_bundle)
    assert json.dumps(report.as_json()["equal"]) == "2"
