"""The command line as a person uses it: a real process for the entry point, in this process for the rest."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cli.main import hoisted, run
from policies.config import show_time
from tests.conftest import ROOT


@pytest.fixture
def portcullis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in an empty folder; gives exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(list(arguments))
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_global_options_may_stand_anywhere() -> None:
    assert hoisted(["key", "list", "--json", "--state", "x"]) == ["--json", "--state", "x", "key", "list"]
    assert hoisted(["a", "--config=f", "--", "--json"]) == ["--config=f", "a", "--", "--json"]


def test_init_then_a_versioned_change(portcullis: Any) -> None:
    assert portcullis("init")[0] == 0
    assert portcullis("init")[0] == 2, "nothing is overwritten"
    assert portcullis("config", "set", "tenants.acme.teams.vision.gpu_quota", "2", "-m", "less")[0] == 0
    status, out, _ = portcullis("config", "show", "tenants.acme.teams.vision.gpu_quota", "--json")
    assert (status, json.loads(out)) == (0, 2)
    assert json.loads(portcullis("config", "history", "--json")[1])[0]["reason"] == "less"
    assert json.loads(portcullis("quota", "show", "--json")[1]) == [
        {"team": "vision", "used_shares": 0, "limit_shares": 2 * 20_160}
    ]
    assert json.loads(portcullis("evidence", "sequence", "--once", "--json")[1]) == {"integrated": 1}


def test_a_change_that_does_not_fit_is_refused_and_says_where(portcullis: Any) -> None:
    portcullis("init")
    status, _, err = portcullis("config", "set", "tenants.acme.teams.vision.gpu_quota", "many", "-m", "x")
    assert status == 2
    assert "gpu_quota" in err


def test_a_key_is_shown_once_and_never_listed(portcullis: Any) -> None:
    portcullis("init")
    made = json.loads(portcullis("key", "create", "backend", "--team", "vision", "--json")[1])
    listed = portcullis("key", "list", "--json")[1]
    assert made["key_id"] in listed
    assert made["token"] not in listed
    assert portcullis("key", "revoke", made["key_id"])[0] == 0
    assert json.loads(portcullis("key", "list", "--json")[1])[0]["state"] == "revoked"


def test_an_approver_is_registered_by_public_key(portcullis: Any) -> None:
    portcullis("init")
    key_id = json.loads(portcullis("identity", "keygen", "ann.pem", "--json")[1])["key_id"]
    assert portcullis("identity", "keygen", "ann.pem")[0] == 2, "a private key is never overwritten"
    assert portcullis("identity", "approver", "add", "ann", "ann.pem.pub")[0] == 0
    assert portcullis("identity", "approver", "add", "bob", "ann.pem.pub")[0] == 2, "one person, one principal"
    assert json.loads(portcullis("identity", "approver", "list", "--json")[1])[0]["keys"] == [key_id]


def test_a_refusal_as_data_has_the_decision(portcullis: Any) -> None:
    """So that a script can take the rule from it."""
    portcullis("init")
    portcullis("identity", "keygen", "ann.pem")
    portcullis("model", "register", "llama-3@7", "--manifest", "sha256:" + "7" * 64)
    status, out, _ = portcullis("model", "approve", "llama-3@7", "--key", "ann.pem", "--json")
    told = json.loads(out)
    assert (status, told["error"]["code"], told["decision"]["allow"]) == (1, "refused", False)
    assert told["decision"]["violations"][0]["rule"] == "lineage/approval"
    status, out, _ = portcullis("model", "approve", "nobody@1", "--key", "ann.pem", "--json")
    assert (status, list(json.loads(out))) == (2, ["error"]), "nothing was decided"


def test_a_freeze_is_made_listed_and_lifted(portcullis: Any) -> None:
    portcullis("init")
    portcullis("model", "register", "llama-3@7")
    made = json.loads(portcullis("freeze", "llama-3@7", "-m", "incident 42", "--json")[1])
    assert made == {"target": "model:llama-3@7", "tenant": "acme", "version": 1, "changed": True}
    assert json.loads(portcullis("freeze", "model:llama-3@7", "-m", "again", "--json")[1])["changed"] is False
    key_id = json.loads(portcullis("key", "create", "app", "--json")[1])["key_id"]
    assert json.loads(portcullis("key", "list", "--json")[1])[0]["principal"] == f"key:{key_id}"
    assert json.loads(portcullis("freeze", f"caller:key:{key_id}", "-m", "stolen", "--json")[1])["changed"]
    listed = json.loads(portcullis("freeze", "--list", "--json")[1])
    assert [rule["target"] for rule in listed] == [f"caller:key:{key_id}", "model:llama-3@7"]
    assert portcullis("unfreeze", "llama-3@7", "-m", "closed")[0] == 0
    assert portcullis("unfreeze", "llama-3@7", "-m", "closed")[0] == 2, "it is not frozen any more"
    assert portcullis("freeze", "--list", "llama-3@7")[0] == 2
    assert portcullis("freeze", "llama-3@7")[0] == 2, "a reason is needed"
    assert portcullis("freeze", "llama-4@1", "-m", "x")[0] == 2, "nobody registered it"
    assert portcullis("freeze", "tenant:acme", "-m", "everything")[0] == 0


def test_a_note_is_kept_sealed_and_shown_by_id(portcullis: Any) -> None:
    portcullis("init")
    text = "quarterly review with jane.roe@example.org"
    arguments = ("evidence", "note", "--subject", "llama-3@7", "-m", text)
    made = json.loads(portcullis(*arguments, "--kind", "review", "--json")[1])
    shown = json.loads(portcullis("evidence", "show", made["id"], "--json")[1])
    assert (shown["record"]["kind"], shown["record"]["subject"], shown["note"]) == ("review", "llama-3@7", text)
    assert "jane" not in json.dumps(shown["record"])
    assert not any(b"jane" in path.read_bytes() for path in Path(".portcullis").rglob("*") if path.is_file())
    assert portcullis(*arguments, "--kind", "approval")[0] == 2, "people's notes pass for nothing that the product records"
    assert portcullis("evidence", "note", "--kind", "drill", "--subject", "x", "-m", " ")[0] == 2


def test_a_withdrawal_names_what_was_admitted_before_it(portcullis: Any) -> None:
    portcullis("init")
    portcullis("dataset", "register", "chats@1", "--origin", "support chats", "--basis", "given")
    portcullis("model", "register", "llama-3@7", "--dataset", "chats@1")
    assert json.loads(portcullis("model", "deployments", "--json")[1]) == []
    _place("llama-3@7")
    (listed,) = json.loads(portcullis("model", "deployments", "llama-3@7", "--json")[1])
    assert (listed["environment"], listed["workload"], listed["decision_id"]) == ("vision", "Deployment/chat", "d-1")
    assert json.loads(portcullis("model", "show", "llama-3@7", "--json")[1])["deployments"] == [listed]
    answer = json.loads(portcullis("dataset", "withdraw", "chats@1", "-m", "asked for", "--json")[1])
    assert (answer["models"], answer["deployments"]) == (["llama-3@7"], [listed])


def _place(ref: str) -> None:
    """As the admission door does after it admitted the workload."""
    import asyncio

    from core.clock import SystemClock
    from core.names import ModelRef
    from lineage.deployments import Deployments
    from storage.database import open_database

    async def work() -> None:
        database = open_database("sqlite+aiosqlite:///.portcullis/portcullis.db")
        try:
            await Deployments(database, SystemClock()).place(
                "acme", environment="vision", workload="Deployment/chat", models=[ModelRef.parse(ref)], actor="ref:ci",
                decision_id="d-1",
            )  # fmt: skip
        finally:
            await database.close()

    asyncio.run(work())


def test_a_new_rule_has_a_test_that_passes(portcullis: Any) -> None:
    files = json.loads(portcullis("policy", "new", "admission/my-rule", "--folder", "mine", "--json")[1])["files"]
    assert len(files) == 2
    assert portcullis("policy", "check", "--extra", "mine")[0] == 0
    status, out, _ = portcullis("policy", "test", "--extra", "mine", "--only", "my-rule")
    assert (status, out.strip()) == (0, "3 passed, 0 failed")


@pytest.mark.parametrize("call", ["http.send({})", "time.now_ns()", 'to_number("1")'])
def test_a_rule_that_reaches_out_is_refused_with_its_line(portcullis: Any, call: str) -> None:
    rule = Path(json.loads(portcullis("policy", "new", "admission/my-rule", "--folder", "mine", "--json")[1])["files"][0])
    rule.write_text(rule.read_text() + f"\nextra := {call}\n")
    status, out, _ = portcullis("policy", "check", "--extra", "mine")
    assert status == 1
    assert f"{rule}:" in out
    assert call.split("(")[0] in out


def test_eval_says_allowed_or_denied_by_its_exit_status(portcullis: Any) -> None:
    from tests.corpus import cases

    found = {case.name: case for case in cases("gateway")}
    Path("yes.json").write_text(json.dumps(found["a grant and a model that is fit"].input))
    Path("no.json").write_text(json.dumps(found["a revoked model"].input))
    Path("bad.json").write_text("{")
    assert portcullis("policy", "eval", "gateway", "-f", "yes.json")[0] == 0
    status, out, _ = portcullis("policy", "eval", "gateway", "-f", "no.json", "--json")
    assert status == 1
    assert json.loads(out)["violations"][0]["message"] == "llama@7 is revoked"
    assert portcullis("policy", "eval", "gateway", "-f", "bad.json")[0] == 2


def test_explain_says_why_and_what_would_have_to_change(portcullis: Any) -> None:
    from tests.corpus import cases

    found = {case.name: case for case in (*cases("gateway"), *cases("admission"))}
    Path("yes.json").write_text(json.dumps(found["a grant and a model that is fit"].input))
    Path("no.json").write_text(json.dumps(found["an update over the quota"].input))
    status, out, _ = portcullis("policy", "explain", "admission", "-f", "no.json")
    assert status == 1
    assert "facts.quota.used_shares is 1 GPU\n" in out
    assert "if request.gpu_shares were at most 2 GPUs (it is 3 GPUs)\n" in out
    assert "What to do: Ask for fewer GPUs" in out
    assert json.loads(portcullis("policy", "explain", "admission", "-f", "no.json", "--json")[1])["allow"] is False
    status, out, _ = portcullis("policy", "explain", "gateway", "-f", "yes.json")
    assert status == 0
    assert "Model access (gateway/model-access) granted it: g1." in out
    assert "`count(purposes) > 0`, and that does not hold" in out


async def _record(state: Path, *names: str) -> list[str]:
    """Decisions over these cases of the corpus, in the log of a state folder."""
    from evidence.recorder import EvidenceRecorder
    from policies.engine import load_embedded
    from tests.corpus import cases

    found = {str(case): case for case in cases()}
    engine, recorder = load_embedded(), EvidenceRecorder(state / "evidence")
    recorder.keep_bundle(engine.revision, engine.bundle.files())
    made = []
    for name in names:
        case = found[name]
        decision = engine.decide(case.domain, case.input)
        await recorder.decision(
            "admission", decision, case.input, actor="ref:1", tenant="acme", subject="vision/Deployment/chat"
        )
        made.append(decision.decision_id)
    engine.close()
    recorder.close()
    return made


def test_a_recorded_decision_is_explained_by_its_id(portcullis: Any) -> None:
    portcullis("init")
    denied, allowed = asyncio.run(_record(Path(".portcullis"), "admission: an update over the quota", "admission: exempt"))
    status, out, _ = portcullis("policy", "explain", denied)
    assert status == 1
    assert f"Decision {denied} of " in out
    assert "if config.gpu_limit_shares were at least 4 GPUs (it is 3 GPUs)" in out
    assert "Note:" not in out, "the bundle that decided is kept, and decides the same"
    status, out, _ = portcullis("policy", "explain", allowed)
    assert status == 0
    assert "the exemption E1 covers it" in out
    shown = json.loads(portcullis("policy", "explain", denied, "--json")[1])
    assert (shown["recorded_allow"], shown["same_policies"]) == (False, True)
    assert shown["record"]["decision"]["decision_id"] == denied


def test_coverage_by_real_traffic_and_uses_of_exemptions(portcullis: Any) -> None:
    portcullis("init")
    assert json.loads(portcullis("policy", "coverage", "--json")[1])["decisions"] == 0, "before there is a log"
    names = ("admission: an update over the quota", "admission: exempt", "admission: exempt", "admission: usage not known")
    asyncio.run(_record(Path(".portcullis"), *names))
    status, out, _ = portcullis("policy", "coverage", "--json")
    found = {rule["rule"]: rule for rule in json.loads(out)["rules"]}
    assert status == 0
    quota = found["admission/gpu-quota"]
    assert (quota["evaluated"], quota["denied"], quota["exempted"], quota["state"]) == (3, 1, 2, "always fires")
    assert (found["admission/approved-images"]["evaluated"], found["admission/approved-images"]["state"]) == (4, "never fired")
    assert found["gateway/purpose"]["state"] == "never evaluated"
    assert json.loads(out)["others"] == {"policy/mandatory": 1}
    text = portcullis("policy", "coverage", "--since", "2d")[1]
    assert "Never fired in 2d: admission/approved-images, admission/approved-model, " in text
    assert "Always fires in 2d: admission/gpu-quota" in text
    assert "Denied by no rule: policy/mandatory 1" in text
    for name in ("E1", "E2"):
        assert _exempt(portcullis, name)[0] == 0
    listed = {item["id"]: item for item in json.loads(portcullis("exemption", "list", "--uses", "--json")[1])}
    assert (listed["E1"]["uses"], listed["E2"]["uses"], listed["E2"]["last_used_unix"]) == (2, 0, None)
    assert listed["E1"]["last_used_unix"] > 1_700_000_000
    assert "never" in portcullis("exemption", "list", "--uses")[1]
    assert "uses" not in json.loads(portcullis("exemption", "list", "--json")[1])[0]
    assert portcullis("policy", "coverage", "--since", "long")[0] == 2


def _exempt(portcullis: Any, name: str) -> Any:
    given = ("--rule", "admission/gpu-quota", "--owner", "o", "-m", "why", "--ticket", "T", "--expires", _tomorrow())
    return portcullis("exemption", "add", name, *given, "--subject", "Deployment/chat", "--team", "vision")


def _tomorrow() -> str:
    return show_time(int(time.time()) + 86_400)


BAD_QUESTIONS = {
    "no input": ("gateway",),
    "no such domain": ("gatewai", "-f", "no.json"),
    "no such file": ("gateway", "-f", "none.json"),
    "no such decision": ("0190-not-there",),
    "an engine for a recorded decision": ("0190-not-there", "--engine", "embedded"),
}


@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_what_cannot_be_explained_is_exit_status_2(portcullis: Any, case: str) -> None:
    portcullis("init")
    Path("no.json").write_text("{}")
    assert portcullis("policy", "explain", *BAD_QUESTIONS[case])[0] == 2


@pytest.mark.parametrize("text", ["profil: x", "profile: development\nprofile: production", "gateway: {upstreams: 3}"])
def test_settings_that_cannot_be_used_refuse_to_start(portcullis: Any, text: str) -> None:
    Path("portcullis.yaml").write_text(text)
    status, _, err = portcullis("key", "list")
    assert status == 2
    assert "portcullis.yaml" in err


def test_a_database_that_is_gone_is_exit_status_3(portcullis: Any, free_port: int) -> None:
    Path("portcullis.yaml").write_text(f"storage: {{url: 'postgresql+asyncpg://x@127.0.0.1:{free_port}/x'}}")
    assert portcullis("key", "list")[0] == 3


def test_the_entry_point_is_a_program(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("portcullis")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert "policy" in done.stdout
    assert not (tmp_path / ".portcullis").exists(), "help makes no state"
    assert (ROOT / "pyproject.toml").exists()


def test_rules_are_listed_by_control_and_domain_with_their_modes_and_exemptions(portcullis: Any) -> None:
    assert json.loads(portcullis("policy", "list", "--json")[1])["rules"][0]["mode"] is None, "there is no installation yet"
    assert not Path(".portcullis").exists(), "looking makes none"
    portcullis("init")
    modes = ("gpu-quota, mode: warn", "gpu-quota, mode: dryrun, tenant: acme", "approved-images, mode: enforce, tenant: acme")
    Path("config/modes.yaml").write_text("modes:\n" + "".join(f"  - {{rule: admission/{mode}}}\n" for mode in modes))
    exemption = ["exemption", "add", "EX-1", "--rule", "admission/gpu-quota", "--owner", "ann", "-m", "r", "--ticket", "T-1"]
    given = ("--expires", _tomorrow(), "--subject", "Deployment/chat", "--team", "vision")
    assert portcullis(*exemption, *given)[0] == 0
    status, out, _ = portcullis("policy", "list", "--domain", "admission", "--control", "soc2/cc6.1", "--json")
    rules = {rule["id"]: rule for rule in json.loads(out)["rules"]}
    assert (status, sorted(rules)) == (0, ["admission/gpu-quota", "admission/namespace-isolation"])
    assert rules["admission/gpu-quota"]["mode"] == "warn"
    assert rules["admission/gpu-quota"]["narrower"] == [{"mode": "dryrun", "tenant": "acme"}]
    assert rules["admission/gpu-quota"]["exemptions"] == ["EX-1"]
    assert rules["admission/namespace-isolation"]["mode"] == "enforce"
    assert rules["admission/gpu-quota"]["messages"]["no_limit"]
    assert json.loads(portcullis("policy", "list", "--control", "soc2/cc6", "--json")[1])["rules"] == [], "no half names"
    assert portcullis("policy", "list", "--domain", "kitchen")[0] == 2
    listed = portcullis("policy", "list")[1]
    assert "warn (+1)" in listed
    everything = {rule["id"]: rule for rule in json.loads(portcullis("policy", "list", "--json")[1])["rules"]}
    assert everything["admission/approved-images"]["narrower"] == [], "it says what the general mode says"


def test_cost_is_told_and_a_rule_over_its_budget_is_found(portcullis: Any) -> None:
    rule = Path(json.loads(portcullis("policy", "new", "admission/my-rule", "--folder", "mine", "--json")[1])["files"][0])
    status, out, _ = portcullis("policy", "check", "--cost", "--extra", "mine", "--json")
    costs = {one["rule"]: one for one in json.loads(out)["costs"]}
    assert status == 0
    assert costs["admission/my-rule"]["inputs"] == 3
    rule.write_text(rule.read_text().replace("#   controls: []", "#   controls: []\n#   budget_us: 1"))
    status, out, _ = portcullis("policy", "check", "--cost", "--extra", "mine", "--json")
    (finding,) = json.loads(out)["findings"]
    assert (status, finding["code"], finding["path"]) == (1, "cost", "mine/rules/admission/my-rule/my-rule.rego")
    assert "its budget is 1 µs" in finding["message"]
    assert portcullis("policy", "check", "--inputs", "x")[0] == 2


def test_coverage_is_told_and_can_be_asked_for(portcullis: Any) -> None:
    rule = Path(json.loads(portcullis("policy", "new", "admission/my-rule", "--folder", "mine", "--json")[1])["files"][0])
    test = ["policy", "test", "--extra", "mine", "--only", "my-rule", "--coverage", "--json"]
    status, out, _ = portcullis(*test)
    found = {one["rule"]: one for one in json.loads(out)["coverage"]}
    assert (status, found["admission/my-rule"]["missed"], found["admission/my-rule"]["percent"]) == (0, [], 100)
    rule.write_text(rule.read_text() + '\ndeny contains {"path": "", "args": {}} if input.request.kind == "Never"\n')
    status, out, _ = portcullis(*test)
    found = {one["rule"]: one for one in json.loads(out)["coverage"]}
    assert (status, found["admission/my-rule"]["percent"] < 100) == (0, True)
    assert portcullis(*test, "--fail-under", "100")[0] == 1


def test_rules_of_ones_own_are_documented(portcullis: Any) -> None:
    portcullis("policy", "new", "admission/my-rule", "--folder", "mine")
    assert portcullis("policy", "docs", "--extra", "mine", "-o", "rules.md")[0] == 0
    assert "## admission/my-rule" in Path("rules.md").read_text()
    assert "## admission/gpu-quota" in portcullis("policy", "docs")[1]
    assert portcullis("policy", "docs", "-o", "nowhere/rules.md")[0] != 0


def test_a_bundle_is_built_only_when_every_input_gets_its_decision(portcullis: Any) -> None:
    from tests.corpus import cases

    found = {case.name: case for case in cases("gateway")}
    good, bad = (found[name] for name in ("a grant and a model that is fit", "a revoked model"))
    texts = [json.dumps({"domain": "gateway", "input": case.input, "expect": case.expect}) for case in (good, bad)]
    Path("inputs").mkdir()
    Path("inputs/a.jsonl").write_text("\n".join(texts))
    build = ("policy", "bundle", "build", "--no-wasm", "--inputs", "inputs")
    status, out, _ = portcullis(*build, "-o", "one.tar.gz", "--json")
    assert (status, json.loads(out)["corpus"]["inputs"]) == (0, 2)
    assert json.loads(out)["grants"]["gateway"] == ["gateway/model-access"]
    Path("inputs/a.jsonl").rename("inputs/b.jsonl")
    portcullis(*build, "-o", "two.tar.gz")
    assert Path("one.tar.gz").read_bytes() == Path("two.tar.gz").read_bytes()
    portcullis("identity", "keygen", "key.pem")
    assert portcullis("policy", "bundle", "sign", "two.tar.gz", "--key", "key.pem")[0] == 0
    status, out, _ = portcullis("policy", "bundle", "verify", "two.tar.gz")
    assert "corpus     2 inputs, sha256:" in out, "what it was tried with is kept when it is signed"
    p256 = generate_private_key(SECP256R1())
    Path("p256.pem").write_bytes(p256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    Path("p256.pub").write_bytes(p256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert portcullis("policy", "bundle", "verify", "two.tar.gz", "--key", "p256.pub")[0] == 1
    assert portcullis("policy", "bundle", "sign", "two.tar.gz", "--key", "p256.pem")[0] == 0
    assert portcullis("policy", "bundle", "verify", "two.tar.gz", "--key", "p256.pub")[0] == 0
    Path("inputs/b.jsonl").write_text(
        "\n".join([*texts, json.dumps({"domain": "gateway", "input": bad.input, "expect": {"allow": True}})])
    )
    status, out, _ = portcullis(*build, "-o", "three.tar.gz")
    assert status == 1
    assert "FAIL inputs/b.jsonl:3: embedded: allow is False" in out
    assert not Path("three.tar.gz").exists()


def test_a_change_that_weakens_is_signed_by_two_people_and_then_made(portcullis: Any) -> None:
    portcullis("init")
    status, _, err = portcullis("config", "set", "modes.admission/gpu-quota", "{mode: warn}", "-m", "trial")
    assert status == 1
    assert "admission/gpu-quota: enforce becomes warn everywhere" in err
    assert "portcullis config propose" in err
    change = ("config", "propose", "modes.admission/gpu-quota", "{mode: warn}", "-m", "trial")
    made = json.loads(portcullis(*change, "--json")[1])
    given = ("--rule", "admission/gpu-quota", "--owner", "o", "-m", "r", "--ticket", "T", "--subject", "*")
    wide = ("exemption", "add", "EX-1", *given, "--expires", _tomorrow())
    assert portcullis(*wide)[0] == 1
    exempt = json.loads(portcullis(*wide, "--propose", "--json")[1])
    shown = portcullis("policy", "bundle", "show", made["id"])[1]
    assert "weakens    admission/gpu-quota: enforce becomes warn everywhere" in shown
    assert "differs    + modes.admission/gpu-quota: None -> {'rule': 'admission/gpu-quota', 'mode': 'warn'}" in shown
    assert f"then: portcullis config apply {made['id']}" in shown
    assert portcullis("config", "apply", made["id"])[0] == 1, "nobody has signed"
    for person in ("ann", "bob"):
        portcullis("identity", "keygen", f"{person}.pem")
        assert portcullis("identity", "approver", "add", person, f"{person}.pem.pub")[0] == 0
        for proposal in (made, exempt):
            assert portcullis("policy", "bundle", "approve", proposal["id"], "--key", f"{person}.pem")[0] == 0
    assert json.loads(portcullis("config", "apply", made["id"], "--json")[1]) == {"proposal": made["id"], "version": 1}
    assert portcullis("config", "apply", made["id"])[0] == 1, "it is made once"
    assert portcullis("config", "apply", exempt["id"])[0] == 0
    rules = {rule["id"]: rule for rule in json.loads(portcullis("policy", "list", "--json")[1])["rules"]}
    assert (rules["admission/gpu-quota"]["mode"], rules["admission/gpu-quota"]["exemptions"]) == ("warn", ["EX-1"])
    assert portcullis("config", "unset", "modes.admission/gpu-quota", "-m", "over")[0] == 0, "stricter needs nobody else"


@pytest.mark.parametrize("arguments", [(), ("4", "--unset")])
def test_a_proposal_has_a_value_or_takes_one_back(portcullis: Any, arguments: tuple[str, ...]) -> None:
    assert portcullis("config", "propose", "requests_per_minute", *arguments, "-m", "x")[0] == 2
