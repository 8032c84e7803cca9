"""What the operator's configuration costs a decision, by its size: python -m bench.configuration [--json FILE]

1,000, 10,000 and 100,000 namespaces in a file, each with 5,000 models (a grant each), 1,000 modes and 1,000 exemptions; the file is
generated. A look-up is one answer of `ConfigStore` with nothing remembered; `again` is the same answer while it is remembered. A
build is what follows a change: of the file, and of one mode in the database while the file stays. A decision is an admission from end to
end, with nothing remembered: look-up, typed input, evaluation (Wasm where an `opa` program is there, else the interpreter). Ratios are
what to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from core.clock import SystemClock
from core.inputs import AdmissionInput, as_json, mandatory
from core.names import ModelRef
from core.principal import Principal
from core.record import Entry
from policies.check import load_tree
from policies.distribution import compile_wasm, find_opa
from policies.embedded import Embedded
from policies.engine import Engine
from policies.memory import Memory
from policies.store import ConfigStore
from policies.wasm import Wasm
from storage.database import open_database
from storage.migrate import migrate

SIZES = (1_000, 10_000, 100_000)
MODELS = 5_000
TEAMS = 100
LOOKUPS = 2_000
OPERATOR = Principal("person:bench", "user", "acme", roles=frozenset({"admin"}))


class _References:
    async def ref(self, tenant: str, person: str) -> str:
        return f"ref:{tenant}:{len(person)}"


class _Nowhere:
    """Takes records; the log has a benchmark's worth of its own."""

    async def event(self, entry: Entry) -> str:
        return entry.subject

    async def decision(self, kind: Any, decision: Any, input: Mapping[str, Any], **more: Any) -> str:  # noqa: ARG002  (the port)
        return str(kind)


def generated(namespaces: int) -> dict[str, Any]:
    """The operator's file: one tenant, a hundred teams that share the namespaces, grants for every model."""
    each = namespaces // TEAMS
    teams = {
        f"team-{team}": {"gpu_quota": 8, "namespaces": [f"ns-{team * each + index}" for index in range(each)]}
        for team in range(TEAMS)
    }
    return {
        "tenants": {"acme": {"images": [{"registry": "r.example", "repository": "ml"}], "teams": teams}},
        "grants": [
            {"id": f"g-{model}", "tenant": "acme", "domain": "gateway", "model": f"model-{model}", "teams": ["team-1"]}
            for model in range(MODELS)
        ],
        "modes": [
            {"rule": "admission/approved-images", "mode": "warn", "namespace": f"ns-{index}"} for index in range(1_000)
        ],
        "exemptions": [
            {
                "id": f"EX-{index}", "rule": "admission/approved-images", "tenant": "acme", "owner": "ann", "reason": "move",
                "ticket": "T-1", "expires": "2100-01-01T00:00:00Z", "namespaces": [f"ns-{index}"], "subjects": ["Job/move"],
            }
            for index in range(1_000)
        ],
    }  # fmt: skip


async def measured(namespaces: int, folder: Path, engine: Engine) -> dict[str, float]:
    """The figures of one size: look-ups in microseconds, builds in seconds, memory in MB."""
    place = folder / "config.yaml"
    # JSON is YAML, and quicker to write.
    place.write_text(json.dumps(generated(namespaces)))
    database = open_database(f"sqlite+aiosqlite:///{folder}/bench-{namespaces}.db")
    await migrate(database)
    try:
        store = ConfigStore(
            database, commitments=_References(), recorder=_Nowhere(), files=[place], clock=SystemClock(), max_age_seconds=3600
        )
        figures = {"build from the file, s": await _timed(store.refresh)}
        figures |= await _lookups(store, namespaces)
        figures |= await _decisions(store, engine, namespaces)
        watching = ConfigStore(
            database, commitments=_References(), recorder=_Nowhere(), files=[place], clock=SystemClock(), max_age_seconds=0
        )
        await watching.refresh()
        figures["a look when nothing changed, us"] = await _timed(watching.refresh) * 1e6
        await store.set(
            "modes.admission/gpu-quota[namespace=ns-1]", {"mode": "enforce"}, author=OPERATOR, reason="the benchmark's change"
        )
        figures["build after one mode was set, s"], figures["longest pause of the loop, s"] = await _while_ticking(
            watching.refresh
        )
        tracemalloc.start()
        held = ConfigStore(
            database, commitments=_References(), recorder=_Nowhere(), files=[place], clock=SystemClock(), max_age_seconds=3600
        )
        await held.refresh()
        figures["held in memory, MB"] = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        return figures
    finally:
        await database.close()


