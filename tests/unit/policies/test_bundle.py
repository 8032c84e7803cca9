from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.canonical import canonical
from core.errors import Broken, ConfigError
from policies.bundle import MANIFEST, Bundle, write_opa_bundle
from policies.check import load_tree
from policies.engine import load_bundle, load_embedded
from tests.unit.policies import trees

RULE = "rules/admission/gpu-quota/gpu-quota.rego"


def _bundle(folder: Path, changes: dict[str, str] | None = None) -> Bundle:
    return load_tree(trees.write(folder, {**trees.files(), **(changes or {})})).bundle


def test_bundle_holds_rules_library_and_aggregators_and_no_tests(tmp_path: Path) -> None:
    bundle = _bundle(
        tmp_path, {"rules/admission/gpu-quota/gpu-quota_test.rego": 'package portcullis.rules.admission["gpu-quota"]\n'}
    )
    assert set(bundle.modules) == {
        *trees.files(),
        *(f"generated/{d}.rego" for d in ("admission", "bundle", "gateway", "lineage", "weights")),
    }


def test_revision_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    assert _bundle(tmp_path / "a").revision == _bundle(tmp_path / "elsewhere" / "b").revision


def test_revision_ignores_tests(tmp_path: Path) -> None:
    tested = {
        "rules/admission/gpu-quota/gpu-quota_test.rego": 'package portcullis.rules.admission["gpu-quota"]\n\ntest_a := true\n'
    }
    assert _bundle(tmp_path / "a").revision == _bundle(tmp_path / "b", tested).revision


@pytest.mark.parametrize("path", [RULE, "lib/modes/modes.rego"])
def test_one_byte_changes_the_revision(tmp_path: Path, path: str) -> None:
    changed = {path: trees.files()[path] + "\n"}
    assert _bundle(tmp_path / "a").revision != _bundle(tmp_path / "b", changed).revision


def test_another_rule_changes_the_revision(tmp_path: Path) -> None:
    added = {"rules/admission/mine/mine.rego": trees.module("admission/mine", trees.SILENT_BODY)}
    assert _bundle(tmp_path / "a").revision != _bundle(tmp_path / "b", added).revision


def test_two_modules_that_swap_texts_are_another_revision() -> None:
    assert Bundle({"a.rego": "x", "b.rego": "y"}).revision != Bundle({"a.rego": "y", "b.rego": "x"}).revision


def test_files_come_back_whole(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    again = Bundle.from_files(bundle.files())
    assert (again.modules, again.revision) == (dict(bundle.modules), bundle.revision)


def test_folder_comes_back_whole_and_names_our_root(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "tree")
    write_opa_bundle(bundle, tmp_path / "out")
    assert Bundle.read(tmp_path / "out").revision == bundle.revision
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest == {"revision": bundle.revision, "roots": ["portcullis"], "rego_version": 1}


def test_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stray.rego").write_text("package portcullis.stray\n")
    with pytest.raises(Broken, match="not empty"):
        _bundle(tmp_path / "tree").write(tmp_path / "out")


def _changed(bundle: Bundle, path: str, data: bytes | None) -> dict[str, bytes]:
    files = bundle.files()
    if data is None:
        del files[path]
    else:
        files[path] = data
    return files


TAMPERED: dict[str, tuple[str, bytes | None]] = {
    "a module changed": (RULE, b"package x\n"),
    "a module removed": (RULE, None),
    "a module added": ("rules/admission/mine/mine.rego", b"package x\n"),
    "the aggregator changed": ("generated/admission.rego", b"package portcullis.admission\n\ndecision := {}\n"),
    "no manifest": (MANIFEST, None),
    "another revision": (MANIFEST, b'{"revision": "sha256:00"}'),
    "no revision": (MANIFEST, b"{}"),
    "data": ("data.json", b"{}"),
    "a module that is no text": (RULE, b"\xff"),
    "a path that leaves": ("../x.rego", b"package x\n"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_bundle_is_refused(tmp_path: Path, name: str) -> None:
    path, data = TAMPERED[name]
    with pytest.raises(Broken):
        load_bundle(_changed(_bundle(tmp_path), path, data))


@pytest.mark.parametrize("path", ["../x.rego", "/tmp/x.rego", "lib/../../x.rego", "x.txt"])
def test_path_that_leaves_the_bundle_is_refused_even_under_its_right_revision(path: str) -> None:
    with pytest.raises(Broken, match="nothing else"):
        Bundle.from_files(Bundle({path: "package portcullis.x\n"}).files())


def test_loaded_bundle_decides_as_its_tree(tmp_path: Path) -> None:
    first = load_embedded(trees.write(tmp_path, trees.files()))
    second = load_bundle(first.bundle.files())
    for shares in (1, 40320):
        a, b = (engine.decide("admission", trees.admission_input(shares)) for engine in (first, second))
        assert canonical(a.result) == canonical(b.result)
        assert [v.message for v in a.violations] == [v.message for v in b.violations]
    assert first.revision == second.revision
    first.close()
    second.close()


def test_bundle_with_a_forbidden_built_in_is_refused_whoever_signed_its_revision(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    modules = {**bundle.modules, RULE: bundle.modules[RULE] + "\nx := time.now_ns()\n"}
    with pytest.raises(ConfigError, match=r"time\.now_ns"):
        load_bundle(Bundle(modules).files())


def test_bundle_whose_aggregator_reaches_out_is_refused(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    path = "generated/admission.rego"
    modules = {**bundle.modules, path: bundle.modules[path] + "\nx := http.send({})\n"}
    with pytest.raises(ConfigError, match=r"http\.send"):
        load_bundle(Bundle(modules).files())
