"""`portcullis up`: every service as supervised child processes of one command."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Lines
from cli.serving import guard_plain, stop_on_signals
from cli.session import Session, session
from cli.supervisor import Service, Supervisor
from core.errors import BadInput, Conflict, Unavailable

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal

PROGRAM = (sys.executable, "-P", "-m", "cli.main")
"""This very program; `-P` keeps what lies in the working directory from being imported."""


def up(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="The address that every service listens on")] = "127.0.0.1",
    gateway_port: Annotated[int, typer.Option(min=1, max=65535, help="OpenAI-compatible")] = 8080,
    admission_port: Annotated[int, typer.Option(min=1, max=65535, help="HTTPS: POST /validate")] = 8443,
    api_port: Annotated[int, typer.Option(min=1, max=65535, help="The management API")] = 8090,
    gateway_metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="The gateway's /metrics and /readyz")] = 9090,
    admission_metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="The webhook's /metrics")] = 9091,
) -> None:
    """Gateway, admission webhook, management API and evidence sequencer, until Ctrl-C. A service that ends is started again.

    The first start makes an administrator's key and prints it, this once.

    Example: portcullis init && portcullis up
    """
    here = session(context)
    guard_plain(here.settings, host)
    ports = {
        "--gateway-port": gateway_port,
        "--admission-port": admission_port,
        "--api-port": api_port,
        "--gateway-metrics-port": gateway_metrics_port,
        "--admission-metrics-port": admission_metrics_port,
    }
    with _only_one(here):
        _check_ports(host, ports)
        say = _Events(here)
        _show_key(here, say, here.run(_prepare))
        loop = _written({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104  (asked, not listened on)
        tls = "https" if here.settings.tls else "http"
        services = [
            # It ends last, so that what the doors record while they stop is in the log when all is done.
            _service(here, "sequencer", "evidence", "sequence", ends_last=True),
            _service(
                here, "gateway", "gateway", "serve", "--host", host, "--port", str(gateway_port),
                "--metrics-port", str(gateway_metrics_port), health=f"http://{loop}:{gateway_metrics_port}",
            ),
            _service(
                here, "admission", "admission", "serve", "--host", host, "--port", str(admission_port),
                "--metrics-port", str(admission_metrics_port), health=f"https://{loop}:{admission_port}",
            ),
            _service(
                here, "api", "api", "serve", "--host", host, "--port", str(api_port), health=f"{tls}://{loop}:{api_port}"
            ),
        ]  # fmt: skip
        addresses = {
            "gateway": f"{tls}://{_written(host)}:{gateway_port}/v1",
            "admission": f"https://{_written(host)}:{admission_port}/validate",
            "api": f"{tls}://{_written(host)}:{api_port}/docs",
        }
        asyncio.run(_supervise(say, services, addresses))


def _written(host: str) -> str:
    """As an address in a URL has it (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


async def _supervise(say: _Events, services: list[Service], addresses: dict[str, str]) -> None:
    def tell(event: dict[str, Any]) -> None:
        say.event(event, _said(event))

    def ready() -> None:
        say.event({"event": "up", **addresses}, "\n".join(f"{name:10} {url}" for name, url in addresses.items()))

    supervisor = Supervisor(services, tell=tell, line=lambda name, line: say.note(f"{name}: {line}"))
    await supervisor.run(stop_on_signals(), ready)


async def _prepare(management: Management, _: Principal) -> str | None:
    """The schema is up to date from here on (opening it did that), and somebody can administer."""
    return await management.keys.ensure_admin(management.settings.tenant)


def _show_key(here: Session, say: _Events, token: str | None) -> None:
    """A new key is shown, or ends: one that nobody saw would keep the next start from making another."""
    if token is None:
        say.note("an admin key is in force already; make another with: portcullis key create NAME --role admin")
    elif not say.event({"event": "token", "token": token}, f"admin key, shown this once: {token}"):
        here.run(partial(_revoke, token))
        say.note(
            "the admin key could not be written to stdout and is revoked; make one with: portcullis key create NAME --role admin"
        )


async def _revoke(token: str, management: Management, operator: Principal) -> None:
    made = await management.keys.authenticate(token)
    await management.keys.revoke(str(made.key_id), by=operator)


def _service(here: Session, name: str, *arguments: str, health: str | None = None, ends_last: bool = False) -> Service:
    """One of our own commands with our global options; `health` is where it serves /readyz and /healthz."""
    options = ["--state", str(here.state), *(["--config", str(here.config)] if here.config else [])]
    command = [*PROGRAM, *options, *(["--verbose"] if here.verbose else []), *arguments]
    ready, alive = (health + "/readyz", health + "/healthz") if health else (None, None)
    return Service(name, command, ready, alive, ends_last)


def _check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Before anything is made: BadInput for one port given twice or a host that is not this machine's, Unavailable for a port
    that cannot be opened. (Services find out by themselves too, but only after all the others were started.)"""
    for option, port in ports.items():
        same = [other for other, given in ports.items() if given == port and other != option]
        if same:
            raise BadInput(f"{port} is given for {same[0]} as well; every service needs a port of its own", where=option)
        _try_port(host, port, option)


def _try_port(host: str, port: int, option: str) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise BadInput("the host is not known; give an address of this machine", where="--host") from error
    usable = 0
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
                usable += 1
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # a name may have addresses of both families on a machine that has one
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened: {error.strerror}"
            raise Unavailable(f"port {port} {why}; free it or give another with {option}", where=host) from error
    if not usable:
        raise BadInput(f"{host} is not an address of this machine", where="--host")


SAID = {
    "started": "{service}: started, process {pid}",
    "ready": "{service}: ready",
    "not_ready": "{service}: not ready within {seconds:g} s; it is ended",
    "silent": "{service}: did not answer {looks} times in a row; it is ended",
    "exited": "{service}: ended with {how}",
    "restarting": "{service}: starts again in {in_seconds:g} s",
    "stopped": "everything has stopped",
}
"""The supervisor's events for people."""


def _said(event: Mapping[str, Any]) -> str:
    status = event.get("status", 0)
    how = f"exit status {status}" if status >= 0 else f"signal {-status} ({signal.strsignal(-status)})"
    return SAID[event["event"]].format_map({**event, "how": how})


class _Events:
    """What people and programs are told. That nobody reads it (any more) is no reason for a service to end."""

    def __init__(self, here: Session) -> None:
        self._json = here.json
        self._out, self._err = Lines(sys.stdout), Lines(sys.stderr)

    def event(self, event: dict[str, Any], text: str) -> bool:
        """One line of JSON on stdout with --json; otherwise the token and the addresses on stdout, the rest on stderr. Whether
        it was taken."""
        if self._json:
            return self._out.write(json.dumps(event))
        return (self._out if event["event"] in ("token", "up") else self._err).write(text)

    def note(self, text: str) -> None:
        self._err.write(text)


@contextmanager
def _only_one(here: Session) -> Iterator[None]:
    """Holds the state folder's lock. Conflict when another `up` has it, Unavailable when it cannot be had."""
    try:
        here.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(here.state / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"the state folder cannot be used: {error.strerror}", where=str(here.state)) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("another portcullis up runs on this state folder", where=str(here.state)) from error
        yield
    finally:
        os.close(file)
