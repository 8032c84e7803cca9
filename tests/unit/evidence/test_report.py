"""Reports: four words, counts that add up, links that lead to records, and never the word."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from core.decision import MANDATORY, Violation
from core.errors import BadInput, ConfigError, InvalidProof, NotFound
from core.record import Entry
from evidence import catalogue
from evidence.queries import QUERIES
from evidence.reader import Reader
from evidence.report import STATUSES, Report, build, frameworks, render
from tests.unit.evidence.rig import Rig, decide

ADA, BOB, CALLER = ("ref:" + letter * 32 for letter in "abc")
WITHDRAWN = Violation(
    "gateway/model-access",
    "enforce",
    "model",
    {"reason": "consent_withdrawn", "model": "llama@7", "dataset": "chats@1"},
    controls=("eu-ai-act/art-26-5", "gdpr/art-7-3"),
)


async def event(rig: Rig, kind, subject: str, actor: str = ADA, **details) -> None:
    await rig.recorder.event(Entry(kind, actor, "acme", subject, details=details))
    rig.clock.now += 10


async def decision(
    rig: Rig, kind, subject: str, *violations: Violation, actor: str = CALLER, domain: str = "gateway", **more
) -> str:
    document = {"n": rig.clock.now, "subject": subject}
    made = decide(document, violations=violations, domain=domain, evaluated=MANDATORY[domain], **more)
    await rig.recorder.decision(kind, made, document, actor=actor, tenant="acme", subject=subject)
    rig.clock.now += 10
    return made.decision_id


async def call(rig: Rig, *violations: Violation) -> None:
    decision_id = await decision(rig, "inference.intent", "llama@7", *violations)
    if not violations:
        await event(rig, "inference.outcome", "llama@7", CALLER, decision_id=decision_id, status=200)


async def story(rig: Rig) -> None:
    await event(rig, "dataset", "dataset/chats@1", action="register")
    await event(rig, "consent", "dataset/chats@1", action="give")
    await event(rig, "card", "llama@7")
    for person in (ADA, BOB):
        await decision(rig, "approval", "llama@7", actor=person, domain="lineage")
    await decision(rig, "admission", "prod/Deployment/chat", domain="admission")
    await call(rig)
    await event(rig, "consent", "dataset/chats@1", action="withdraw", models=["llama@7"])
    await call(rig, WITHDRAWN)
    await decision(rig, "admission", "prod/Deployment/chat", WITHDRAWN, domain="admission")


def made(rig: Rig, **more) -> Report:
    rig.integrate()
    return build("eu-ai-act", Reader(rig.folder), clock=rig.clock, **more)


def statuses(report: Report) -> dict[str, str]:
    return {row.id.removeprefix("eu-ai-act/"): row.status for row in report.rows}


def row(report: Report, name: str):
    return next(row for row in report.rows if row.id == f"eu-ai-act/{name}")


async def test_the_story(rig: Rig):
    await story(rig)
    report = made(rig, tenant="acme")
    assert statuses(report) == {
        "art-9": "organisational",
        "art-10": "evidenced",
        "art-11": "evidenced",
        "annex-iv-2-g": "not evidenced",
        "art-12-1": "evidenced",
        "art-12-2-a": "evidenced",
        "art-12-2-bc": "evidenced",
        "art-13": "organisational",
        "art-14": "evidenced",
        "art-15": "evidenced",
        "art-19": "evidenced",
        "art-26-5": "not applicable",
        "art-26-6": "evidenced",
        "art-73": "not applicable",
    }
    governance = row(report, "art-10")
    assert governance.counts["uses denied after it"] == 2
    (finding,) = [finding for finding in report.findings if "chats@1" in finding]
    assert "open" in finding
    assert "llama@7" in finding
    assert report.totals == {"records": 11, "decisions": 6, "allowed": 4, "denied": 2}
    assert row(report, "art-26-5").counts["denials under this control"] == 2
    known = {reference.seq for reference in report.references}
    assert all(set(row.records) <= known for row in report.rows)


async def test_a_use_let_through_after_withdrawal_is_not_evidenced(rig: Rig):
    await story(rig)
    await call(rig)
    report = made(rig)
    assert statuses(report)["art-10"] == "not evidenced"
    assert row(report, "art-10").counts["uses allowed after it"] == 1


async def test_consent_given_again_closes_the_finding(rig: Rig):
    await story(rig)
    await event(rig, "consent", "dataset/chats@1", action="give")
    await call(rig)
    report = made(rig)
    assert statuses(report)["art-10"] == "evidenced"
    assert not [finding for finding in report.findings if "chats@1" in finding]


async def test_a_withdrawal_before_the_window_still_counts(rig: Rig):
    await story(rig)
    start = rig.clock.now
    await call(rig)
    report = made(rig, since=start)
    assert statuses(report)["art-10"] == "not evidenced"
    assert report.totals["records"] == 2


async def test_an_empty_window_evidences_little(rig: Rig):
    await story(rig)
    report = made(rig, since=rig.clock.now + 1, until=rig.clock.now + 2)
    assert {name for name, status in statuses(report).items() if status == "evidenced"} == {"art-10", "art-19", "art-26-6"}
    assert report.timeline == []
    render(report, "html")


async def test_no_outcome_is_a_finding(rig: Rig):
    await decision(rig, "inference.intent", "llama@7")
    report = made(rig)
    assert any("has no outcome" in finding for finding in report.findings)


async def test_unchecked_admission_and_call(rig: Rig):
    await decision(rig, "admission", "x", domain="admission")
    document = {"x": 1}
    for kind, domain in (("admission", "admission"), ("inference.intent", "gateway")):
        made_one = decide(document, domain=domain, evaluated=())
        await rig.recorder.decision(kind, made_one, document, actor=CALLER, tenant="acme", subject="m@1")
    report = made(rig)
    assert statuses(report)["art-15"] == "not evidenced"
    assert statuses(report)["art-11"] == "not evidenced"


async def test_a_call_without_its_version(rig: Rig):
    await decision(rig, "inference.intent", "llama")
    assert statuses(made(rig))["art-12-2-bc"] == "not evidenced"


async def test_policies_that_changed_in_silence(rig: Rig):
    await decision(rig, "inference.intent", "llama@7")
    await decision(rig, "inference.intent", "llama@7", policy_revision="sha256:" + "9" * 64)
    assert statuses(made(rig))["art-12-2-a"] == "not evidenced"
    await event(rig, "policy_change", "policies")
    assert statuses(made(rig))["art-12-2-a"] == "evidenced"


async def test_alerts_and_incidents(rig: Rig):
    await event(rig, "alert", "llama@7")
    await event(rig, "incident", "llama@7")
    await event(rig, "evaluation", "llama@7")
    report = made(rig)
    assert statuses(report)["art-26-5"] == "not evidenced"
    assert statuses(report)["art-73"] == "organisational"
    assert statuses(report)["annex-iv-2-g"] == "evidenced"
    await event(rig, "freeze", "llama@7", action="unfreeze")
    assert statuses(made(rig))["art-26-5"] == "not evidenced", "lifting a freeze stops nothing"
    await event(rig, "freeze", "llama@7", action="freeze")
    assert statuses(made(rig))["art-26-5"] == "evidenced"


async def test_one_approver_is_not_two(rig: Rig):
    await decision(rig, "approval", "llama@7", actor=ADA, domain="lineage")
    await event(rig, "drill", "llama@7")
    assert statuses(made(rig))["art-14"] == "not evidenced"
    await decision(rig, "approval", "llama@7", actor=BOB, domain="lineage")
    assert statuses(made(rig))["art-14"] == "evidenced"


async def test_a_changed_log_gives_no_report(rig: Rig):
    await story(rig)
    rig.integrate()
    bundle = next((rig.folder / "log" / "tile" / "entries").rglob("*.p/*"))
    data = bytearray(bundle.read_bytes())
    data[100] ^= 1
    bundle.write_bytes(bytes(data))
    with pytest.raises(InvalidProof):
        build("eu-ai-act", Reader(rig.folder), clock=rig.clock)


async def test_other_tenants_stay_out(rig: Rig):
    await story(rig)
    report = made(rig, tenant="zeta")
    assert report.totals["records"] == 0
    assert b"llama" not in render(report, "html")


async def test_html_is_self_contained_escaped_and_never_says_the_word(rig: Rig):
    await story(rig)
    evil = "<script>alert(1)</script>\"'><img src=x onerror=y>"
    await event(rig, "card", evil)
    page = render(made(rig, tenant="acme"), "html").decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<svg" in page
    assert not re.search(r"https?://|src=\"|@import|url\(", page.replace("&lt;img src=x", ""))
    assert "compliant" not in page.lower()
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page


async def test_json(rig: Rig):
    await story(rig)
    document = json.loads(render(made(rig), "json"))
    assert document["format"] == "portcullis.dev/report/v1"
    assert sum(document["statuses"].values()) == len(document["rows"])
    assert set(document["statuses"]) == set(STATUSES)
    assert "compliant" not in json.dumps(document).lower()
    for entry in document["rows"]:
        assert {"applies_from", "records", "counts", "status"} <= set(entry)


async def test_wrong_use(rig: Rig):
    await story(rig)
    rig.integrate()
    with pytest.raises(NotFound, match="eu-ai-act"):
        build("iso-0", Reader(rig.folder))
    with pytest.raises(BadInput, match="ends before"):
        made(rig, since=10, until=10)
    with pytest.raises(BadInput, match="html and json"):
        render(made(rig), "pdf")


def test_every_control_has_its_query_and_every_query_its_control():
    tests = {control.test for known in catalogue.frameworks() for control in known.controls}
    assert tests == set(QUERIES)
    assert [known["id"] for known in frameworks()] == ["eu-ai-act"]


BAD_CATALOGUES = {
    "not a mapping": "- 1",
    "unknown field": "id: x\ntitle: x\ntext_version: x\nmore: 1\ncontrols: []",
    "no controls": "id: x\ntitle: x\ntext_version: x\ncontrols: []",
    "bad date": "id: x\ntitle: x\ntext_version: x\ncontrols: [{id: a, title: a, articles: ['1'], applies_from: soon, level: A, test: t}]",
    "bad level": "id: x\ntitle: x\ntext_version: x\ncontrols: [{id: a, title: a, articles: ['1'], applies_from: '2027-01-01', level: Z, test: t}]",
    "twice": "id: x\ntitle: x\ntext_version: x\ncontrols:\n"
    + "  - {id: a, title: a, articles: ['1'], applies_from: '2027-01-01', level: A, test: t}\n" * 2,
}


@pytest.mark.parametrize("text", BAD_CATALOGUES.values(), ids=BAD_CATALOGUES)
def test_bad_catalogues(tmp_path: Path, text: str):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError):
        catalogue.read(tmp_path / "x.yaml")


async def test_a_call_let_through_is_found_though_nothing_was_ever_denied(rig: Rig):
    await event(rig, "consent", "dataset/chats@1", action="withdraw", models=["llama@7"])
    await call(rig)
    report = made(rig)
    assert statuses(report)["art-10"] == "not evidenced"
    assert any("chats@1" in finding for finding in report.findings)


async def admitted(rig: Rig, subject: str, *, models=("llama@7",), **details) -> None:
    document = {"n": rig.clock.now, "subject": subject}
    made = decide(document, domain="admission", evaluated=MANDATORY["admission"])
    more = {"operation": "CREATE", "models": list(models)} | details
    await rig.recorder.decision("admission", made, document, actor=CALLER, tenant="acme", subject=subject, details=more)
    rig.clock.now += 10


async def test_what_was_admitted_before_a_withdrawal_and_still_stands_is_named(rig: Rig):
    for name in ("chat", "batch", "moved", "gone"):
        await admitted(rig, f"prod/Deployment/{name}")
    await admitted(rig, "prod/Deployment/moved", models=("other@1",), operation="UPDATE")
    await event(rig, "consent", "dataset/chats@1", action="withdraw", models=["llama@7"])
    await admitted(rig, "prod/Deployment/gone", models=(), operation="DELETE", gone=True)
    await admitted(rig, "prod/Deployment/batch", models=(), operation="DELETE")
    report = made(rig)
    standing = [finding for finding in report.findings if "has not been deleted" in finding]
    assert [finding.split()[2] for finding in standing] == ["prod/Deployment/batch", "prod/Deployment/chat"]
    assert row(report, "art-10").counts["workloads admitted before it and not deleted"] == 2


async def test_what_an_owner_stands_for_is_not_counted_beside_it(rig: Rig):
    await admitted(rig, "prod/Deployment/chat")
    await admitted(rig, "prod/Pod/chat-1", covered=True)
    await event(rig, "consent", "dataset/chats@1", action="withdraw", models=["llama@7"])
    assert row(made(rig), "art-10").counts["workloads admitted before it and not deleted"] == 1


async def test_a_create_under_a_taken_name_hides_nothing(rig: Rig):
    await admitted(rig, "prod/Deployment/chat")
    await admitted(rig, "prod/Deployment/chat", models=("other@1",))
    await event(rig, "consent", "dataset/chats@1", action="withdraw", models=["llama@7"])
    assert row(made(rig), "art-10").counts["workloads admitted before it and not deleted"] == 1


async def test_an_admission_let_through_after_a_withdrawal_is_not_evidenced(rig: Rig):
    await event(rig, "dataset", "dataset/chats@1", action="register")
    await event(rig, "consent", "dataset/chats@1", action="withdraw", models=["llama@7"])
    await admitted(rig, "prod/Deployment/chat", operation="DELETE", gone=True)
    await admitted(rig, "prod/Deployment/other", models=("other@1",))
    assert statuses(made(rig))["art-10"] == "evidenced", "taking one away is no use of it"
    await admitted(rig, "prod/Pod/chat-1", covered=True)
    report = made(rig)
    assert statuses(report)["art-10"] == "not evidenced", "a pod that an owner stands for is a use all the same"
    assert any("allowed since: 1 admission (seq 4)" in finding for finding in report.findings)


async def test_the_finding_tells_admissions_from_calls_and_names_their_records(rig: Rig):
    await story(rig)
    await call(rig, WITHDRAWN)
    report = made(rig)
    counts = row(report, "art-10").counts
    assert (counts["admissions denied after it"], counts["calls denied after it"]) == (1, 2)
    (finding,) = [finding for finding in report.findings if "denied since" in finding]
    assert "denied since: 2 calls (seq 9, 11), 1 admission (seq 10); allowed since: none" in finding
    assert {9, 10, 11} <= set(row(report, "art-10").records)


async def test_of_many_denials_the_last_are_named(rig: Rig):
    await event(rig, "consent", "dataset/chats@1", action="withdraw", models=["llama@7"])
    for _ in range(12):
        await call(rig, WITHDRAWN)
    (finding,) = [finding for finding in made(rig).findings if "denied since" in finding]
    assert "12 calls (seq … 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)" in finding
