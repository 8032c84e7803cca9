"""Rules and engines against a real OPA: the same tree, the same answers, and the same refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.decision import DOMAINS, MANDATORY
from core.errors import ConfigError
from policies import aggregator
from policies.aggregator import Member
from policies.authoring import new_rule
from policies.bundle import Bundle
from policies.check import Loaded, check_tree, load_tree
from policies.engine import Engine, load_embedded
from policies.memory import Memory
from policies.opa import OpaServer
from policies.schema import FOLDER as SCHEMAS
from policies.tree import SHIPPED
from tests.unit.policies import trees

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]


def _program() -> str | None:
    built = ROOT / ".tools" / "bin" / "opa"
    return os.environ.get("PORTCULLIS_OPA") or shutil.which("opa") or (str(built) if built.exists() else None)


@pytest.fixture(scope="module")
def opa() -> str:
    program = _program()
    if program is None:
        pytest.skip("there is no OPA program: scripts/opa builds one, or set PORTCULLIS_OPA")
    return program


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Server:
    """`opa run --server` on a free loopback port."""

    def __init__(self, opa: str, *arguments: str | Path, port: int = 0) -> None:
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [opa, "run", "--server", "--addr", f"127.0.0.1:{self.port}", "--log-level", "error", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health?bundles", timeout=1):
                    return
            except OSError:
                assert self.process.poll() is None, "OPA ended; is the bundle readable?"
                assert time.monotonic() < deadline, "OPA did not start"
                time.sleep(0.05)

    def put(self, name: str, text: str) -> None:
        request = urllib.request.Request(f"{self.url}/v1/policies/{name}", data=text.encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=5):
            pass

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def serve(opa: str, tmp_path: Path) -> Iterator[Any]:
    """Starts a server over a bundle, or over whatever arguments are given."""
    started: list[Server] = []

    def start(bundle: Bundle | None = None, *arguments: str | Path, port: int = 0) -> Server:
        if bundle is not None:
            folder = tmp_path / f"bundle{len(started)}"
            bundle.write(folder)
            arguments = ("--bundle", folder)
        started.append(Server(opa, *arguments, port=port))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def engine_at() -> Iterator[Any]:
    made: list[Engine] = []

    def make(loaded: Loaded, server: Server, **options: Any) -> Engine:
        made.append(Engine(loaded, OpaServer(server.url, loaded.bundle, **{"deadline_ms": 5_000, **options}), memory=Memory(0)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


# --- the shipped tree under OPA's own tools -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The aggregators of the shipped tree, as files."""
    folder = tmp_path_factory.mktemp("generated")
    bundle = load_tree().bundle
    for domain in DOMAINS:
        (folder / f"{domain}.rego").write_text(bundle.modules[aggregator.path_of(domain)])
    return folder


def test_strict_check_passes(opa: str, generated: Path) -> None:
    _run(opa, "check", "--strict", SHIPPED, generated)


def test_format_is_opas(opa: str, generated: Path) -> None:
    _run(opa, "fmt", "--fail", "--list", SHIPPED, generated)


def test_rego_tests_pass_under_opa_and_in_process_with_the_same_names(opa: str, generated: Path) -> None:
    from policies import testing

    found = json.loads(_run(opa, "test", "--format", "json", SHIPPED, generated))
    assert found
    assert {f"{test['package']}.{test['name']}" for test in found} == {result.name for result in testing.run()}
    assert all(result.passed for result in testing.run())


@pytest.mark.parametrize("domain", DOMAINS)
def test_rules_read_only_what_the_schema_has(opa: str, tmp_path: Path, domain: str) -> None:
    """OPA's type checker with our schema on every rule of the domain: a field that no input can have is an error."""
    tree = shutil.copytree(SHIPPED, tmp_path / "rego", ignore=shutil.ignore_patterns("*_test.rego"))
    rules = sorted((tree / "rules" / domain).glob("*/*.rego"))
    for rule in rules:
        text = rule.read_text()
        rule.write_text(text.replace("# METADATA\n", f"# METADATA\n# schemas:\n#   - input: schema.{domain}\n", 1))
    _run(opa, "check", "--strict", "--schema", SCHEMAS, tree)
    rules[0].write_text(rules[0].read_text() + "\nwrong if input.request.no_such_field\n")
    done = subprocess.run([opa, "check", "--schema", str(SCHEMAS), str(tree)], capture_output=True, text=True, check=False)
    assert "no_such_field" in done.stderr + done.stdout


