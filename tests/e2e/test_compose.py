"""docker-compose.yml and the Containerfile, as far as a machine without a container engine can hold them to their word:
each service is started as a process with exactly the command, environment, mounts and health check of the file, as the user
of the file where the kernel lets us (a number that no /etc/passwd knows)."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions
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


def test_every_path_of_the_containerfile_is_there() -> None:
    assert len(copies()) + CONTAINERFILE.count("COPY --from=") == len(re.findall(r"^COPY", CONTAINERFILE, re.MULTILINE))
    for source, _ in copies():
        assert (ROOT / source).exists(), source
    installed = re.findall(r"pip install .*--require-hashes -r (\S+)", CONTAINERFILE)
    targets = {target + Path(source).name for source, target in copies() if target.endswith("/")}
    assert installed == ["/build/run.txt"]
    assert set(installed) <= targets, "what is installed from was copied before"
    assert "--hash=sha256:" in (ROOT / "requirements" / "run.txt").read_text()
    bases = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE)
    assert bases == ["python:3.11-slim-bookworm"] * 2, "one interpreter for building and running"


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


IMPORT_ALL = """
import importlib, importlib.abc, pkgutil, sys
absent = set(sys.argv[2].split())
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"the image has no {name}", name=name)
sys.meta_path.insert(0, Absent())
for module in pkgutil.walk_packages([sys.argv[1]]):
    if not module.name.startswith("storage.migrations"):  # alembic runs these itself
        importlib.import_module(module.name)
"""


@pytest.mark.e2e
def test_what_the_image_installs_is_enough(image: Path, tmp_path: Path) -> None:
    """Every module of ours imports where only the packages of requirements/run.txt are."""
    names = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE)
    run = {_normal(name) for name in names}
    absent = {
        package
        for package, owners in packages_distributions().items()
        if package.isidentifier() and not run & {_normal(owner) for owner in owners} and package not in copies_of_rooms()
    }
    assert {"pytest", "hypothesis", "mypy"} <= absent, "what only tests and checks need"
    done = subprocess.run(
        [sys.executable, "-P", "-c", IMPORT_ALL, str(image), " ".join(absent)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(image)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def copies_of_rooms() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text()
    return re.findall(r'"(\w+)"', re.search(r"root_packages = \[(.*?)\]", text, re.DOTALL)[1])  # type: ignore[index]


KEYS = {
    "build", "image", "restart", "init", "user", "read_only", "cap_drop", "security_opt", "tmpfs", "environment", "secrets",
    "volumes", "working_dir", "stop_grace_period", "depends_on", "command", "ports", "healthcheck",
}  # fmt: skip
"""Of the compose specification's keys of a service, those that the file uses: a misspelt one protects nobody."""


def test_the_file_has_known_keys_and_names_what_is_there() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "secrets", "volumes"}
    for service in COMPOSE["services"].values():
        assert service.keys() <= KEYS
        assert service["healthcheck"].keys() <= {"test", "interval", "timeout", "retries", "start_period"}
        assert service["healthcheck"]["test"][0] == "CMD"
        for other, condition in service.get("depends_on", {}).items():
            assert "healthcheck" in COMPOSE["services"][other]
            assert condition == {"condition": "service_healthy"}
        for source, _, _ in mounts(service):
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), source
        assert not any("secrets" in source for source, _, _ in mounts(service)), "secrets come as secrets only"


