"""`portcullis up`: every service as supervised child processes of one command."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.serving import guard_plain, stop_on_signals
from cli.session import Session, session
from cli.supervisor import Service, Supervisor
from core.errors import Conflict

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal

PROGRAM = (sys.executable, "-P", "-m", "cli.main")
"""This very program; `-P` keeps what lies in the working directory from being imported."""


def up(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address that every service listens on")] = "127.0.0.1",
    gateway_port: Annotated[int, typer.Option(help="OpenAI-compatible")] = 8080,
    admission_port: Annotated[int, typer.Option(help="HTTPS: POST /validate")] = 8443,
    api_port: Annotated[int, typer.Option(help="The management API")] = 8090,
    gateway_metrics_port: Annotated[int, typer.Option(help="The gateway's /metrics and /readyz")] = 9090,
    admission_metrics_port: Annotated[int, typer.Option(help="The webhook's /metrics")] = 9091,
) -> None:
    """Gateway, admission webhook, management API and evidence sequencer, until Ctrl-C. A service that ends is started again.

    The first start makes an administrator's key and prints it, this once.

    Example: portcullis init && portcullis up
    """
    here = session(context)
    guard_plain(here.settings, host)
    with _only_one(here):
        token = here.run(_prepare)
        if token is not None:
            _event(here, {"event": "token", "token": token}, f"admin key, shown this once: {token}")
        else:
            here.say("an admin key is in force already; make another with: portcullis key create NAME --role admin")
        loop = _written({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104  (asked, not listened on)
        tls = "https" if here.settings.tls else "http"
        services = [
            _service(here, "sequencer", "evidence", "sequence"),
            _service(
                here, "gateway", "gateway", "serve", "--host", host, "--port", str(gateway_port),
                "--metrics-port", str(gateway_metrics_port), ready=f"http://{loop}:{gateway_metrics_port}/readyz",
            ),
            _service(
                here, "admission", "admission", "serve", "--host", host, "--port", str(admission_port),
                "--metrics-port", str(admission_metrics_port), ready=f"https://{loop}:{admission_port}/readyz",
            ),
            _service(
                here, "api", "api", "serve", "--host", host, "--port", str(api_port),
                ready=f"{tls}://{loop}:{api_port}/readyz",
            ),
        ]  # fmt: skip
        addresses = {
            "gateway": f"{tls}://{_written(host)}:{gateway_port}/v1",
            "admission": f"https://{_written(host)}:{admission_port}/validate",
            "api": f"{tls}://{_written(host)}:{api_port}/docs",
        }
        asyncio.run(_supervise(here, services, addresses))


def _written(host: str) -> str:
    """As an address in a URL has it (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


async def _supervise(here: Session, services: list[Service], addresses: dict[str, str]) -> None:
    def tell(event: dict[str, Any]) -> None:
        _event(
            here, event, " ".join([event["event"], *(f"{name}={value}" for name, value in event.items() if name != "event")])
        )

    def ready() -> None:
        _event(here, {"event": "up", **addresses}, "\n".join(f"{name:10} {url}" for name, url in addresses.items()))

    supervisor = Supervisor(services, tell=tell, line=lambda name, line: here.say(f"{name}: {line}"))
    await supervisor.run(stop_on_signals(), ready)


async def _prepare(management: Management, _: Principal) -> str | None:
    """The schema is up to date from here on (opening it did that), and somebody can administer."""
    return await management.keys.ensure_admin(management.settings.tenant)


def _service(here: Session, name: str, *arguments: str, ready: str | None = None) -> Service:
    options = ["--state", str(here.state), *(["--config", str(here.config)] if here.config else [])]
    return Service(name, [*PROGRAM, *options, *(["--verbose"] if here.verbose else []), *arguments], ready)


def _event(here: Session, event: dict[str, Any], text: str) -> None:
    """One line of JSON on stdout with --json; otherwise the token and the addresses on stdout, the rest on stderr."""
    if here.json:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    elif event["event"] in ("token", "up"):
        here.out.print(text, markup=False)
    else:
        here.say(text)


@contextmanager
def _only_one(here: Session) -> Iterator[None]:
    """Holds the state folder's lock. Conflict when another `up` has it."""
    here.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(here.state / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("another portcullis up runs on this state folder", where=str(here.state)) from error
        yield
    finally:
        os.close(file)
