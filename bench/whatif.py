"""What `policy whatif` costs over a large log: python -m bench.whatif [--decisions 100000] [--inputs 10000] [--json FILE]

Makes an evidence folder through the real engine, recorder and sequencer: calls of models and workloads drawn from a seed, so that the
same arguments give the same inputs (their common digest is printed). Then runs the command, as a process, against the shipped rules
with one rule changed: for the embedded engine, and for Wasm where an `opa` program is there. Memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.canonical import sha256
from core.decision import Domain
from core.ids import uuid7
from core.settings import Settings
from evidence.recorder import EvidenceRecorder
from evidence.sequencer import Sequencer
from policies.bundle import Bundle
from policies.check import Loaded, load_modules, load_tree
from policies.distribution import build, compile_wasm, find_opa
from policies.embedded import Embedded
from policies.engine import Engine
from policies.evaluate import Evaluator
from policies.memory import Memory
from policies.wasm import Wasm

INPUTS = Path(__file__).parent / "inputs"
SEED = 20_261_121
TEAMS = ("vision", "search", "speech", "risk")
MODELS = ("llama", "mistral", "whisper", "bert", "gpt")
QUOTA = "rules/admission/gpu-quota/gpu-quota.rego"
START = 1_800_000_000
DAY = 86_400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--inputs", type=int, default=10_000, help="distinct inputs among them")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
        figures = measure(Path(folder), options.decisions, options.inputs)
    for name, value in figures.items():
        print(f"{name:40}  {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(folder: Path, decisions: int, inputs: int) -> dict[str, Any]:
    opa = find_opa()
    shipped = load_tree(None)
    changed = _changed(shipped)
    seconds = time.perf_counter()
    digests = asyncio.run(record(folder / "state" / "evidence", shipped, decisions, inputs, opa))
    figures: dict[str, Any] = {
        "decisions": decisions,
        "distinct inputs": len(set(digests)),
        "digest of the inputs": sha256("".join(sorted(set(digests))).encode()),
        "seconds to record and sequence": round(time.perf_counter() - seconds, 1),
        "load when it began": round(os.getloadavg()[0], 1),
    }
    for name, module in {"embedded": None, **({"wasm": compile_wasm(changed.bundle, opa)} if opa else {})}.items():
        bundle = folder / f"{name}.tar.gz"
        bundle.write_bytes(build(changed, wasm=module, tests=0))
        figures |= {f"{name}: {what}": value for what, value in run(folder, bundle).items()}
    return figures


def _changed(shipped: Loaded) -> Loaded:
    """The shipped rules, with a quota that keeps one GPU back."""
    modules = dict(shipped.bundle.modules)
    modules[QUOTA] = modules[QUOTA].replace("asked + used > limit", "asked + used > limit - 20160")
    return load_modules(Bundle(modules))


def drawn(count: int) -> Iterator[tuple[Domain, dict[str, Any]]]:
    """`count` different inputs, three calls to each workload, always the same ones."""
    dice = random.Random(SEED)
    bases = {domain: json.loads((INPUTS / f"{domain}.json").read_text()) for domain in ("gateway", "admission")}
    for number in range(count):
        domain: Domain = "admission" if number % 4 == 3 else "gateway"
        document = copy.deepcopy(bases[domain])
        document["now_unix"] = START + number
        team, model = dice.choice(TEAMS), dice.choice(MODELS)
        if domain == "gateway":
            document["request"]["model"] = document["facts"]["model"]["name"] = model
            document["request"]["principal"]["team"] = team
            document["config"]["grants"] = [{"id": "g1", "model": model, "teams": list(TEAMS[:3])}]
        else:
            document["config"]["team"] = team
            document["request"]["models"][0]["name"] = document["facts"]["models"][0]["name"] = model
            document["request"]["gpu_shares"] = 20_160 * dice.randint(1, 3)
            document["facts"]["quota"]["used_shares"] = 20_160 * dice.randint(0, 2)
        yield domain, document


async def record(folder: Path, loaded: Loaded, decisions: int, inputs: int, opa: str | None) -> list[str]:
    """Decides each input and records it as often as it takes, in the order of a second seed; the inputs' digests."""
    dice = random.Random(SEED + 1)
    evaluator: Evaluator = Wasm(compile_wasm(loaded.bundle, opa)) if opa else Embedded(loaded.bundle.modules)
    engine = Engine(loaded, evaluator, memory=Memory(0))
    recorder = EvidenceRecorder(folder)
    recorder.keep_bundle(engine.revision, loaded.bundle.files())
    made = [(domain, document, engine.decide(domain, document)) for domain, document in drawn(inputs)]
    order = [*range(inputs), *(dice.randrange(inputs) for _ in range(decisions - inputs))]
    dice.shuffle(order)
    for at in order:
        domain, document, decision = made[at]
        again = replace(decision, decision_id=uuid7())
        kind = "admission" if domain == "admission" else "inference.intent"
        await recorder.decision(kind, again, document, actor="ref:bench", tenant="acme", subject="bench")  # type: ignore[arg-type]
    recorder.close()
    engine.close()
    Sequencer(folder, origin=Settings().evidence.origin).integrate_once()
    return [decision.input_digest for _, _, decision in made]


def run(folder: Path, bundle: Path) -> dict[str, Any]:
    """The command over the folder, as a process of its own."""
    probe = (
        "import json, resource, sys\n"
        "from cli.main import run\n"
        "try:\n    run(sys.argv[1:])\n"
        "finally:\n    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))\n"
        "    print(peak, file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", probe, "--state", str(folder / "state"), "policy", "whatif", str(bundle), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 1:
        sys.exit(f"expected changes (status 1), got {done.returncode}: {done.stderr}{done.stdout[:2000]}")
    found = json.loads(done.stdout)
    return {
        "engine": found["new"]["engine"],
        "seconds": round(seconds, 1),
        "decisions a second": round(found["decisions"] / seconds),
        "peak MB": round(int(done.stderr.split()[-1]) / 1024),
        "changed": {kind: tally["decisions"] for kind, tally in found["changes"].items() if tally["decisions"]},
        "cannot be compared": found["decisions"] - found["compared"],
    }


if __name__ == "__main__":
    main()