def mounts(service: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(source, target, whether it can be written to) of every volume, as the short form has it."""
    found = [volume.split(":") for volume in service.get("volumes", [])]
    return [(parts[0], parts[1], parts[2:] != ["ro"]) for parts in found]


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


@pytest.mark.parametrize("root", [True, False])
def test_the_secrets_are_open_to_their_services_and_nobody_else(root: bool) -> None:
    """Those of an earlier version, which were not, are closed too."""
    if root and os.geteuid() != 0:
        pytest.skip("only root can give files to the services' user")
    with tempfile.TemporaryDirectory() as place:  # one that another user can reach
        script = Path(place, "scripts", "compose-secrets")
        script.parent.mkdir()
        shutil.copy(ROOT / "scripts" / "compose-secrets", script)
        as_user = {"user": 65534} if os.geteuid() == 0 and not root else {}
        for path in (Path(place), script.parent, script):
            path.chmod(0o755)
            os.chown(path, as_user.get("user", -1), -1)
        folder = Path(place, "deploy", "compose", "secrets")
        for _ in range(2):
            subprocess.run(["bash", script], check=True, capture_output=True, **as_user)
            password, url = ((folder / name).stat() for name in ("database-password", "database-url"))
            assert folder.stat().st_mode & 0o777 == 0o700, "nobody else gets to what is in it"
            assert password.st_mode & 0o777 == 0o400
            user = int(COMPOSE["services"]["api"]["user"].split(":")[0])
            assert (url.st_mode & 0o777, url.st_uid) == ((0o400, user) if root else (0o444, password.st_uid))
            folder.chmod(0o711)
            (folder / "database-password").chmod(0o444)


class Mapped:
    """The file's places on this machine: mounts are links or folders below `root`, secrets files with this test's database."""

    def __init__(self, root: Path, image: Path, database: str) -> None:
        self.root = root
        self.image = image
        self.settings = root / "etc" / "portcullis" / "portcullis.yaml"
        for service in (COMPOSE["services"][name] for name in OURS):
            for source, target, writable in mounts(service):
                self._mount(ROOT / source, root / target.lstrip("/"), writable)
            for secret in service["secrets"]:
                place = root / "run" / "secrets" / secret
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(database)

    def _mount(self, source: Path, target: Path, writable: bool) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if writable:
            target.mkdir(mode=0o700, exist_ok=True)
        elif source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            target.write_text(self.text(source.read_text()))

    def text(self, value: str) -> str:
        """`value` with every path of the file below `root`."""
        return re.sub(r"/(etc/portcullis|var/lib/portcullis|run/secrets)\b", lambda found: f"{self.root}/{found[1]}", value)

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        """The image's environment and the file's, nothing of ours: no USER, no HOME."""
        stated = re.search(r"^ENV PATH=/opt/venv/bin:\$PATH PYTHONPATH=\S+ (.*)$", CONTAINERFILE, re.MULTILINE)
        assert stated is not None
        image = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.image)} | dict(item.split("=") for item in stated[1].split())
        return image | {name: self.text(value) for name, value in service["environment"].items()}

    def start(self, name: str, user: Sequence[str], command: Sequence[str] | None = None) -> subprocess.Popen[str]:
        """The service's command (or another one in its place), as compose would start it."""
        service = COMPOSE["services"][name]
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                [*user, sys.executable, "-P", "-m", "cli.main", *(command or service["command"])],
                env=self.environment(service), cwd=self.text(service["working_dir"]), text=True, stderr=log,
                stdout=subprocess.PIPE if command else log,
            )  # fmt: skip

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def until_healthy(self, name: str, process: subprocess.Popen[str]) -> None:
        kind, program, *rest = COMPOSE["services"][name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        deadline = time.monotonic() + 90
        while subprocess.run([sys.executable, *map(self.text, rest)], capture_output=True, check=False, timeout=30).returncode:
            assert process.poll() is None, self.log(name).read_text()
            assert time.monotonic() < deadline, self.log(name).read_text()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def user() -> list[str]:
    """Puts a command under the file's user, where this machine has user namespaces; else it runs as whoever runs the tests."""
    number, group = COMPOSE["services"]["api"]["user"].split(":")
    prefix = ["unshare", "--user", f"--map-user={number}", f"--map-group={group}", "--"]
    try:
        possible = subprocess.run([*prefix, "id", "-u"], capture_output=True, text=True, check=False).stdout.strip() == number
    except FileNotFoundError:
        possible = False
    return prefix if possible else []


@pytest.fixture
def ports() -> Iterator[None]:
    """The ports of the file, for one test run on this machine at a time."""
    with (Path(tempfile.gettempdir()) / "portcullis-compose-ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for port in (int(port.split(":")[1]) for name in OURS for port in COMPOSE["services"][name].get("ports", [])):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    pytest.fail(f"something listens on port {port}, which docker-compose.yml names; stop it and run this again")
        yield


@pytest.fixture
def mapped(tmp_path: Path, image: Path, postgres_url: str) -> Mapped:
    return Mapped(tmp_path, image, postgres_url)


@pytest.fixture
def started() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Where tests put what they start, so that it ends with them."""
    processes: dict[str, subprocess.Popen[str]] = {}
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.e2e
@pytest.mark.parametrize("name", OURS)
def test_each_service_starts_answers_its_health_check_and_stops(
    name: str, ports: None, mapped: Mapped, user: list[str], started: dict[str, subprocess.Popen[str]]
) -> None:
    started[name] = mapped.start(name, user)
    mapped.until_healthy(name, started[name])
    stop(mapped, started)


def stop(mapped: Mapped, started: dict[str, subprocess.Popen[str]]) -> None:
    for process in started.values():
        process.send_signal(signal.SIGTERM)
    for name, process in started.items():
        assert process.wait(timeout=45) == 0, mapped.log(name).read_text()
    only = {"portcullis.yaml", "config"}
    assert {path.name for path in (mapped.root / "etc" / "portcullis").iterdir()} == only, "read-only: nothing appears there"


@pytest.mark.e2e
def test_all_start_at_once_on_nothing_and_the_command_of_the_file_makes_the_first_key(
    ports: None, mapped: Mapped, user: list[str], started: dict[str, subprocess.Popen[str]]
) -> None:
    """Four services meet an empty database and an empty volume in the same moment, as `docker compose up` has them do."""
    for name in OURS:
        started[name] = mapped.start(name, user)
    for name in OURS:
        mapped.until_healthy(name, started[name])
    said = re.findall(r"docker compose run --rm api (key create .*?) +#", (ROOT / "docker-compose.yml").read_text())
    making = mapped.start("api", user, [*said[0].split(), "--json"])
    out, _ = making.communicate(timeout=60)
    assert making.returncode == 0, mapped.log("api").read_text()
    token = json.loads(out)["token"]
    for url in ("http://127.0.0.1:8090/api/v1/whoami", "http://127.0.0.1:8080/v1/models"):
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200
    with urllib.request.urlopen(f"https://127.0.0.1:{8443}/healthz", context=_ca(mapped), timeout=10) as response:
        assert response.status == 200
    stop(mapped, started)
    assert token not in "".join(mapped.log(name).read_text() for name in OURS)


def _ca(mapped: Mapped) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=mapped.text("/var/lib/portcullis/keys/admission-tls/ca.crt"))
