"""The story, step by step. Each step says what was sent, what came back, and fails when it is not what must come."""

from __future__ import annotations

import shlex
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cli.demo import files, upstream
from cli.demo.cast import Cast
from cli.demo.place import Answer, Done, Place
from core.errors import Broken

FRAMEWORK = "eu-ai-act"
GPU = 20_160
"""Shares of one GPU, as the documents say it; not read from the product, which is on trial here."""


@dataclass(frozen=True, slots=True)
class Step:
    """`verdict` as the product gave it; `rule` where one decided; `says` in its own words; `seconds` it took."""

    number: int
    title: str
    sent: str
    verdict: str
    rule: str
    says: str
    seconds: float


@dataclass
class Story:
    place: Place
    cast: Cast
    seed: int
    upstream: str | None
    tell: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)
    served: str = ""
    digest: str = ""
    answer: str = ""
    callers: dict[str, str] = field(default_factory=dict)
    started: float = 0.0

    def run(self) -> dict[str, Any]:
        """The whole story. Broken when a step does not end as it must; services are stopped whatever happens."""
        began = time.monotonic()
        try:
            self._open()
            self._model_and_data()
            self._weights()
            self._approvals()
            self._admissions()
            self._calls()
            self._the_log()
            self._withdrawal()
        finally:
            self.place.stop()
        self._evidence()
        return {
            "seed": self.seed,
            "seconds": round(time.monotonic() - began, 1),
            "steps": [asdict(step) for step in self.steps],
            "report": str(self.place.folder / "report.html"),
            "package": str(self.place.folder / "evidence.zip"),
            "key": str(self.place.folder / ".portcullis" / "evidence" / "keys" / "log.pub"),
        }

    # --- telling -----------------------------------------------------------------------------------------------------

    def _say(self, title: str, sent: str, verdict: str, says: str = "", rule: str = "") -> None:
        now = time.monotonic()
        step = Step(len(self.steps) + 1, title, sent, verdict, rule, says, round(now - self.started, 2))
        self.started = now
        self.steps.append(step)
        self.tell(step)

    def _command(
        self, title: str, verdict: str, says: str, *arguments: str, status: int = 0, folder: Path | None = None
    ) -> Any:
        """A command that must end with `status`; `says` may quote what it printed, by field name."""
        done = self.place.run(*arguments, folder=folder)
        shown = "portcullis " + shlex.join(arguments)
        self._must(done.status == status, title, shown, done)
        self._say(title, shown, verdict, says.format_map(done.said) if isinstance(done.said, dict) else says)
        return done.said

    def _must(self, holds: bool, title: str, sent: str, got: Done | Answer | Any) -> None:
        if not holds:
            raise Broken(f"the step “{title}” did not end as it must; {sent} gave: {str(got)[:800]}", where="demo")

    def _http(self, title: str, says: str, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.place.api(method, path, body)
        self._must(answer.status == status, title, f"{method} /api/v1{path}", answer)
        self._say(title, f"{method} /api/v1{path}", f"{answer.status}", says.format_map(answer.body))
        return answer.body

    # --- the chapters ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.started = time.monotonic()
        cast, place = self.cast, self.place
        if self.upstream is None:
            self.served = cast.model.partition("@")[0]
            url = place.start_upstream(self.served)
        else:
            url = self.upstream
            self.served = first_model(url)
        files.write_settings(place.folder, cast, url, self.served)
        files.write_card(place.folder / "card.yaml", cast)
        files.write_model(place.folder / "weights", cast, self.seed)
        place.start_services()
        self._say(
            "every service",
            "portcullis up",
            "ready",
            f"gateway {place.ports['gateway']}, admission {place.ports['admission']}, management {place.ports['api']}; "
            f"the model server is {url} with {self.served}",
        )

    def _model_and_data(self) -> None:
        cast = self.cast
        self._command(
            "a dataset with a licence and a purpose", "registered", f"{cast.licence}, for {cast.purpose}, consent given",
            "dataset", "register", cast.dataset, "--origin", f"{cast.tenant} customers, 2026", "--basis", "given",
            "--licence", cast.licence, "--purpose", cast.purpose,
        )  # fmt: skip
        self._command(
            "a model trained on it", "registered", f"trained on {cast.dataset}, of team {cast.team}",
            "model", "register", cast.model, "--dataset", cast.dataset, "--team", cast.team,
        )  # fmt: skip
        self._command("its card", "complete", "every mandatory field is there", "model", "card", cast.model, "-f", "card.yaml")

    def _weights(self) -> None:
        self._command("a key for sealing", "made", "", "weights", "keygen")
        self._command("a pair for signing", "made", "", "weights", "keygen", "--signing", "release.pem")
        sealed = self._command(
            "its weights sealed", "sealed", "manifest {manifest}",
            "weights", "seal", "weights", "sealed", "--model", self.cast.model,
        )  # fmt: skip
        self.digest = sealed["manifest"]
        self._command("the sealed folder signed (OMS)", "signed", "", "weights", "sign", "sealed", "--key", "release.pem")
        self._command("and verified", "verified", "", "weights", "verify", "sealed", "--key", "release.pem.pub")

    def _approvals(self) -> None:
        first, second = self.cast.approvers
        for person in (first, second):
            made = self.place.run("identity", "keygen", f"{person}.pem")
            self._must(made.status == 0, "a key pair", "portcullis identity keygen", made)
            pem = (self.place.folder / f"{person}.pem.pub").read_text(encoding="utf-8")
            self._http(
                f"{person} registered as an approver", "{person} signs with {key_id}",
                "POST", "/approvers", {"person": person, "public_key": pem}, 201,
            )  # fmt: skip
        self._approve(first, f"{first}.pem", counts=True)
        self._approve(first, f"{first}.pem", counts=False)
        second_key = self.place.run("identity", "keygen", f"{first}-2.pem")
        pem = (self.place.folder / f"{first}-2.pem.pub").read_text(encoding="utf-8")
        self._must(second_key.status == 0, "a second key", "portcullis identity keygen", second_key)
        self._http(
            f"a second key for {first}", "{person} also signs with {key_id}",
            "POST", "/approvers", {"person": first, "public_key": pem}, 201,
        )  # fmt: skip
        self._approve(first, f"{first}-2.pem", counts=False)
        self._approve(second, f"{second}.pem", counts=True)

    def _approve(self, person: str, key: str, *, counts: bool) -> None:
        arguments = ("model", "approve", self.cast.model, "--key", key)
        done = self.place.run(*arguments)
        title = f"{person} approves with {key}"
        self._must(done.status == (0 if counts else 1), title, "portcullis " + shlex.join(arguments), done)
        says = "counts" if counts else done.said["error"]["message"]
        self._say(title, "portcullis " + shlex.join(arguments), "approved" if counts else "refused", says, _rule(done.said))

    def _admissions(self) -> None:
        folder = self.place.folder / "manifests"
        files.write_manifests(folder, self.cast, self.digest)
        checked = self.place.run("check", "manifests")
        verdicts = [item["verdict"] for item in checked.said]
        self._must(
            verdicts == ["denied"] * 3 + ["allowed"] and checked.status == 1, "check", "portcullis check manifests", checked
        )
        self._say("the manifests before the cluster sees them", "portcullis check manifests", "exit 1", ", ".join(verdicts))
        expected = {
            "1-too-many-gpus": "admission/gpu-quota",
            "2-foreign-image": "admission/approved-images",
            "3-plain-weights": "admission/encrypted-weights",
            "4-good": "",
        }
        for name, rule in expected.items():
            self._admit(name, rule)
        self._charged()

    def _charged(self) -> None:
        """Exactly the good workload is charged; what was denied left nothing behind."""
        shown = f"portcullis quota show {self.cast.team}"
        done = self.place.run("quota", "show", self.cast.team)
        expected = [
            {
                "team": self.cast.team,
                "used_shares": self.cast.gpus * self.cast.replicas * GPU,
                "limit_shares": self.cast.quota * GPU,
            }
        ]
        self._must(done.said == expected, "what the team holds", shown, done)
        used, limit = (done.said[0][name] for name in ("used_shares", "limit_shares"))
        self._say("what the team holds now", shown, f"{used // GPU} of {limit // GPU} GPUs", f"{used:,} of {limit:,} shares")

    def _admit(self, name: str, rule: str, because: str = "") -> None:
        manifest = yaml.safe_load((self.place.folder / "manifests" / f"{name}.yaml").read_text(encoding="utf-8"))
        answer = self.place.admit(f"{name}-{len(self.steps)}", manifest)
        response = answer.body["response"]
        message = response.get("status", {}).get("message", "")
        self._must(response["allowed"] is (not rule) and rule in message and because in message, name, "POST /validate", answer)
        self._say(
            f"{name}.yaml applied", "POST /validate", "denied" if rule else "allowed", message or "admitted and charged", rule
        )

    def _calls(self) -> None:
        for name, team in (("without a right", self.cast.other_team), ("with a right", self.cast.team)):
            made = self._http(
                f"an API key for a caller {name}", "{key_id}, shown once", "POST", "/keys", {"name": name, "team": team}, 201
            )
            self.callers[name] = made["token"]
        self._ask("nobody", None, 401)
        self._ask("a caller without a right", self.callers["without a right"], 403)
        self._stream()

    def _prompt(self) -> str:
        return f"Summarise: {self.cast.secret_email} paid with card {self.cast.secret_card} and waits."

    def _ask(self, who: str, token: str | None, status: int, because: str = "") -> None:
        answer = self.place.chat(token, self.served, self._prompt(), self.cast.purpose)
        error = answer.body["error"]
        self._must(answer.status == status and because in error["message"], who, "POST /v1/chat/completions", answer)
        rule = error["code"] if "/" in error["code"] else ""
        self._say(f"{who} asks {self.served}", "POST /v1/chat/completions", str(status), error["message"], rule)

    def _stream(self) -> None:
        answer = self.place.chat(self.callers["with a right"], self.served, self._prompt(), self.cast.purpose, stream=True)
        pieces = answer.pieces
        self._must(answer.status == 200 and len(pieces) > 1, "a stream", "POST /v1/chat/completions", answer)
        spread = pieces[-1][0] - pieces[0][0]
        # Our own server pauses after each word; an answer that was kept back would arrive at once.
        kept_back = self.upstream is None and spread < upstream.PAUSE_SECONDS * (len(pieces) - 1) / 2
        self._must(not kept_back, "a stream", "POST /v1/chat/completions", f"{len(pieces)} pieces within {spread:.3f} s")
        self.answer = answer.body
        says = f"{len(pieces)} pieces, the first after {pieces[0][0]:.2f} s, the last after {pieces[-1][0]:.2f} s: {answer.body[:60]}…"
        decided = answer.headers["x-portcullis-decision-id"]
        self._say(
            "a caller with the right asks and gets a stream", "POST /v1/chat/completions", "200", says, self._granted(decided)
        )

    def _granted(self, decision_id: str) -> str:
        """The rule that granted, as the evidence log has it; a record takes a moment to get there."""
        deadline = time.monotonic() + 20
        while (answer := self.place.api("GET", f"/decisions/{decision_id}")).status == 404 and time.monotonic() < deadline:
            time.sleep(0.05)
        self._must(answer.status == 200, "the record of the call", f"GET /api/v1/decisions/{decision_id}", answer)
        return str(answer.body["decision"]["grants"][0]).partition(":")[0]

    def _the_log(self) -> None:
        """The inference log and every other file of the installation: what was said stands nowhere."""
        log = self.place.folder / ".portcullis" / "logs" / "inference.jsonl"
        line = _wait_for_line(log)
        marks = {
            "the e-mail": self.cast.secret_email, "the card number": self.cast.secret_card, "the prompt": "Summarise",
            "the answer": self.answer.strip()[:24], "the answer's e-mail": "desk@example.net",
        }  # fmt: skip
        written = [self.place.folder / "up.log", *(self.place.folder / ".portcullis").rglob("*")]
        for what, mark in marks.items():
            for path in written:
                self._must(not (mark and path.is_file() and mark.encode() in path.read_bytes()), "the log", what, path)
        self._say(
            "the log of that call",
            "logs/inference.jsonl",
            "clean",
            f"no e-mail, no card number, no content, here or in {len(written) - 1} other files: {line[:240]}",
        )

    def _withdrawal(self) -> None:
        dataset, _, version = self.cast.dataset.partition("@")
        opening = ("weights", "open", "sealed", "opened", "--model", self.cast.model)
        opened = self.place.run(*opening)
        self._must(opened.status == 0, "the key", "portcullis " + shlex.join(opening), opened)
        pairs = [(self.place.folder / name / "model.safetensors").read_bytes() for name in ("weights", "opened")]
        self._must(pairs[0] == pairs[1], "the weights", "portcullis " + shlex.join(opening), "they are not what was sealed")
        self._say(
            "the weights opened by an operator", "portcullis " + shlex.join(opening), "key released",
            f"{len(pairs[1]):,} bytes, the same as before they were sealed", _rule(opened.said),
        )  # fmt: skip
        self._http(
            "the consent is withdrawn", "denied from now on: {models[0]}; admitted before: {deployments[0][environment]}/{deployments[0][workload]}",
            "POST", f"/datasets/{dataset}/{version}/withdraw", {"reason": "the people in it asked for it"},
        )  # fmt: skip
        self._admit("4-good", "admission/approved-model", "consent is withdrawn")
        self._ask("the caller with the right", self.callers["with a right"], 403, "consent is withdrawn")
        again = ("weights", "open", "sealed", "opened-again", "--model", self.cast.model)
        done = self.place.run(*again)
        self._must(done.status == 1, "the key", "portcullis " + shlex.join(again), done)
        self._say("the weights again", "portcullis " + shlex.join(again), "denied", str(_message(done.said)), _rule(done.said))

    def _evidence(self) -> None:
        folder = self.place.folder
        for form in ("json", "html"):
            done = self.place.run("report", "--framework", FRAMEWORK, "--format", form, "-o", f"report.{form}")
            self._must(done.status == 0, "the report", "portcullis report", done)
        finding = _finding(yaml.safe_load((folder / "report.json").read_text(encoding="utf-8")), self.cast.dataset)
        self._must(bool(finding), "the report", "report.json", "no finding about the withdrawn dataset")
        self._say("a report for an auditor", f"portcullis report --framework {FRAMEWORK} -o report.html", "written", finding)
        self._command("everything packed", "exported", "{records} records", "evidence", "export", "evidence.zip")
        away = folder / "auditor"
        away.mkdir()
        (away / "evidence.zip").write_bytes((folder / "evidence.zip").read_bytes())
        key = str(folder / ".portcullis" / "evidence" / "keys" / "log.pub")
        verify = ("evidence", "verify", "evidence.zip", "--key", key)
        self._command("the auditor verifies offline, the key pinned", "verified", "{summary}", *verify, folder=away)
        replayed = self.place.run("evidence", "replay", "evidence.zip", folder=away)
        verdicts = [item["verdict"] for item in replayed.said["items"]]
        self._must(replayed.status == 0 and set(verdicts) == {"equal"}, "replay", "portcullis evidence replay", replayed)
        self._say(
            "and recomputes every decision", "portcullis evidence replay evidence.zip", "equal", f"{len(verdicts)} decisions"
        )
        flip(away / "evidence.zip")
        broken = self.place.run(*verify, folder=away)
        self._must(broken.status == 1, "one byte flipped", "portcullis evidence verify", broken)
        self._say("one byte of a record flipped", "portcullis " + shlex.join(verify), "NOT VERIFIED", _message(broken.said))


def first_model(url: str) -> str:
    """The first model that an OpenAI-compatible server offers. Broken when it offers none."""
    from cli.demo.place import call

    answer = call("GET", url.rstrip("/") + "/v1/models")
    models = answer.body.get("data") if isinstance(answer.body, dict) else None
    if answer.status != 200 or not models:
        raise Broken("offers no model at /v1/models", where=url)
    return str(models[0]["id"])


def flip(package: Path) -> None:
    """Changes one byte of `records.jsonl` inside the zip and writes the zip anew, so that only Portcullis can notice."""
    with zipfile.ZipFile(package) as archive:
        content = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(package, "w") as archive:
        for info, data in content.items():
            at = len(data) // 2
            archive.writestr(
                info, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if info.filename == "records.jsonl" else data
            )


def _wait_for_line(log: Path) -> str:
    """The log's first line: it is written after the answer went out, so it may take a moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if log.exists() and (text := log.read_text(encoding="utf-8")).endswith("\n"):
            return text.splitlines()[-1]
        time.sleep(0.05)
    raise Broken("the call never appeared in the inference log", where=str(log))


def _finding(report: dict[str, Any], dataset: str) -> str:
    return next((finding for finding in report["findings"] if dataset in finding or "withdrawn" in finding), "")


def _rule(said: Any) -> str:
    """The rule that decided, from the decision that a command printed: of a denial the first against, else the one that granted."""
    decision = said.get("decision", said)
    against = [item["rule"] for item in decision["violations"]]
    return str(against[0] if against else decision["grants"][0].partition(":")[0])


def _message(said: Any) -> str:
    if isinstance(said, dict) and "error" in said:
        return str(said["error"]["message"])
    violations = said.get("violations", []) if isinstance(said, dict) else []
    return "; ".join(item["message"] for item in violations) or str(said)[:300]
