"""`portcullis`: the entry point. Exit status: 0 allowed, verified, nothing found; 1 denied, not verified, violations found;
2 wrong usage, input or configuration; 3 something it depends on is unavailable."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    admission,
    api,
    bundle,
    configuration,
    coverage,
    evidence,
    explain,
    freeze,
    gateway,
    identity,
    models,
    policy,
    redaction,
    rollout,
    setup,
    up,
    weights,
    whatif,
)
from cli.demo import command as demonstration
from cli.output import occupy
from cli.parent import follow
from cli.session import DEFAULT_STATE, Session
from core.errors import PortcullisError, Refused

app = typer.Typer(
    name="portcullis",
    help="Policy-as-code governance and security gateway for AI infrastructure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
policy.app.add_typer(bundle.app, name="bundle")
policy.app.add_typer(rollout.app, name="rollout")
policy.app.command("whatif")(whatif.whatif)
policy.app.command("explain")(explain.explain)
policy.app.command("coverage")(coverage.coverage)
app.add_typer(policy.app, name="policy")
app.add_typer(configuration.config, name="config")
app.add_typer(configuration.exemption, name="exemption")
app.add_typer(configuration.quota, name="quota")
app.add_typer(identity.key, name="key")
app.add_typer(identity.app, name="identity")
app.add_typer(admission.app, name="admission")
app.add_typer(gateway.app, name="gateway")
app.add_typer(api.app, name="api")
app.add_typer(models.model, name="model")
app.add_typer(models.dataset, name="dataset")
app.add_typer(weights.app, name="weights")
app.add_typer(evidence.app, name="evidence")
app.command("init")(setup.init)
app.command("up")(up.up)
app.command("demo")(demonstration.demo)
app.command("check")(admission.check)
app.command("report")(evidence.report)
app.command("redact")(redaction.redact)
app.command("freeze")(freeze.freeze)
app.command("unfreeze")(freeze.unfreeze)

WITH_VALUE = ("--config", "--state")
FLAGS = ("--json", "--verbose")


@app.callback()
def _globals(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(envvar="PORTCULLIS_CONFIG", help="Settings; ./portcullis.yaml when it exists.")
    ] = None,
    state: Annotated[
        Path, typer.Option(envvar="PORTCULLIS_STATE", help="Where keys, evidence and the database live by default.")
    ] = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="More on stderr.")] = False,
) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s %(message)s"
    )
    context.obj = Session(config=config, state=state, json=as_json, verbose=verbose)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Global options may stand anywhere before `--`: they are moved to the front."""
    front: list[str] = []
    rest: list[str] = []
    remaining = list(arguments)
    while remaining:
        item = remaining.pop(0)
        if item == "--":
            rest += [item, *remaining]
            break
        if item in FLAGS or item.startswith(tuple(f"{name}=" for name in WITH_VALUE)):
            front.append(item)
        elif item in WITH_VALUE:
            front += [item, *remaining[:1]]
            del remaining[:1]
        else:
            rest.append(item)
    return front + rest


def run(arguments: Sequence[str] | None = None) -> None:
    """The console script. Every error of ours ends as one line on stderr (or JSON with --json) and its exit status."""
    given = hoisted(sys.argv[1:] if arguments is None else arguments)
    occupy()
    try:
        follow(os.environ)
        app(given, prog_name="portcullis")
    except PortcullisError as error:
        if "--json" in given:
            told = {"error": {"message": error.message, "code": error.code, "where": error.where}}
            decided = {"decision": error.decision.as_json()} if isinstance(error, Refused) else {}
            sys.stdout.write(json.dumps(told | decided) + "\n")
        else:
            sys.stderr.write(f"portcullis: {error}\n")
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    run()