def test_new_rules_satisfy_opa(opa: str, tmp_path: Path) -> None:
    for domain in DOMAINS:
        new_rule(tmp_path, f"{domain}/my-rule")
        new_rule(tmp_path, f"{domain}/plain")
    _run(opa, "check", "--strict", tmp_path)
    _run(opa, "fmt", "--fail", "--list", tmp_path)
    _run(opa, "test", tmp_path)


# --- the engines agree ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rules in MANDATORY.values() for rule in rules])
def test_deleted_mandatory_rule_denies_in_both_engines_and_is_named(
    serve: Any, engine_at: Any, tmp_path: Path, rule: str
) -> None:
    domain = rule.partition("/")[0]
    tree = shutil.copytree(SHIPPED, tmp_path / "rego")
    shutil.rmtree(tree / "rules" / rule)
    loaded = load_tree(tree)
    embedded = load_embedded(tree)
    for engine in (embedded, engine_at(loaded, serve(loaded.bundle))):
        decision = engine.decide(domain, trees.INPUTS[domain])
        assert not decision.allow
        assert ("policy/mandatory", rule) in [(v.rule, v.args.get("rule")) for v in decision.violations]
    embedded.close()


def test_error_inside_a_rule_is_the_same_denial(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    body = "default checked := false\n\nchecked := true\n\ndeny contains {} if input.request.namespace + 1 > 2\n"
    root = trees.write(tmp_path / "tree", trees.files(admission__gpu_quota=body))
    loaded = load_tree(root)
    embedded = load_embedded(root)
    for engine in (embedded, engine_at(loaded, serve(loaded.bundle))):
        decision = engine.decide("admission", trees.admission_input(1))
        assert (decision.allow, decision.code) == (False, "engine/error")
    embedded.close()


# --- three paths refuse -----------------------------------------------------------------------------------------------

CHECKED = "default checked := false\n\nchecked := true\n\n"
REACHING = {
    "http.send": 'deny contains {"path": "", "args": {}} if http.send({"method": "get", "url": "http://127.0.0.1:1"}).status_code == 1\n',
    "time.now_ns": 'deny contains {"path": "", "args": {"at": time.now_ns()}} if input.now_unix == 1\n',
    "to_number": 'deny contains {"path": "", "args": {}} if to_number(input.request.kind) > 3\n',
    "/": 'deny contains {"path": "", "args": {}} if 1 / input.request.gpu_shares > 3\n',
    "walk": 'deny contains {"path": "", "args": {}} if walk(input, [_, "never"])\n',
}


@pytest.mark.parametrize("name", REACHING)
def test_forbidden_built_in_is_refused_by_check_by_load_and_by_the_server_engine(
    serve: Any, engine_at: Any, tmp_path: Path, name: str
) -> None:
    root = trees.write(tmp_path / "root", trees.files())
    body = CHECKED + REACHING[name]
    extra = trees.extra(tmp_path / "extra", "admission/reaching", body)
    assert [(finding.code, finding.message.split(" ")[0]) for finding in check_tree(root, [extra])] == [("builtin", name)]
    with pytest.raises(ConfigError):
        load_embedded(root, [extra])

    good = load_tree(root)
    modules = {path: text for path, text in good.bundle.modules.items() if not path.startswith("generated/")}
    modules["rules/admission/reaching/reaching.rego"] = trees.module("admission/reaching", body)
    members = [Member(rule, deny="deny contains" in text, grant="grant contains" in text) for rule, text in _rules(modules)]
    bad = Bundle({**modules, **aggregator.generate(members)})
    engine = engine_at(Loaded(bad, good.catalogue), serve(bad))
    decision = engine.decide("admission", trees.admission_input(1))
    assert (decision.allow, decision.code) == (False, "engine/builtins"), decision.reason
    assert name in decision.reason


def _rules(modules: dict[str, str]) -> list[tuple[str, str]]:
    return [("/".join(path.split("/")[1:3]), text) for path, text in modules.items() if path.startswith("rules/")]


def test_forbidden_built_in_beside_our_bundle_is_refused_too(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    loaded = load_tree(trees.write(tmp_path / "tree", trees.files()))
    server = serve(loaded.bundle)
    server.put("beside", 'package beside\n\nx := rand.intn("a", 9)\n')
    decision = engine_at(loaded, server).decide("admission", trees.admission_input(1))
    assert decision.code == "engine/builtins"
    assert "rand.intn" in decision.reason


def test_harmless_policy_beside_our_bundle_is_let_be(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    loaded = load_tree(trees.write(tmp_path / "tree", trees.files()))
    server = serve(loaded.bundle)
    server.put("beside", "package beside\n\nx := count([1])\n")
    assert engine_at(loaded, server).decide("admission", trees.admission_input(1)).allow


# --- a server that is not ours, not there, or stuck -------------------------------------------------------------------


def test_other_bundle_is_refused(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    ours = load_tree(trees.write(tmp_path / "ours", trees.files()))
    other = load_tree(trees.write(tmp_path / "other", trees.files(admission__gpu_quota=trees.SILENT_BODY)))
    decision = engine_at(ours, serve(other.bundle)).decide("admission", trees.admission_input(40320))
    assert (decision.allow, decision.code) == (False, "engine/revision")


def test_other_content_under_our_revision_is_refused(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    ours = load_tree(trees.write(tmp_path / "ours", trees.files()))
    folder = tmp_path / "forged"
    ours.bundle.write(folder)
    file = folder / "rules/admission/gpu-quota/gpu-quota.rego"
    file.write_text(file.read_text().replace("> 20160", "> 99999999"))
    decision = engine_at(ours, serve(None, "--bundle", folder)).decide("admission", trees.admission_input(40320))
    assert (decision.allow, decision.code) == (False, "engine/revision")


def test_our_files_without_a_bundle_are_refused(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    ours = load_tree(trees.write(tmp_path / "ours", trees.files()))
    folder = tmp_path / "plain"
    ours.bundle.write(folder)
    decision = engine_at(ours, serve(None, folder)).decide("admission", trees.admission_input(1))
    assert (decision.allow, decision.code) == (False, "engine/revision")


def test_empty_server_is_refused(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    ours = load_tree(trees.write(tmp_path / "ours", trees.files()))
    assert engine_at(ours, serve()).decide("admission", trees.admission_input(1)).code == "engine/revision"


def test_stopped_server_denies_until_it_is_back(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    loaded = load_tree(trees.write(tmp_path / "tree", trees.files()))
    server = serve(loaded.bundle)
    engine = engine_at(loaded, server)
    assert engine.decide("admission", trees.admission_input(1)).allow
    server.stop()
    decision = engine.decide("admission", trees.admission_input(1))
    assert (decision.allow, decision.code) == (False, "engine/unavailable")
    serve(loaded.bundle, port=server.port)
    assert engine.decide("admission", trees.admission_input(1)).allow


def test_server_that_comes_back_as_another_is_noticed(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    loaded = load_tree(trees.write(tmp_path / "tree", trees.files()))
    server = serve(loaded.bundle)
    engine = engine_at(loaded, server)
    assert engine.decide("admission", trees.admission_input(1)).allow
    server.stop()
    folder = tmp_path / "forged"
    loaded.bundle.write(folder)
    (folder / "rules/admission/gpu-quota/gpu-quota.rego").write_text(trees.module("admission/gpu-quota", trees.SILENT_BODY))
    serve(None, "--bundle", folder, port=server.port)
    decisions = [engine.decide("admission", trees.admission_input(40320)) for _ in range(2)]
    assert not any(decision.allow for decision in decisions)
    assert decisions[1].code == "engine/revision"


def test_stuck_server_costs_one_deadline(serve: Any, engine_at: Any, tmp_path: Path) -> None:
    loaded = load_tree(trees.write(tmp_path / "tree", trees.files()))
    server = serve(loaded.bundle)
    engine = engine_at(loaded, server, deadline_ms=300)
    assert engine.decide("admission", trees.admission_input(1)).allow
    server.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    decision = engine.decide("admission", trees.admission_input(1))
    taken = time.monotonic() - started
    assert (decision.allow, decision.code) == (False, "engine/timeout")
    assert taken < 2
    server.process.send_signal(signal.SIGCONT)
