"""What a decision costs, engine beside engine in one run: python -m bench.decisions [--rules 20] [--many 200] [--json FILE]

Twenty admission rules (the shipped ones and generated ones that look at every container), a Deployment with four containers; then the same
rules and idle ones up to two hundred, whose first condition holds for nobody who asks here. Per call: the median, the 99th of a hundred
and the processor time of this process and of its children (the confined interpreter, the OPA server), all in microseconds. Ratios are
what to compare between machines. Needs an `opa` program.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from core.canonical import canonical, sha256
from core.decision import Domain
from policies.bundle import write_opa_bundle
from policies.check import Loaded, load_tree
from policies.confined import Confined
from policies.distribution import compile_wasm, find_opa
from policies.embedded import Embedded
from policies.engine import Engine
from policies.evaluate import Evaluator
from policies.memory import Memory
from policies.opa import OpaServer
from policies.wasm import Wasm

INPUTS = Path(__file__).parent / "inputs"
METADATA = """\
# METADATA
# title: Generated rule {number}
# description: A rule of the benchmark; it denies nobody.
# custom:
#   severity: low
#   message: "{{image}} is refused"
#   remediation: Use another image.
#   controls: [bench/1]
package portcullis.rules.admission["{name}-{number}"]
"""
BUSY = """
default checked := false

checked if {{
	is_array(input.request.containers)
	is_string(input.request.namespace)
}}

deny contains {{"path": container.path, "args": {{"image": container.image.repository}}}} if {{
	some container in input.request.containers
	is_object(container.image)
	container.image.registry == "refused-{number}.example"
	not startswith(input.request.namespace, "bench-{number}")
}}
"""
IDLE = """
default checked := false

checked if {{
	is_array(input.request.containers)
	is_string(input.request.kind)
}}

