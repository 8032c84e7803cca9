"""`portcullis up` as a process, with small stand-ins for the services: the key shown once, one per folder, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from admission.certificates import ensure
from cli.main import run
from cli.up import SAID, _said
from tests.conftest import ROOT

UP = """
import sys
import cli.up
from cli.main import run
cli.up.PROGRAM = (sys.executable, "stand-in.py")
run(sys.argv[1:])
"""

STAND_IN = """
import http.server, json, os, signal, ssl, sys
from cli.parent import follow
follow(os.environ)
with open("children.jsonl", "a") as file:
    file.write(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:]}) + "\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if os.path.exists("refuse") and "api" in sys.argv:
    sys.exit(print("portcullis: portcullis.yaml: api: no such key", file=sys.stderr) or 2)
if "evidence" in sys.argv:
    while True:
        signal.pause()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
option = "--metrics-port" if "gateway" in sys.argv else "--port"
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index(option) + 1])), Handler)
if "admission" in sys.argv:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("tls.crt", "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
SERVICES = ["admission", "api", "evidence", "gateway"]


def ports() -> dict[str, int]:
    sockets = [socket.socket() for _ in range(5)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    names = ("--gateway-port", "--admission-port", "--api-port", "--gateway-metrics-port", "--admission-metrics-port")
    return dict(zip(names, found, strict=True))


def flat(options: dict[str, int]) -> list[str]:
    return [text for option, port in options.items() for text in (option, str(port))]


class Folder:
    """Where `up` runs with stand-ins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started: list[subprocess.Popen[str]] = []
        (path / "stand-in.py").write_text(STAND_IN)
        files = ensure(path / "tls", [], now_unix=int(time.time()))
        (path / "tls.crt").write_bytes(files.cert.read_bytes())
        (path / "tls.key").write_bytes(files.key.read_bytes())

    def up(
        self, *arguments: str, shell: str = "", program: str = UP, stderr: IO[str] | int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """`shell` is a script that puts stdout where it should be and then becomes {command}."""
        command = [sys.executable, "-c", program, "--json", *arguments, "up", *flat(ports())]
        if shell:
            command = ["bash", "-c", shell.format(command=shlex.join(command))]
        process = subprocess.Popen(
            command, cwd=self.path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE, stderr=stderr
        )
        self.started.append(process)
        return process

    def children(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "children.jsonl").read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def until_up(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    events = []
    for line in process.stdout or ():
        events.append(json.loads(line))
        if events[-1].get("event") == "up":
            return events
    raise AssertionError((events, process.communicate()))


def gone(pid: int) -> bool:
    """Nothing with this number runs; a zombie that nobody has reaped yet is gone."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def test_the_key_is_shown_once_and_the_folder_has_one_up_at_a_time(folder: Folder) -> None:
    first = folder.up("--state", "kept", "--verbose")
    events = until_up(first)
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("token", "up")
    assert (names.count("started"), names.count("ready")) == (4, 4)
    token = events[0]["token"]

    assert sorted(child["arguments"][3] for child in folder.children()) == SERVICES
    assert all(child["arguments"][:3] == ["--state", "kept", "--verbose"] for child in folder.children())
    assert not any(token in text for child in folder.children() for text in child["arguments"]), "others see arguments"

    second = folder.up("--state", "kept")
    out, _ = second.communicate(timeout=60)
    assert (second.returncode, json.loads(out)["error"]["code"]) == (2, "conflict")

    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert json.loads(out.splitlines()[-1]) == {"event": "stopped"}
    assert token not in out + err
    assert all(gone(child["pid"]) for child in folder.children())

    again = folder.up("--state", "kept")
    assert "token" not in {event["event"] for event in until_up(again)}
    again.send_signal(signal.SIGINT)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "portcullis key create" in err, "it says how to have another key"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_killed_it_leaves_no_child_and_no_lock(folder: Folder) -> None:
    first = folder.up()
    until_up(first)
    first.kill()
    first.communicate()
    deadline = time.monotonic() + 20
    while not all(gone(child["pid"]) for child in folder.children()):
        assert time.monotonic() < deadline, "a service outlived the command that started it"
        time.sleep(0.01)
    until_up(folder.up())


def until_all_run(folder: Folder) -> None:
    deadline = time.monotonic() + 60
    while not (folder.path / "children.jsonl").exists() or len(folder.children()) < len(SERVICES):
        assert folder.started[-1].poll() is None, folder.started[-1].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def revoked(folder: Folder) -> list[bool]:
    """Of every key that there is, whether it was revoked."""
    listing = [sys.executable, "-m", "cli.main", "key", "list", "--json"]
    done = subprocess.run(listing, cwd=folder.path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    return [key["state"] == "revoked" for key in json.loads(done.stdout)]


NO_READER = {
    "a reader that went away": "exec 3> >(:); wait $!; exec {command} >&3",
    "a full disk": "exec {command} > /dev/full",
    "closed": "exec {command} >&-",
}


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("name", NO_READER)
def test_a_key_that_nobody_could_read_is_revoked_and_the_services_run(name: str, as_json: bool, folder: Folder) -> None:
    program = UP if as_json else UP.replace("sys.argv[1:]", "[item for item in sys.argv[1:] if item != '--json']")
    with (folder.path / "stderr").open("w") as stderr:
        process = folder.up(shell=NO_READER[name], program=program, stderr=stderr)
        until_all_run(folder)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    said = (folder.path / "stderr").read_text()
    assert process.returncode == 0, said
    assert "could not be written to stdout and is revoked; make one with: portcullis key create" in said
    assert "Traceback" not in said
    assert revoked(folder) == [True]
    assert "token" in {event["event"] for event in until_up(folder.up())}, "the next start makes another"


def test_a_reader_that_leaves_after_the_key_ends_nothing(folder: Folder) -> None:
    process = folder.up()
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "token"
    process.stdout.close()
    until_all_run(folder)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(60) == 0, said
    assert "revoked" not in said
    assert revoked(folder) == [False]


def test_a_service_that_cannot_use_its_configuration_ends_all_with_its_words(folder: Folder) -> None:
    (folder.path / "refuse").touch()
    process = folder.up()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2, out
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1] == {
        "error": {"message": "portcullis.yaml: api: no such key", "code": "bad_configuration", "where": "api"}
    }
    assert "restarting" not in {event.get("event") for event in events}
    assert all(gone(child["pid"]) for child in folder.children())


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`up` in an empty folder, which must refuse before it makes anything; its exit status and what it said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            run(["up", *arguments])
        captured = capsys.readouterr()
        assert "admin key" not in captured.out
        assert not list(tmp_path.rglob("*.db")), "nothing is made before it is known that it can run"
        return int(ended.value.code or 0), captured.err

    return call


def test_a_port_that_is_taken_is_said_before_anything_is_made(refused: Any) -> None:
    chosen = ports()
    for option in chosen:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            status, said = refused(*flat(chosen | {option: port}))
        assert status == 3
        assert f"127.0.0.1: port {port} is taken; free it or give another with {option}" in said


def test_a_port_is_given_once(refused: Any) -> None:
    chosen = ports()
    status, said = refused(*flat(chosen | {"--api-port": chosen["--gateway-port"]}))
    assert status == 2
    assert "--gateway-port" in said
    assert "--api-port" in said


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "::ffff:203.0.113.7"])
def test_a_host_is_an_address_of_this_machine(refused: Any, host: str) -> None:
    status, said = refused("--host", host, *flat(ports()))
    assert status == 2
    assert "--host" in said


def test_a_state_folder_that_cannot_be_used_is_said(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, said = refused("--state", "file", *flat(ports()))
    assert status == 3
    assert "the state folder cannot be used" in said


def test_events_read_like_sentences() -> None:
    event = {"service": "api", "pid": 7, "in_seconds": 0.5, "looks": 6, "seconds": 60.0}
    for name in SAID:
        assert "{" not in _said({**event, "event": name})
    assert _said({"event": "exited", "service": "api", "status": 3}) == "api: ended with exit status 3"
    assert _said({"event": "exited", "service": "api", "status": -9}) == "api: ended with signal 9 (Killed)"
