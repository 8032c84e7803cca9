"""Programs that end with the one that started them: real processes, killed for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import serving
from cli.parent import VARIABLE, bound, follow
from core.errors import ConfigError
from tests.conftest import ROOT

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")


def python(program: str, folder: Path, environ: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until_gone(pid: int) -> None:
    """A zombie that nobody has reaped yet is gone."""
    deadline = time.monotonic() + 20
    try:
        while "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < deadline, "it outlived the process that started it"
            time.sleep(0.01)
    except FileNotFoundError:
        return


def test_the_name_is_not_inherited_further() -> None:
    environ = {"PATH": "/bin"}
    assert bound(environ) == {"PATH": "/bin", VARIABLE: str(os.getpid())}
    follow(environ)
    assert environ == {"PATH": "/bin"}, "nobody is named: nobody is followed"
    done = python(
        f"import os; from cli.parent import follow; follow(os.environ); print({VARIABLE!r} in os.environ)", ROOT, bound({})
    )
    assert done.communicate()[0] == "False\n"


@pytest.mark.parametrize("named", ["", "-1", "x", "1.0", "١"])
def test_what_is_no_process_number_is_said(named: str) -> None:
    with pytest.raises(ConfigError, match="not a process number"):
        follow({VARIABLE: named})


@linux
def test_a_command_whose_parent_is_gone_does_nothing(tmp_path: Path) -> None:
    """Whoever is named is not the parent: it ended before the command could ask to end with it."""
    command = [sys.executable, "-m", "cli.main", "init", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), VARIABLE: "1"}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["error"]["where"]) == (3, VARIABLE)
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_command_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    parent = python(
        "import os, subprocess, sys; from cli.parent import bound\n"
        "subprocess.run([sys.executable, '-m', 'cli.main', 'evidence', 'sequence', '--verbose'], env=bound(os.environ))",
        tmp_path,
    )
    lease = tmp_path / ".portcullis" / "evidence" / "lease"
    deadline = time.monotonic() + 30
    while not lease.exists():
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    (child,) = children.read_text().split()
    parent.kill()
    parent.communicate()
    until_gone(int(child))


STORY = """
import signal, sys
import cli.demo.command
from cli.main import run
class Story:
    def __init__(self, place, *rest, **named):
        self.place = place
    def run(self):
        try:
            self.place.start_upstream("m")
            print(self.place.processes[0].pid, flush=True)
            signal.pause()
        finally:
            self.place.stop()
            print("stopped", flush=True)
cli.demo.command.Story = Story
run(["demo"])
"""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`portcullis demo`, in the middle of a story that has started the model server; that one's number."""
    process = python(STORY, tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first, process.communicate()
    yield process, int(first)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_demo_stops_what_it_started(demo: tuple[subprocess.Popen[str], int], number: signal.Signals) -> None:
    process, child = demo
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "stopped\n"), err
    until_gone(child)


@linux
def test_what_the_demo_started_ends_when_it_is_killed(demo: tuple[subprocess.Popen[str], int]) -> None:
    process, child = demo
    process.kill()
    assert "stopped" not in process.communicate()[0]
    until_gone(child)


def test_a_hangup_that_nohup_has_ignored_ends_nothing() -> None:
    assert serving.ending() == [signal.SIGTERM, signal.SIGHUP]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert serving.ending() == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_of_ours_runs_between_fork_and_exec() -> None:
    """There another thread's lock is held for ever (subprocess, warning on preexec_fn)."""
    rooms = (path for path in ROOT.glob("*/**/*.py") if path.relative_to(ROOT).parts[0] not in {"tests", ".venv"})
    assert [path.name for path in rooms if "preexec_fn" in path.read_text()] == []