async def _lookups(store: ConfigStore, namespaces: int) -> dict[str, float]:
    """Each look-up is for another namespace, or another model, of a fixed random order."""
    order = random.Random(7)
    names = [f"ns-{order.randrange(namespaces)}" for _ in range(LOOKUPS)]
    models = [ModelRef(f"model-{order.randrange(MODELS)}", "1") for _ in range(LOOKUPS)]
    caller = Principal("key:K1", "caller", "acme", team="team-1")

    async def admissions() -> None:
        for name, ref in zip(names, models, strict=True):
            await store.admission(name, subject="Deployment/chat", caller="jane", models=(ref,))

    async def calls() -> None:
        for ref in models:
            await store.gateway(caller, ref)

    async def limits() -> None:
        for _ in range(LOOKUPS):
            await store.requests_per_minute("acme", "team-1", "K1")

    found = {}
    for name, work in (("admission", admissions), ("gateway", calls), ("rate limit", limits)):
        for again in ("", ", again"):
            found[f"look-up {name}{again}, us"] = await _timed(work) / LOOKUPS * 1e6
    return found


def unremembering() -> Engine:
    """The shipped rules in the engine of production, or the one of laptops where no module can be compiled."""
    loaded, opa = load_tree(), find_opa()
    evaluator = Embedded(loaded.bundle.modules) if opa is None else Wasm(compile_wasm(loaded.bundle, opa))
    return Engine(loaded, evaluator, memory=Memory(0))


async def _decisions(store: ConfigStore, engine: Engine, namespaces: int) -> dict[str, float]:
    """An admission to one namespace after another, each in a fixed random order and seen for the first time."""
    order = random.Random(11)
    base = AdmissionInput.model_validate_json((Path(__file__).parent / "inputs" / "admission.json").read_bytes())
    models = (ModelRef("model-1", "1"),)
    times, cpu = [], time.process_time()
    for _ in range(LOOKUPS):
        name = f"ns-{order.randrange(namespaces)}"
        started = time.perf_counter_ns()
        config = await store.admission(name, subject="Deployment/chat", caller="jane", models=models)
        request = base.request.model_copy(update={"namespace": name})
        asked = AdmissionInput(
            now_unix=base.now_unix, mandatory=mandatory("admission"), request=request, facts=base.facts, config=config
        )
        decision = engine.decide("admission", as_json(asked))
        times.append((time.perf_counter_ns() - started) / 1000)
        if not decision.allow:
            raise RuntimeError(f"the benchmark's workload is denied: {decision.reason}")
    used = (time.process_time() - cpu) / LOOKUPS * 1e6
    found = {"p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98], "cpu": used}
    return {f"admission from end to end ({engine.name}), {name}, us": value for name, value in found.items()}


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _while_ticking(work: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """How long `work` takes, and the longest that the event loop did nothing else meanwhile."""
    longest, done = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not done.is_set():
            started = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - started)

    ticking = asyncio.create_task(tick())
    taken = await _timed(work)
    done.set()
    await ticking
    return taken, longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    engine = unremembering()
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
        for size in SIZES:
            found[f"{size}"] = asyncio.run(measured(size, Path(folder), engine))
    width = max(map(len, found[f"{SIZES[0]}"]))
    sys.stdout.write(f"{'namespaces':<{width}}" + "".join(f"{size:>12,}" for size in SIZES) + "\n")
    for name in found[f"{SIZES[0]}"]:
        sys.stdout.write(f"{name:<{width}}" + "".join(f"{found[f'{size}'][name]:>12.4g}" for size in SIZES) + "\n")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
