"""The story's folder, its running services, and the two ways in which a user reaches Portcullis: commands and HTTP."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.parent import bound
from core.errors import Conflict, Unavailable

MARK = ".portcullis-demo"
START_SECONDS = 60
ANSWER_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed as JSON, and its exit status."""

    status: int
    said: Any
    stderr: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its status, headers, JSON body (or text), and the pieces of a stream with their arrival in seconds."""

    status: int
    headers: dict[str, str]
    body: Any
    pieces: tuple[tuple[float, str], ...] = ()


@dataclass
class Place:
    folder: Path
    ports: dict[str, int]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    token: str = ""

    # --- commands ----------------------------------------------------------------------------------------------------

    def run(self, *arguments: str, folder: Path | None = None) -> Done:
        """`portcullis ARGUMENTS --json` as a process of its own. Unavailable when it does not answer in JSON."""
        done = subprocess.run(
            [*program(), *arguments, "--json"],
            cwd=folder or self.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            said = json.loads(done.stdout) if done.stdout.strip() else None
        except ValueError as error:
            raise Unavailable(f"printed no JSON: {done.stdout[:300]}{done.stderr[:300]}", where=" ".join(arguments)) from error
        return Done(done.returncode, said, done.stderr)

    # --- services ----------------------------------------------------------------------------------------------------

    def start_upstream(self, model: str) -> str:
        """The OpenAI-shaped server of `cli.demo.upstream`; its address."""
        command = [sys.executable, "-P", "-m", "cli.demo.upstream", str(self.ports["upstream"]), model]
        self.processes.append(subprocess.Popen(command, env=_environment(), text=True))
        url = f"http://127.0.0.1:{self.ports['upstream']}"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if call("GET", url + "/v1/models").status == 200:
                    return url
            except Unavailable:
                if self.processes[-1].poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def start_services(self) -> None:
        """`portcullis up`, until it says that everything is ready. Unavailable, with what it said, when that does not come."""
        ports = [
            item
            for name in ("gateway", "admission", "api", "gateway-metrics", "admission-metrics")
            for item in (f"--{name}-port", str(self.ports[name]))
        ]
        log = (self.folder / "up.log").open("w", encoding="utf-8")
        process = subprocess.Popen(
            [*program(), "up", *ports, "--json"],
            cwd=self.folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        self.processes.append(process)
        events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read_events, args=(process, events), daemon=True).start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                event = events.get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                event = None
            if event is None:
                said = (self.folder / "up.log").read_text(encoding="utf-8")
                raise Unavailable(f"the services did not become ready: {said[-600:]}", where="portcullis up")
            if event["event"] == "token":
                self.token = event["token"]
            if event["event"] == "up":
                return

    def stop(self) -> None:
        """Ends what was started, the services first."""
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    # --- HTTP --------------------------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None) -> Answer:
        """The management API, as the administrator."""
        return call(method, f"http://127.0.0.1:{self.ports['api']}/api/v1{path}", body, token=self.token)

    def admit(self, uid: str, manifest: Any) -> Answer:
        """What the API server sends when somebody applies `manifest`."""
        return call(
            "POST", f"https://127.0.0.1:{self.ports['admission']}/validate", review(uid, manifest),
            trust=self.folder / ".portcullis" / "keys" / "admission-tls" / "ca.crt",
        )  # fmt: skip

    def chat(self, token: str | None, model: str, prompt: str, purpose: str, *, stream: bool = False) -> Answer:
        """One call through the gateway."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream}
        url = f"http://127.0.0.1:{self.ports['gateway']}/v1/chat/completions"
        return call("POST", url, body, token=token, headers={"x-portcullis-purpose": purpose})


def program() -> list[str]:
    """The `portcullis` of this environment."""
    return [sys.executable, "-P", "-m", "cli.main"]


def prepare(folder: Path) -> Place:
    """An empty story folder. What a demo made before is replaced; Conflict where somebody else's files are."""
    if folder.exists():
        if not (folder / MARK).exists() and any(folder.iterdir()):
            raise Conflict("holds files that no demo made; name another folder with --output", where=str(folder))
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("made by portcullis demo; replaced by the next one\n", encoding="utf-8")
    names = ("gateway", "admission", "api", "gateway-metrics", "admission-metrics", "upstream")
    return Place(folder.resolve(), dict(zip(names, free_ports(len(names)), strict=True)))


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def review(uid: str, manifest: Any) -> dict[str, Any]:
    """The AdmissionReview of a create of a Deployment."""
    metadata = manifest["metadata"]
    request = {
        "uid": uid,
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "operation": "CREATE",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "userInfo": {"username": f"ci@{metadata['namespace']}"},
        "object": manifest,
        "oldObject": None,
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def call(
    method: str,
    url: str,
    body: Any = None,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    trust: Path | None = None,
) -> Answer:
    """One HTTP request. Unavailable when nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"content-type": "application/json", **(headers or {}), **({"authorization": f"Bearer {token}"} if token else {})}
    context = ssl.create_default_context(cafile=str(trust)) if trust else None
    request = urllib.request.Request(url, data, sent, method=method)  # noqa: S310  (loopback addresses of our own making)
    started = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context) as response:  # noqa: S310
            return _answer(response, started)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error, started)
    except OSError as error:
        raise Unavailable(f"does not answer: {getattr(error, 'reason', error)}", where=url) from error


def _answer(response: Any, started: float) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if headers.get("content-type", "").startswith("text/event-stream"):
        pieces = []
        for line in response:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                text = (choices[0]["delta"].get("content") or "") if choices else ""
                pieces.append((time.monotonic() - started, text))
        return Answer(response.status, headers, "".join(text for _, text in pieces), tuple(pieces))
    data = response.read()
    try:
        return Answer(response.status, headers, json.loads(data))
    except ValueError:
        return Answer(response.status, headers, data.decode("utf-8", "replace"))


def _read_events(process: subprocess.Popen[str], events: queue.Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None  # noqa: S101  (it was asked for)
    for line in process.stdout:
        events.put(json.loads(line))
    events.put(None)


def _environment() -> dict[str, str]:
    """This process's, without settings that would change the story's own; what is started ends with us, however we end."""
    return bound({name: value for name, value in os.environ.items() if not name.startswith("PORTCULLIS_")})
