"""The Wasm engine with modules that a real OPA compiled: the same decisions, and a sandbox that holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.decisions import generated
from core.canonical import canonical
from core.errors import ConfigError
from core.settings import Policy, Settings
from policies import corpus, distribution
from policies.check import Loaded, load_tree
from policies.distribution import MANIFEST, build, compile_wasm
from policies.embedded import Embedded
from policies.engine import Engine, load, load_embedded
from policies.evaluate import EngineFailure
from policies.memory import Memory
from policies.wasm import Wasm
from tests.corpus import cases, differences
from tests.e2e.test_opa import Server, opa
from tests.unit.policies import trees
from tests.unit.policies.test_aggregator import ASKED, without_checked

__all__ = ["opa"]
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_tree()


@pytest.fixture(scope="module")
def module(opa: str, loaded: Loaded) -> bytes:
    return compile_wasm(loaded.bundle, opa)


def test_it_decides_as_the_corpus_says_and_as_the_embedded_engine_does(loaded: Loaded, module: bytes) -> None:
    engine, embedded = Engine(loaded, Wasm(module)), load_embedded()
    wrong = {}
    for case in cases():
        theirs, ours = engine.decide(case.domain, case.input), embedded.decide(case.domain, case.input)
        found = differences(case, theirs)
        if canonical(dict(theirs.result)) != canonical(dict(ours.result)):
            found.append("the engines' documents differ")
        if found:
            wrong[str(case)] = found
    assert wrong == {}


def test_a_builder_is_told_where_the_two_engines_differ(opa: str, loaded: Loaded, module: bytes, tmp_path: Path) -> None:
    """The corpus passes both engines; a module of other rules gives itself away although it denies alike."""
    case = next(case for case in cases("gateway") if case.name == "a revoked model")
    line = {"domain": case.domain, "input": case.input, "expect": {"deny": [{"rule": case.expect["deny"][0]["rule"]}]}}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    inputs = corpus.read([tmp_path])
    assert [problems for _, problems in corpus.failures(loaded, module, inputs)] == [[]]
    modules = {path: text.replace('"reason": ', '"raison": ') for path, text in loaded.bundle.modules.items()}
    other = compile_wasm(distribution.Bundle(modules), opa)
    ((_, problems),) = corpus.failures(loaded, other, inputs)
    assert problems == ["the engines' documents differ: embedded and wasm"]


def test_a_rule_that_is_undefined_takes_no_other_with_it(opa: str, tmp_path: Path) -> None:
    """Wasm drops a whole literal with something undefined in it; the list of evaluated rules must not be one."""
    other, rule = without_checked(generated(tmp_path / "own", 8, 12).bundle)
    wasm, embedded = Wasm(compile_wasm(other, opa)), Embedded(other.modules)
    found = wasm.evaluate("admission", ASKED)
    assert found == embedded.evaluate("admission", ASKED)
    assert len(found["evaluated"]) == 11
    assert rule not in found["evaluated"]


def test_the_module_is_the_same_bytes_each_time(opa: str, loaded: Loaded, module: bytes) -> None:
    assert compile_wasm(loaded.bundle, opa) == module


def test_nothing_of_one_input_reaches_the_next_and_threads_do_not_meet(loaded: Loaded, module: bytes) -> None:
    """Long and short inputs in turn, in eight threads: each gets its own answer."""
    engine, chosen = (
        Engine(loaded, Wasm(module), memory=Memory(0)),
        [case for case in cases() if "schema" not in case.expect][:60],
    )
    expected = [canonical(dict(engine.decide(case.domain, case.input).result)) for case in chosen]
    wrong: list[str] = []

    def work(shift: int) -> None:
        for turn in range(len(chosen) * 3):
            at = (turn * 7 + shift) % len(chosen)
            case = chosen[at]
            if canonical(dict(engine.decide(case.domain, case.input).result)) != expected[at]:
                wrong.append(str(case))

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture(scope="module")
def hostile(opa: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, bytes]:
    """A tree with a rule that hardly ends and one that eats memory."""
    found = trees.hostile(tmp_path_factory.mktemp("hostile"))
    return found, compile_wasm(found.bundle, opa)


@pytest.mark.parametrize(("shares", "words", "rule"), [(7, 60, "engine/timeout"), (8, 60, "engine/error")])
def test_a_rule_that_loops_or_eats_is_stopped_and_the_next_decision_is_made(
    hostile: tuple[Loaded, bytes], shares: int, words: int, rule: str
) -> None:
    found, module = hostile
    engine = Engine(found, Wasm(module, deadline_ms=300 if rule == "engine/timeout" else 20_000, max_memory=32 * 1024 * 1024))
    denied = engine.decide("admission", trees.asked(shares, words))
    assert (denied.allow, denied.code) == (False, rule)
    assert denied.duration_us < 20_000_000
    assert engine.decide("admission", trees.asked(1, 2)).allow, "the instance that was stopped is not used again"


def test_an_input_beyond_the_memory_is_refused_and_the_next_one_judged(hostile: tuple[Loaded, bytes]) -> None:
    wasm = Wasm(hostile[1], max_memory=8 * 1024 * 1024)
    with pytest.raises(EngineFailure, match="more memory"):
        wasm.evaluate("admission", canonical(trees.asked(1, 5_000_000)))
    assert wasm.evaluate("admission", canonical(trees.asked(1, 2)))["allow"] is True


def test_a_module_that_wants_built_ins_of_a_host_is_refused(opa: str, tmp_path: Path) -> None:
    """`sprintf` is one of those that OPA's Wasm leaves to its host; this host has none."""
    root = trees.write(tmp_path / "a", trees.files())
    modules = dict(load_tree(root).bundle.modules)
    name = next(path for path in modules if path.startswith("rules/admission/gpu-quota"))
    modules[name] = modules[name].replace('{"asked": input', '{"s": sprintf("%d", [input.request.gpu_shares]), "asked": input')
    with pytest.raises(ConfigError, match="without built-ins"):
        Wasm(compile_wasm(distribution.Bundle(modules), opa))


