"""`portcullis demo`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.text import Text

from cli.demo.cast import choose
from cli.demo.place import prepare
from cli.demo.story import Step, Story
from cli.session import Session, session

AGAINST = ("denied", "refused", "401", "403", "NOT VERIFIED", "exit 1")


def demo(
    context: typer.Context,
    upstream: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server, http://HOST:PORT; a small one is started when left out")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other names, models and quotas")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to leave everything in")] = Path("portcullis-demo"),
) -> None:
    """The whole story on the embedded defaults: model and data, approvals, admissions, calls, a withdrawal, the proof.

    Runs the same commands and HTTP routes that you would, and prints what was sent, the verdict and the rule.

    Example: portcullis demo --seed 7
    """
    here = session(context)
    place = prepare(output)
    story = Story(place, choose(seed), seed, upstream, tell=lambda step: None if here.json else _tell(here, step))
    with _stopping():
        result = story.run()
    closing = (
        f"\n{len(result['steps'])} steps in {result['seconds']} s\n"
        f"report:   {result['report']}\npackage:  {result['package']}\n"
        f"verify:   portcullis evidence verify {result['package']} --key {result['key']}"
    )
    here.result(result, closing)


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGTERM and SIGHUP end the story as an exception does, so that its services are stopped; a second one waits for that."""
    from cli.serving import ending

    def end(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in ending()}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(here: Session, step: Step) -> None:
    """Two lines: what happened and the verdict, then what was sent and what was said."""
    line = Text(f"{step.number:>2}  {step.title}  ")
    line.append(f" {step.verdict} ", style="bold white on red" if step.verdict in AGAINST else "bold white on green")
    line.append(f"  {step.rule}" if step.rule else "", style="cyan")
    here.out.print(line)
    here.out.print(Text(f"    {step.sent}", style="dim"))
    if step.says:
        here.out.print(Text(f"    {step.says}"))
