"""What a decision costs, engine beside engine in one run: python -m bench.decisions [--rules 20] [--json FILE]

Twenty admission rules (the shipped ones and generated ones of the same shape), a Deployment with four containers. Times are medians over
batches, in microseconds of wall clock; ratios are what to compare between machines. Needs an `opa` program.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.canonical import canonical, sha256
from policies.bundle import write_opa_bundle
from policies.check import load_tree
from policies.distribution import compile_wasm, find_opa
from policies.embedded import Embedded
from policies.engine import Engine
from policies.evaluate import Evaluator
from policies.memory import Memory
from policies.opa import OpaServer
from policies.wasm import Wasm

INPUTS = Path(__file__).parent / "inputs"
RULE = """\
# METADATA
# title: Generated rule {number}
# description: A rule of the benchmark; it looks at every container and denies none.
# custom:
#   severity: low
#   message: "{{image}} is refused"
#   remediation: Use another image.
#   controls: [bench/1]
package portcullis.rules.admission["bench-{number}"]

default checked := false

checked if {{
	is_array(input.request.containers)
	is_string(input.request.namespace)
}}

deny contains {{"path": container.path, "args": {{"image": container.image.repository}}}} if {{
	some container in input.request.containers
	container.image.registry == "refused-{number}.example"
	not startswith(input.request.namespace, "bench-{number}")
}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=20, help="admission rules altogether")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    opa = find_opa()
    if opa is None:
        sys.exit("there is no opa program: PORTCULLIS_OPA=$(scripts/opa) python -m bench.decisions")
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
        figures = measure(Path(folder), opa, options.rules)
    width = max(map(len, figures))
    base = figures["admission: wasm, evaluation"]
    for name, value in figures.items():
        print(f"{name:{width}}  {value:9.1f} µs  {value / base:6.2f}×")
    if options.json:
        options.json.write_text(json.dumps({"rules": options.rules, "microseconds": figures}, indent=2) + "\n")


def measure(folder: Path, opa: str, rules: int) -> dict[str, float]:
    shipped = sum(rule.id.startswith("admission/") for rule in load_tree().catalogue.rules())
    for number in range(rules - shipped):
        place = folder / "own" / "rules" / "admission" / f"bench-{number}"
        place.mkdir(parents=True)
        (place / f"bench-{number}.rego").write_text(RULE.format(number=number))
    (folder / "own").mkdir(exist_ok=True)
    loaded = load_tree(None, [folder / "own"])
    write_opa_bundle(loaded.bundle, folder / "bundle")
    figures: dict[str, float] = {}
    wasm = Wasm(compile_wasm(loaded.bundle, opa))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    server = subprocess.Popen(
        [opa, "run", "--server", "--addr", address, "--log-level", "error", "--bundle", folder / "bundle"]
    )
    try:
        _wait(f"http://{address}/health?bundles")
        engines: list[Evaluator] = [wasm, Embedded(loaded.bundle.modules), OpaServer(f"http://{address}", loaded.bundle)]
        for domain in ("admission", "gateway"):
            document = json.loads((INPUTS / f"{domain}.json").read_text())
            data = canonical(document)
            for evaluator in engines:
                engine = Engine(loaded, evaluator, memory=Memory(0))
                assert engine.decide(domain, document).allow, engine.decide(domain, document).reason
                figures[f"{domain}: {evaluator.name}, evaluation"] = median(partial(evaluator.evaluate, domain, data))
                figures[f"{domain}: {evaluator.name}, whole decision"] = median(partial(engine.decide, domain, document))
            remembering = Engine(loaded, wasm)
            remembering.decide(domain, document)
            figures[f"{domain}: remembered, whole decision"] = median(partial(remembering.decide, domain, document))
            figures[f"{domain}: canonical form and digest alone"] = median(partial(_digest, document))
            figures[f"{domain}: opa bench"] = opa_bench(folder, opa, domain)
    finally:
        server.kill()
        server.wait()
    return figures


def _digest(document: object) -> str:
    return sha256(canonical(document))


def median(work: Callable[[], object], *, seconds: float = 1.5, batch: int = 50) -> float:
    """Microseconds per call: the median over batches, after one batch to warm up."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        for _ in range(batch):
            work()
        times.append((time.perf_counter_ns() - start) / batch / 1000)
    return statistics.median(times[1:])


def opa_bench(folder: Path, opa: str, domain: str) -> float:
    """The figure of OPA's own benchmark of the same query, without HTTP."""
    command = [opa, "bench", "--bundle", folder / "bundle", "--input", INPUTS / f"{domain}.json", "--format", "json"]
    done = subprocess.run([*command, f"data.portcullis.{domain}.decision"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return float(found["T"]) / found["N"] / 1000


def _wait(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    main()
