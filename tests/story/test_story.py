"""The story through the programs a user starts: register, approve, admit, call, withdraw, and everything is denied."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.conftest import ROOT

PROGRAM = Path(sys.executable).with_name("portcullis")
DIGEST = "sha256:" + "7" * 64
CANARY = "write to jane.roe@example.org"
CARD = dict.fromkeys(("title", "limitations", "training_data", "evaluation", "contact", "risk_class"), "said")


class Upstream(BaseHTTPRequestHandler):
    """Answers as an OpenAI-compatible server does."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("connection", "close")
        if body.get("stream"):
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for word in ("Hel", "lo"):
                chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
                chunk["choices"] = [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            answer: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
            answer["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


class Place:
    """A folder with its own settings, and the commands run in it."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        settings = {
            "tenant": "acme",
            "config": ["config/"],
            "gateway": {"upstreams": [{"name": "a", "url": upstream, "models": [{"served": "llama", "model": "llama-3@7"}]}]},
        }
        config = {
            "tenants": {
                "acme": {
                    "images": [{"registry": "registry.acme.example", "repository": "ml"}],
                    "teams": {"vision": {"namespaces": ["vision"], "gpu_quota": 4, "requests_per_minute": 6}},
                }
            },
            "grants": [{"id": "g", "tenant": "acme", "domain": "gateway", "model": "llama-3", "teams": ["vision"]}],
        }
        config["tenants"]["acme"]["teams"]["search"] = {"namespaces": ["search"], "gpu_quota": 1}
        (folder / "config").mkdir()
        (folder / "portcullis.yaml").write_text(yaml.safe_dump(settings))
        (folder / "config" / "acme.yaml").write_text(yaml.safe_dump(config))
        (folder / "card.yaml").write_text(yaml.safe_dump(CARD | {"intended_purposes": ["search"]}))

    def run(self, *arguments: str, status: int = 0) -> Any:
        done = subprocess.run([PROGRAM, *arguments, "--json"], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)

    def up(self, **ports: int) -> str:
        """Starts every service with one command; the admin token that it prints."""
        options = [item for name, port in ports.items() for item in (f"--{name.replace('_', '-')}-port", str(port))]
        with (self.folder / "up.log").open("wb") as log:
            command = [PROGRAM, "up", "--json", *options]
            process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=log)
        self.running.append(process)
        token = ""
        for line in process.stdout or ():
            event = json.loads(line)
            token = event.get("token", token)
            if event["event"] == "up":
                return str(token)
        raise AssertionError((self.folder / "up.log").read_text())

    def stop(self) -> list[bytes]:
        for process in self.running:
            process.terminate()
        said = [process.communicate(timeout=40)[0] for process in self.running]
        assert [process.returncode for process in self.running] == [0] * len(said)
        self.running.clear()
        return [*said, (self.folder / "up.log").read_bytes()]


@pytest.fixture
def place(tmp_path: Path, upstream: str) -> Iterator[Place]:
    made = Place(tmp_path, upstream)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def deployment(replicas: int, *, image: str = "registry.acme.example/ml/serve:1", weights: str = f"sealed://m@{DIGEST}") -> Any:
    annotations = {"portcullis.dev/model": "llama-3@7", "portcullis.dev/weights": weights}
    container = {"name": "serve", "image": image, "resources": {"limits": {"nvidia.com/gpu": 1}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": "vision"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "chat"}},
            "template": {
                "metadata": {"annotations": annotations, "labels": {"app": "chat"}},
                "spec": {"containers": [container]},
            },
        },
    }


def admit(port: int, uid: str, body: Any) -> Any:
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "operation": "CREATE",
            "namespace": "vision",
            "name": "chat",
            "userInfo": {"username": "jane"},
            "object": body,
            "oldObject": None,
            "dryRun": False,
        },
    }
    request = urllib.request.Request(
        f"https://127.0.0.1:{port}/validate", json.dumps(review).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10, context=ssl._create_unverified_context()) as response:
        return json.load(response)["response"]


def status_of(url: str, token: str | None, path: str = "/v1/chat/completions") -> int:
    headers = {"content-type": "application/json", "x-portcullis-purpose": "search"} | (
        {"authorization": f"Bearer {token}"} if token else {}
    )
    body = json.dumps({"model": "llama", "messages": [{"role": "user", "content": "hi"}]}).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, None if "api" in path else body, headers), timeout=10
        ) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_story(place: Place) -> None:
    for name in ("ann", "bob"):
        place.run("identity", "keygen", f"{name}.pem")
        place.run("identity", "approver", "add", name, f"{name}.pem.pub")
    place.run("dataset", "register", "web@1", "--origin", "crawl", "--basis", "given", "--licence", "CC-BY-4.0")
    place.run("model", "register", "llama-3@7", "--dataset", "web@1", "--manifest", DIGEST)
    place.run("model", "card", "llama-3@7", "-f", "card.yaml")
    place.run("model", "approve", "llama-3@7", "--key", "ann.pem")
    again = place.run("model", "approve", "llama-3@7", "--key", "ann.pem", status=1)
    assert "already" in again["error"]["message"]
    allowed = place.run("key", "create", "app", "--team", "vision")["token"]
    other = place.run("key", "create", "other", "--team", "search")["token"]

    gateway, admission, api, *metrics = ports(5)
    token = place.up(gateway=gateway, admission=admission, api=api, gateway_metrics=metrics[0], admission_metrics=metrics[1])
    url = f"http://127.0.0.1:{gateway}"
    assert status_of(f"http://127.0.0.1:{api}", token, "/api/v1/whoami") == 200
    assert "another portcullis up" in place.run("up", status=2)["error"]["message"]

    # One approval is not enough, at either door; a second person's is.
    assert not admit(admission, "u0", deployment(2))["allowed"]
    assert status_of(url, allowed) == 403
    place.run("model", "approve", "llama-3@7", "--key", "bob.pem")

    for uid, body, rule in (
        ("u1", deployment(5), "admission/gpu-quota"),
        ("u2", deployment(2, image="docker.io/library/nginx"), "admission/approved-images"),
        ("u3", deployment(2, weights="s3://bucket/llama"), "admission/encrypted-weights"),
    ):
        answer = admit(admission, uid, body)
        assert not answer["allowed"]
        assert rule in answer["status"]["message"]
    assert admit(admission, "u4", deployment(2))["allowed"]
    assert place.run("quota", "show", "vision") == [{"team": "vision", "used_shares": 2 * 20_160, "limit_shares": 4 * 20_160}]

    assert status_of(url, None) == 401
    assert status_of(url, "pcl_nobody") == 401
    assert status_of(url, other) == 403
    client = openai.OpenAI(
        api_key=allowed, base_url=url + "/v1", max_retries=0, default_headers={"X-Portcullis-Purpose": "search"}
    )
    ask: Any = {"model": "llama", "messages": [{"role": "user", "content": CANARY}]}
    assert client.chat.completions.create(**ask).choices[0].message.content == "Hello"
    with client.chat.completions.create(**ask, stream=True) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello"
    assert [model.id for model in client.models.list()] == ["llama"]

    place.run("dataset", "withdraw", "web@1", "-m", "asked to")
    denied = admit(admission, "u5", deployment(1))
    assert "consent is withdrawn" in denied["status"]["message"]
    with pytest.raises(openai.PermissionDeniedError, match="consent is withdrawn"):
        client.chat.completions.create(**ask)
    statuses = [status_of(url, allowed) for _ in range(7)]
    assert 429 in statuses
    client.close()

    said = place.stop()
    place.run("evidence", "sequence", "--once")
    assert no_content_anywhere(place.folder, said, allowed, token)
    prove_it(place)


def prove_it(place: Place) -> None:
    """Evidence leaves the house: verified with the pinned key only, recomputed from the package alone, broken by one byte."""
    place.run("evidence", "export", "package.zip")
    key = place.folder / ".portcullis" / "evidence" / "keys" / "log.pub"
    away = place.folder / "away"
    away.mkdir()
    (away / "package.zip").write_bytes((place.folder / "package.zip").read_bytes())
    elsewhere = Place.__new__(Place)
    elsewhere.folder, elsewhere.running = away, []
    assert elsewhere.run("evidence", "verify", "package.zip", "--key", str(key))["verified"]
    assert not elsewhere.run("evidence", "verify", "package.zip", status=1)["pinned"], "a package's own key proves nothing"
    replayed = elsewhere.run("evidence", "replay", "package.zip")
    verdicts = [item["verdict"] for item in replayed["items"]]
    assert verdicts.count("equal") > 10
    assert "different" not in verdicts
    changed = bytearray((away / "package.zip").read_bytes())
    changed[len(changed) // 2] ^= 1
    (away / "package.zip").write_bytes(bytes(changed))
    assert "NOT VERIFIED" in elsewhere.run("evidence", "verify", "package.zip", "--key", str(key), status=1)["error"]["message"]
    rows = place.run("report", "--framework", "eu-ai-act", "-o", "report.html")["rows"]
    assert {row["status"] for row in rows} <= {"evidenced", "not evidenced", "organisational", "not applicable"}
    assert "compliant" not in (place.folder / "report.html").read_text()


def no_content_anywhere(folder: Path, said: list[bytes], *tokens: str) -> bool:
    """Nothing that was said, and no secret, lies in any file of the installation or was printed."""
    marks = [CANARY.encode(), b"jane.roe", *(token[len("pcl_XXXXXXXXXXXX_") :].encode() for token in tokens)]
    for base, _, names in os.walk(folder / ".portcullis"):
        for name in names:
            data = (Path(base) / name).read_bytes()
            assert not any(mark in data for mark in marks), name
    assert not any(mark in line for mark in marks for line in said)
    return (folder / ".portcullis" / "logs" / "inference.jsonl").exists() and (ROOT / "README.md").exists()
