"""`portcullis demo`: the story as a user starts it, with other names than the default ones."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.demo.cast import choose
from cli.demo.place import call, free_ports
from core.errors import Unavailable
from tests.conftest import ROOT

PROGRAM = Path(sys.executable).with_name("portcullis")
ROOMS = [
    "core",
    "storage",
    "policies",
    "identity",
    "redaction",
    "lineage",
    "weights",
    "evidence",
    "gateway",
    "admission",
    "api",
    "cli",
]


def demo(folder: Path, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [PROGRAM, "demo", "--json", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=180
    )
    return done.returncode, json.loads(done.stdout)


def test_the_whole_story_under_a_name_nobody_chose(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1, 10_000)
    status, told = demo(tmp_path, "--seed", str(seed))
    assert status == 0, told
    verdicts = [step["verdict"] for step in told["steps"]]
    assert (verdicts.count("denied"), verdicts.count("refused"), verdicts.count("403")) == (5, 2, 2), (seed, verdicts)
    rules = {step["rule"] for step in told["steps"]}
    assert {
        "admission/gpu-quota", "admission/approved-images", "admission/encrypted-weights", "admission/approved-model",
        "gateway/model-access", "lineage/approval", "weights/key-release",
    } <= rules  # fmt: skip
    assert Path(told["report"]).read_text().count("withdrawn")
    verified = subprocess.run(
        [PROGRAM, "evidence", "verify", told["package"], "--key", told["key"]], cwd=tmp_path, check=False, capture_output=True
    )
    assert verified.returncode == 0
    assert (tmp_path / "portcullis-demo" / "opened" / "model.safetensors").read_bytes() == (
        tmp_path / "portcullis-demo" / "weights" / "model.safetensors"
    ).read_bytes()


@pytest.fixture
def upstream() -> Iterator[str]:
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", "cli.demo.upstream", str(port), "somebody-elses-model"], cwd=ROOT)
    while True:
        try:
            call("GET", url + "/v1/models")
            break
        except Unavailable:
            assert process.poll() is None
    yield url
    process.kill()
    process.wait()


@pytest.mark.e2e
def test_with_a_model_server_that_was_there_before(tmp_path: Path, upstream: str) -> None:
    status, told = demo(tmp_path, "--upstream", upstream, "--seed", "7")
    assert status == 0, told
    assert any("somebody-elses-model" in step["title"] for step in told["steps"])


def test_it_replaces_its_own_folder_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    status, told = demo(tmp_path, "--output", "mine")
    assert (status, told["error"]["code"]) == (2, "conflict")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_the_product_does_not_know_of_the_demo() -> None:
    """Outside cli/demo nothing tests for it: the one mention is where the command is registered."""
    mentions = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if "demo" in path.read_text() and "cli/demo" not in path.as_posix()
    ]
    assert [name for name in mentions if name != "cli/main.py"] == []


def test_every_cast_can_play() -> None:
    """The good workload fits the quota, the greedy one does not, and no two people share a name, whatever the seed."""
    for seed in range(2_000):
        cast = choose(seed)
        assert cast.gpus * cast.replicas <= cast.quota < cast.gpus * cast.greedy
        assert len({cast.author, *cast.approvers}) == 3
        digits = [int(digit) for digit in cast.secret_card]
        assert len(digits) == 16
        assert sum(sum(divmod(digit * 2, 10)) if at % 2 == 0 else digit for at, digit in enumerate(digits)) % 10 == 0
