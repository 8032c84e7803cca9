"""`portcullis policy`: the policy author's tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from cli.session import read_bytes, session, table
from core import jsonread
from core.decision import DOMAINS, Decision
from core.errors import BadInput, ConfigError
from core.settings import Policy

if TYPE_CHECKING:
    from policies.engine import Engine

app = typer.Typer(help="Rules: list, check, test, start, try, explain, what if, bundle.", no_args_is_help=True)

Extra = Annotated[
    list[Path] | None,
    typer.Option("--extra", help="A folder with rules of your own (rules/DOMAIN/RULE/), beside policy.extra."),
]


def _extra(context: typer.Context, given: list[Path] | None) -> list[Path]:
    return [*(Path(folder) for folder in session(context).settings.policy.extra), *(given or [])]


@app.command("list")
def list_rules(context: typer.Context, extra: Extra = None) -> None:
    """Every rule with its severity, whether it is mandatory, and the controls it bears on."""
    from policies.engine import load_embedded

    engine = load_embedded(extra=_extra(context, extra))
    rules = engine.catalogue.rules()
    rows = [
        {"id": r.id, "title": r.title, "severity": r.severity, "mandatory": r.mandatory, "controls": list(r.controls)}
        for r in rules
    ]
    shown = table("RULE", "SEVERITY", "MANDATORY", "TITLE", "CONTROLS")
    for r in rules:
        shown.add_row(r.id, r.severity, "yes" if r.mandatory else "", r.title, ", ".join(r.controls))
    session(context).result({"revision": engine.revision, "rules": rows}, shown)


@app.command()
def check(context: typer.Context, extra: Extra = None) -> None:
    """Whether the rules may decide: METADATA, places, `checked`, and only permitted built-ins. Exits 1 with findings."""
    from policies.check import check_tree

    findings = check_tree(extra=_extra(context, extra))
    rows = [{"path": f.path, "line": f.line, "code": f.code, "message": f.message} for f in findings]
    session(context).result(rows, "\n".join(str(finding) for finding in findings) or "nothing found")
    raise typer.Exit(1 if findings else 0)


@app.command("test")
def run_tests(
    context: typer.Context,
    extra: Extra = None,
    only: Annotated[str | None, typer.Option(help="Only tests whose name or file contains this.")] = None,
) -> None:
    """Runs the rules' own tests in this process; no OPA program is needed. Exits 1 when one fails."""
    from policies.testing import run

    results = run(extra=_extra(context, extra), only=only)
    failed = [r for r in results if r.passed is False]
    rows = [{"name": r.name, "passed": r.passed, "detail": r.detail, "file": r.file, "seconds": r.duration} for r in results]
    lines = [f"FAIL {r.name}\n     {r.detail} ({r.file})" for r in failed]
    lines.append(f"{sum(r.passed is True for r in results)} passed, {len(failed)} failed")
    session(context).result(rows, "\n".join(lines))
    raise typer.Exit(1 if failed else 0)


@app.command()
def new(
    context: typer.Context,
    rule: Annotated[str, typer.Argument(metavar="DOMAIN/RULE", help=f"DOMAIN is one of {', '.join(DOMAINS)}.")],
    folder: Annotated[Path, typer.Option(help="Your folder of rules; name it under policy.extra.")] = Path("own-policies"),
) -> None:
    """Writes the two files of a new rule, with METADATA and a test that passes.

    Example: portcullis policy new admission/my-rule --folder my-policies
    """
    from policies.authoring import new_rule

    paths = [str(path) for path in new_rule(folder, rule)]
    session(context).result({"files": paths}, "\n".join([*paths, f"try it: portcullis policy test --extra {folder}"]))


@app.command("eval")
def evaluate(
    context: typer.Context,
    domain: Annotated[str, typer.Argument(help=" | ".join(DOMAINS))],
    file: Annotated[str, typer.Option("--file", "-f", help="The input as JSON; - for standard input.")],
    engine: Annotated[Literal["auto", "embedded", "wasm", "opa"], typer.Option(help="Which engine decides.")] = "auto",
    bundle: Annotated[Path | None, typer.Option(help="A bundle file instead of policy.bundle or the shipped rules.")] = None,
    opa_url: Annotated[str | None, typer.Option(help="The OPA server, for --engine opa.")] = None,
    extra: Extra = None,
) -> None:
    """The decision over an input. Exits 0 when allowed, 1 when denied."""
    document = jsonread.loads_object(read_bytes(file))
    decision = asked_engine(context, engine, bundle, opa_url, extra).decide(domain, document)  # type: ignore[arg-type]  # decide checks it
    session(context).result(decision.as_json(), show_decision(decision))
    raise typer.Exit(0 if decision.allow else 1)


def asked_engine(context: typer.Context, engine: str, bundle: Path | None, url: str | None, extra: list[Path] | None) -> Engine:
    """The engine that the command line asks for. BadInput or ConfigError where that does not go together."""
    from policies.engine import load

    if (engine == "opa") != (url is not None):
        raise BadInput("--opa-url goes with --engine opa, and --engine opa needs it")
    settings = session(context).settings
    policy = _policy(settings.policy, engine, bundle, url, _extra(context, extra))
    return load(settings.model_copy(update={"policy": policy}))


def _policy(configured: Policy, engine: str, bundle: Path | None, url: str | None, extra: list[Path]) -> Policy:
    """The settings with what the command line says instead. ConfigError where that does not go together."""
    values = {
        "engine": engine,
        "url": url,
        "bundle": str(bundle) if bundle else configured.bundle,
        "verify_key": None if bundle else configured.verify_key,
        "extra": [str(folder) for folder in extra],
    }
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        raise ConfigError(error.errors(include_input=False, include_url=False)[0]["msg"], where="policy") from error


def show_decision(decision: Decision) -> str:
    """A decision as people read it."""
    lines = ["allowed" if decision.allow else "denied"]
    found: list[tuple[str, Any]] = [("", v) for v in decision.violations] + [
        (f"{v.mode}{f' by {v.exemption}' if v.exemption else ''} ", v) for v in decision.warnings
    ]
    for mode, violation in found:
        lines.append(f"  {mode}{violation.rule} at {violation.path or 'the whole'}: {violation.message}")
        if violation.remediation:
            lines.append(f"      {violation.remediation}")
    lines += [f"  granted by {grant}" for grant in decision.grants]
    return "\n".join(lines)
