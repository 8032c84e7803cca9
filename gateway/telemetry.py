"""What operators see: few series, on a port of their own, with health and readiness."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from core.errors import PortcullisError
from gateway.asgi import Receive, Scope, Send, answer

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Remembering(Protocol):
    """`policies.live.LiveEngine`."""

    @property
    def hits(self) -> int: ...

    @property
    def misses(self) -> int: ...


class Deciding(Protocol):
    """`policies.engine.Engine`."""

    @property
    def memory(self) -> Remembering: ...

    @property
    def failures(self) -> Mapping[str, int]: ...

    @property
    def paused(self) -> bool: ...


class _Decisions:
    """How often a decision was remembered and how the engine does, read when somebody asks."""

    def __init__(self, engine: Deciding) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        found = CounterMetricFamily(
            "portcullis_gateway_decisions", "Decisions by whether they were made or remembered", labels=["how"]
        )
        found.add_metric(["remembered"], self._engine.memory.hits)
        found.add_metric(["made"], self._engine.memory.misses)
        yield found
        failed = CounterMetricFamily(
            "portcullis_gateway_engine_failures", "Evaluations that gave no answer; each is a denial", labels=["reason"]
        )
        for reason, count in sorted(self._engine.failures.items()):
            failed.add_metric([reason], count)
        yield failed
        yield GaugeMetricFamily(
            "portcullis_gateway_engine_paused",
            "1 while the OPA server is not asked because it did not answer",
            self._engine.paused,
        )


class Ready(Protocol):
    async def ready(self) -> None: ...


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter("portcullis_gateway_answers", "Answers", ["route", "status", "code"], registry=self.registry)
        self.governed = Histogram(
            "portcullis_gateway_governance_seconds",
            "Time from a whole request to the upstream call: identity, limits, facts, decision, record",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.withheld = Counter(
            "portcullis_gateway_log_withheld", "Log records whose content the redactor did not give back", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self.unlogged = Counter(
            "portcullis_gateway_log_lost", "Lines that the inference log could not take", registry=self.registry
        )
        self.unrecorded = Counter(
            "portcullis_gateway_outcomes_unrecorded", "Streams whose outcome could not be recorded", registry=self.registry
        )

    def watch(self, engine: Deciding) -> None:
        """Also says how the policy engine does."""
        self.registry.register(_Decisions(engine))


class Telemetry:
    """The ASGI application on the metrics' port."""

    def __init__(self, metrics: Metrics, gateway: Ready) -> None:
        self._metrics = metrics
        self._gateway = gateway

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/metrics":
            await answer(
                send, 200, generate_latest(self._metrics.registry), content_type=b"text/plain; version=0.0.4; charset=utf-8"
            )
        elif scope["path"] == "/healthz":
            await answer(send, 200, b'{"status":"ok"}')
        elif scope["path"] == "/readyz":
            try:
                await self._gateway.ready()
            except PortcullisError as error:
                await answer(send, 503, json.dumps({"status": "not ready", "error": error.message}).encode())
            else:
                await answer(send, 200, b'{"status":"ready"}')
        else:
            await answer(send, 404, b'{"error":"served here: /metrics, /healthz, /readyz"}')
