"""`portcullis evidence`: the log that others can check."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from cli.session import session

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal

app = typer.Typer(help="The evidence log: integrate, publish.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `sequence` a command of its own."""


@app.command()
def sequence(
    context: typer.Context,
    once: Annotated[bool, typer.Option(help="Integrate what is waiting, then end")] = False,
) -> None:
    """Integrates what every service recorded into the signed Merkle log, until it is told to stop.

    One sequencer per log holds the lease; a second one ends with exit status 3.
    """
    here = session(context)

    async def work(management: Management, _: Principal) -> int:
        if once:
            return await asyncio.to_thread(management.sequencer.integrate_once)
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        here.say("integrating; stop with Ctrl-C")
        await asyncio.to_thread(management.sequencer.run, stop)
        return 0

    count = here.run(work)
    here.result({"integrated": count} if once else {"stopped": True}, f"{count} records integrated" if once else "stopped")