deny contains {{"path": container.path, "args": {{"image": container.name}}}} if {{
	input.request.kind == "Bench{number}"
	some container in input.request.containers
}}
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one call, in microseconds. `cpu` is None where it is not measured."""

    p50: float
    p99: float
    cpu: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=20, help="admission rules altogether")
    parser.add_argument("--many", type=int, default=200, help="and with idle ones")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    opa = find_opa()
    if opa is None:
        sys.exit("there is no opa program: PORTCULLIS_OPA=$(scripts/opa) python -m bench.decisions")
    found: dict[str, dict[str, Figures]] = {}
    for rules in (options.rules, options.many):
        with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
            found[f"{rules} admission rules"] = measure(
                Path(folder), opa, generated(Path(folder) / "own", options.rules, rules)
            )
    few, many = found.values()
    print(f"load {os.getloadavg()[0]:.1f} at the end, {os.cpu_count()} cores")
    show(f"{options.rules} admission rules", few, few["admission: wasm, evaluation"].p50)
    show(f"{options.many} admission rules", many, many["admission: wasm, evaluation"].p50)
    print(f"from {options.rules} to {options.many} admission rules")
    for name, figures in few.items():
        print(f"  {name:46}  {many[name].p50 / figures.p50:6.2f}× p50{_ratio(many[name].cpu, figures.cpu)}")
    if options.json:
        told = {column: {name: asdict(one) for name, one in figures.items()} for column, figures in found.items()}
        options.json.write_text(json.dumps(told, indent=2) + "\n")


def show(title: str, figures: dict[str, Figures], base: float) -> None:
    print(f"{title:48}  {'p50 µs':>9}  {'p99 µs':>9}  {'cpu µs':>9}")
    for name, one in figures.items():
        print(f"  {name:46}  {one.p50:9.1f}  {one.p99:9.1f}  {_shown(one.cpu)}  {one.p50 / base:6.2f}×")


def _shown(cpu: float | None) -> str:
    return f"{'':9}" if cpu is None else f"{cpu:9.1f}"


def _ratio(many: float | None, few: float | None) -> str:
    return "" if many is None or few is None else f"  {many / few:6.2f}× cpu"


def generated(folder: Path, busy: int, rules: int) -> Loaded:
    """The shipped rules, generated ones up to `busy` admission rules, and idle ones up to `rules`."""
    shipped = sum(rule.id.startswith("admission/") for rule in load_tree().catalogue.rules())
    for number in range(rules - shipped):
        name, body = ("busy", BUSY) if number < busy - shipped else ("idle", IDLE)
        place = folder / "rules" / "admission" / f"{name}-{number}"
        place.mkdir(parents=True)
        (place / f"{name}-{number}.rego").write_text((METADATA + body).format(number=number, name=name))
    folder.mkdir(exist_ok=True)
    return load_tree(None, [folder])


def measure(folder: Path, opa: str, loaded: Loaded) -> dict[str, Figures]:
    write_opa_bundle(loaded.bundle, folder / "bundle")
    wasm = Wasm(compile_wasm(loaded.bundle, opa))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    server = subprocess.Popen(
        [opa, "run", "--server", "--addr", address, "--log-level", "error", "--bundle", folder / "bundle"]
    )
    engines: dict[str, Evaluator] = {"wasm": wasm}
    try:
        _wait(f"http://{address}/health?bundles")
        engines["embedded, in process"] = Embedded(loaded.bundle.modules)
        engines["embedded, confined child"] = Confined(loaded.bundle.modules)
        engines["OPA server over HTTP"] = OpaServer(f"http://{address}", loaded.bundle)
        figures: dict[str, Figures] = {}
        domains: tuple[Domain, ...] = ("admission", "gateway")
        for domain in domains:
            figures |= _domain(domain, loaded, engines)
            figures[f"{domain}: opa bench"] = opa_bench(folder, opa, domain)
        return figures
    finally:
        for evaluator in engines.values():
            evaluator.close()
        server.kill()
        server.wait()


def _domain(domain: Domain, loaded: Loaded, engines: dict[str, Evaluator]) -> dict[str, Figures]:
    figures = {}
    document = json.loads((INPUTS / f"{domain}.json").read_text())
    data = canonical(document)
    for name, evaluator in engines.items():
        engine = Engine(loaded, evaluator, memory=Memory(0))
        assert engine.decide(domain, document).allow, engine.decide(domain, document).reason
        figures[f"{domain}: {name}, evaluation"] = timed(partial(evaluator.evaluate, domain, data))
        figures[f"{domain}: {name}, decision"] = timed(partial(engine.decide, domain, document))
    remembering = Engine(loaded, engines["wasm"])
    remembering.decide(domain, document)
    figures[f"{domain}: remembered, decision"] = timed(partial(remembering.decide, domain, document))
    figures[f"{domain}: canonical form and digest alone"] = timed(partial(_digest, document))
    return figures


def _digest(document: object) -> str:
    return sha256(canonical(document))


def timed(work: Callable[[], object], *, seconds: float = 1.5, warm: int = 50) -> Figures:
    """Every call by itself, after some to warm up."""
    for _ in range(warm):
        work()
    times: list[int] = []
    cpu, end = family_cpu(), time.perf_counter() + seconds
    while len(times) < 100 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    used = (family_cpu() - cpu) / len(times)
    return Figures(statistics.median(times) / 1000, statistics.quantiles(times, n=100)[98] / 1000, used * 1e6)


def family_cpu() -> float:
    """Seconds of processor time of this process and its living children (proc(5): children; stat, fields utime and stime)."""
    total = time.process_time()
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            after_name = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
    return total


def opa_bench(folder: Path, opa: str, domain: str) -> Figures:
    """OPA's own benchmark of the same query, without HTTP: the evaluation by its histogram."""
    command = [opa, "bench", "--bundle", folder / "bundle", "--input", INPUTS / f"{domain}.json", "--format", "json"]
    done = subprocess.run([*command, f"data.portcullis.{domain}.decision"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["Extra"]
    median, slow = (found[f"histogram_timer_rego_query_eval_ns_{which}"] / 1000 for which in ("median", "99%"))
    return Figures(median, slow, None)


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