def test_a_closed_engine_and_a_domain_without_entrypoint_say_so(module: bytes) -> None:
    wasm = Wasm(module)
    with pytest.raises(EngineFailure, match="no entrypoint"):
        wasm.evaluate("nothing", b"{}")  # type: ignore[arg-type]
    wasm.close()
    with pytest.raises(EngineFailure, match="closed"):
        wasm.evaluate("gateway", b"{}")


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RULE = "rules/gateway/purpose/purpose.rego"


def pem(folder: Path) -> Path:
    path = folder / "key.pub"
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def served(opa: str, folder: Path, data: bytes) -> bool:
    """Whether an OPA server with our verification key takes the bundle and decides with it."""
    (folder / "bundle.tar.gz").write_bytes(data)
    try:
        server = Server(opa, "--bundle", folder / "bundle.tar.gz", "--verification-key", pem(folder), "--signing-alg", "EdDSA")
    except AssertionError:
        return False
    server.stop()
    return True


def test_an_opa_server_takes_our_signed_bundle_and_so_do_we(opa: str, loaded: Loaded, module: bytes, tmp_path: Path) -> None:
    data = build(loaded, wasm=module, tests=34, key=KEY)
    assert served(opa, tmp_path, data)
    settings = Settings(policy=Policy(bundle=str(tmp_path / "bundle.tar.gz"), verify_key=str(pem(tmp_path))))
    assert (load(settings).name, load(settings).revision) == ("wasm", loaded.bundle.revision)


EDITS: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "a byte of Rego": lambda files: files.update({RULE: files[RULE].replace(b"purpose", b"purpoze", 1)}),
    "a byte of Wasm": lambda files: files.update({"policy.wasm": files["policy.wasm"][:-1] + b"\x01"}),
    "a JSON value": lambda files: files.update({MANIFEST: files[MANIFEST].replace(b'"tests": 34', b'"tests": 35')}),
    "an added file": lambda files: files.update({"rules/gateway/more/more.rego": b"package portcullis.more\n"}),
    "a missing file": lambda files: files.pop(RULE),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_an_opa_server_refuses_we_refuse(opa: str, loaded: Loaded, module: bytes, tmp_path: Path, name: str) -> None:
    files = distribution._unpacked(build(loaded, wasm=module, tests=34, key=KEY), "test")
    EDITS[name](files)
    data = distribution._packed(files)
    assert not served(opa, tmp_path, data)
    with pytest.raises(distribution.BadSignature):
        distribution.read(data, key=KEY.public_key())


def test_we_take_what_opa_signed(opa: str, loaded: Loaded, module: bytes, tmp_path: Path) -> None:
    import subprocess

    files = distribution._unpacked(build(loaded, wasm=module, tests=34), "test")
    (tmp_path / "key.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    folder = tmp_path / "b"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    command = [opa, "sign", "--signing-key", tmp_path / "key.pem", "--signing-alg", "EdDSA", "--bundle", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    files[".signatures.json"] = (folder / ".signatures.json").read_bytes()
    assert distribution.read(distribution._packed(files), key=KEY.public_key()).signed
