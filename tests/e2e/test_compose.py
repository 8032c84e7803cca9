"""docker-compose.yml and the Containerfile, as far as a machine without a container engine can hold them to their word:
each service is started as a process with exactly the command, environment and health check of the file."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core import yamlread
from tests.conftest import ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = sorted(name for name, service in COMPOSE["services"].items() if service["image"].startswith("portcullis"))
CONTAINERFILE = (ROOT / "Containerfile").read_text()


def copies() -> list[tuple[str, str]]:
    """(source, target) of every COPY from the build context."""
    return [(found[1], found[2]) for found in re.finditer(r"^COPY (?!--from)(\S+) (\S+)$", CONTAINERFILE, re.MULTILINE)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image holds at /opt/portcullis, laid out by the Containerfile's own COPY lines."""
    root = tmp_path_factory.mktemp("image")
    for source, target in copies():
        place = root / target.lstrip("/")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        elif target.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
    return root / "opt" / "portcullis"


def test_the_image_has_all_that_runs_and_nothing_else(image: Path, tmp_path: Path) -> None:
    entry = yaml.safe_load(re.findall(r"^ENTRYPOINT (.*)$", CONTAINERFILE, re.MULTILINE)[0])
    assert entry == ["python", "-P", "-m", "cli.main"]
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import cli.main, evidence.report, redaction; print(cli.main.__file__)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(image)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(image))
    assert {path.name for path in image.iterdir()} == set(copies_of_rooms()) | {"LICENSE"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {f"!{source}" for source, _ in copies()} <= set(ignored), "what is copied must not be ignored"
    assert "USER 65532:65532" in CONTAINERFILE


def copies_of_rooms() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text()
    return re.findall(r'"(\w+)"', re.search(r"root_packages = \[(.*?)\]", text, re.DOTALL)[1])  # type: ignore[index]


def test_the_file_is_strict_yaml_and_safe() -> None:
    yamlread.load((ROOT / "deploy" / "compose" / "portcullis.yaml").read_bytes(), where="portcullis.yaml")
    assert OURS == ["admission", "api", "gateway", "sequencer"]
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["user"] == "65532:65532"
        assert service["security_opt"] == ["no-new-privileges:true"]
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "only this machine reaches them"
        assert not re.search(r"(?i)password: |secret: ", yaml.safe_dump(service.get("environment", {})))
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
    named = {secret for service in COMPOSE["services"].values() for secret in service.get("secrets", [])}
    assert named == COMPOSE["secrets"].keys()
    assert "deploy/compose/secrets/" in (ROOT / ".gitignore").read_text()


def test_the_secrets_script_makes_what_the_file_reads(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "compose-secrets", tmp_path / "scripts")
    for said in ("made", "nothing was changed"):
        done = subprocess.run([tmp_path / "scripts" / "compose-secrets"], capture_output=True, text=True, check=True)
        assert said in done.stdout
    for secret in COMPOSE["secrets"].values():
        assert len((tmp_path / secret["file"]).read_text()) > 32
    password, url = ((tmp_path / COMPOSE["secrets"][f"database-{name}"]["file"]).read_text() for name in ("password", "url"))
    assert url == f"postgresql+asyncpg://portcullis:{password}@postgres:5432/portcullis"


class Mapped:
    """The file's paths on this machine: its volumes and secrets are folders of the test."""

    def __init__(self, folder: Path, image: Path, database: str) -> None:
        (folder / "url").write_text(database)
        self.places = {
            "/etc/portcullis": str(ROOT / "deploy" / "compose"),
            "/var/lib/portcullis": str(folder / "state"),
            "/run/secrets/database-url": str(folder / "url"),
        }
        self.image = image

    def text(self, value: str) -> str:
        for there, here in self.places.items():
            value = value.replace(there, here)
        return value

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PORTCULLIS_")}
        return plain | {"PYTHONPATH": str(self.image)} | {n: self.text(v) for n, v in service["environment"].items()}


@pytest.fixture
def mapped(tmp_path: Path, image: Path, postgres_url: str) -> Mapped:
    return Mapped(tmp_path, image, postgres_url)


@pytest.fixture
def free(request: pytest.FixtureRequest) -> None:
    """The ports that the service's commands use."""
    for port in COMPOSE["services"][request.getfixturevalue("name")].get("ports", []):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", int(port.split(":")[1]))) == 0:
                pytest.skip(f"something listens on port {port.split(':')[1]}; stop it to test the compose file's commands")


@pytest.fixture
def started(mapped: Mapped, name: str, free: None, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    service = COMPOSE["services"][name]
    command = [sys.executable, "-P", "-m", "cli.main", *service["command"]]
    config = tmp_path / "config"
    config.mkdir()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=mapped.environment(service) | {"PORTCULLIS_CONFIG": str(settings(mapped, tmp_path))},
            cwd=mapped.text(service["working_dir"]), stdout=log, stderr=log,
        )  # fmt: skip
    yield process
    process.kill()
    process.wait()


def settings(mapped: Mapped, folder: Path) -> Path:
    """The file's own settings, with the paths inside them mapped as well."""
    text = (ROOT / "deploy" / "compose" / "portcullis.yaml").read_text()
    (folder / "portcullis.yaml").write_text(mapped.text(text))
    return folder / "portcullis.yaml"


@pytest.mark.e2e
@pytest.mark.parametrize("name", OURS)
def test_each_service_starts_answers_its_health_check_and_stops(
    name: str, started: subprocess.Popen[bytes], mapped: Mapped, tmp_path: Path
) -> None:
    service = COMPOSE["services"][name]
    deadline = time.monotonic() + 60
    while not healthy(service, mapped, tmp_path):
        assert started.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=45) == 0, (tmp_path / "log").read_text()


def healthy(service: dict[str, Any], mapped: Mapped, folder: Path) -> bool:
    """The file's health check, run; a service without one is healthy once it says that it works."""
    if "healthcheck" not in service:
        return "integrating" in (folder / "log").read_text()
    kind, program, *rest = service["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    done = subprocess.run([sys.executable, *map(mapped.text, rest)], capture_output=True, check=False, timeout=30)
    return done.returncode == 0
