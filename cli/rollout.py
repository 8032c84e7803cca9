"""`portcullis policy rollout`: what runs, and how an approved bundle comes to decide: tried beside it, for some, for all."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.session import session, table

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal
    from policies.rollout import State, Tally

app = typer.Typer(help="What runs, and trying an approved bundle before it decides.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why, on one line; it is kept")]


@app.command()
def start(
    context: typer.Context,
    proposal: Annotated[str, typer.Argument(metavar="ID", help="An approved proposal (policy bundle list)")],
    reason: Reason,
    stage: Annotated[
        Literal["shadow", "percentage", "full"],
        typer.Option(
            help="shadow: only compared; percentage: decides for that share of tenants (of one tenant: all or nothing); full: decides, "
            "and the only stage of a rollback"
        ),
    ] = "shadow",
    percent: Annotated[int, typer.Option(min=0, max=99, help="For --stage percentage")] = 0,
    max_denials: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of decisions that it may newly deny before the trial ends by itself")
    ] = 5.0,
    max_failures: Annotated[float, typer.Option(min=0, max=100, help="Percent in which it may fail before that")] = 1.0,
    after: Annotated[int, typer.Option(min=1, max=1_000_000, help="Compared decisions before either counts")] = 50,
) -> None:
    """Brings an approved bundle to a stage. Doors follow within a second; no call is lost.

    Example: portcullis policy rollout start ID --stage percentage --percent 10 -m "shadow showed nothing for a day"
    """
    from policies.rollout import Bounds

    bounds = Bounds(denials=max_denials / 100, failures=max_failures / 100, compared=after)

    async def work(management: Management, operator: Principal) -> State:
        async with management.engine() as engine:
            return await management.director.start(
                proposal, stage=stage, percent=percent, bounds=bounds, by=operator, reason=reason, engine=engine
            )

    state = session(context).run(work)
    session(context).result(state.as_json(), _line(state))


@app.command()
def status(context: typer.Context) -> None:
    """What runs now, and how a candidate compares so far."""

    async def work(management: Management, _: Principal) -> tuple[State, Tally]:
        state = await management.rollouts.state()
        return state, await management.rollouts.tally(state.version)

    state, tally = session(context).run(work)
    told: dict[str, Any] = {**state.as_json(), "tally": asdict(tally)}
    lines = [_line(state)]
    if state.candidate:
        lines.append(
            f"compared {tally.compared}: newly denied {tally.denied}, newly allowed {tally.allowed}, "
            f"otherwise different {tally.otherwise}, failed {tally.failed}"
        )
    session(context).result(told, "\n".join(lines))


@app.command()
def stop(context: typer.Context, reason: Reason) -> None:
    """Ends a trial: what decided before it goes on deciding."""

    async def work(management: Management, operator: Principal) -> State:
        return await management.director.stop(by=operator, reason=reason)

    state = session(context).run(work)
    session(context).result(state.as_json(), _line(state))


@app.command()
def history(context: typer.Context) -> None:
    """What ran since when, newest first, and why it changed."""

    async def work(management: Management, _: Principal) -> list[State]:
        return await management.rollouts.history()

    found = session(context).run(work)
    shown = table("VERSION", "ACTION", "DECIDES", "TRIED", "REASON")
    for state in found:
        tried = state.candidate + (f" ({state.percent} %)" if state.percent else "")
        shown.add_row(str(state.version), state.action, state.base or "settings", tried, state.reason)
    session(context).result([state.as_json() for state in found], shown)


def _line(state: State) -> str:
    decides = f"decides: {state.base or 'what the settings name'}"
    if not state.candidate:
        return f"{decides} (version {state.version}, {state.action})"
    share = f" for {state.percent} % of tenants" if state.stage == "percentage" else ""
    return f"{decides}; tried{share}: {state.candidate} ({state.stage}, version {state.version})"
