"""`portcullis policy`: the policy author's tools."""

from __future__ import annotations

import time
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from cli.session import Session, read_bytes, session, table
from core import jsonread
from core.decision import DOMAINS, Decision
from core.errors import BadInput, ConfigError, PortcullisError
from core.settings import Policy

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal
    from policies.check import Loaded
    from policies.config_use import RulesInUse
    from policies.cost import Cost
    from policies.engine import Engine
    from policies.testing import TestRun

app = typer.Typer(help="Rules: list, check, test, start, document, try, explain, what if, bundle.", no_args_is_help=True)

Extra = Annotated[
    list[Path] | None,
    typer.Option("--extra", help="A folder with rules of your own (rules/DOMAIN/RULE/), beside policy.extra."),
]


def _extra(context: typer.Context, given: list[Path] | None) -> list[Path]:
    return [*(Path(folder) for folder in session(context).settings.policy.extra), *(given or [])]


@app.command("list")
def list_rules(
    context: typer.Context,
    extra: Extra = None,
    control: Annotated[
        str | None, typer.Option(help="Only rules that bear on it: soc2/cc6.1, or soc2 for the framework.")
    ] = None,
    domain: Annotated[str | None, typer.Option(help=f"Only rules of one domain: {', '.join(DOMAINS)}.")] = None,
) -> None:
    """Every rule that decides, with its severity, whether it is mandatory, its mode and exemptions, and the controls it bears on.

    With --extra: the shipped rules and that folder's, whatever decides now.

    Modes and exemptions are the operator's configuration, where there is some: the general mode, and how many narrower ones
    (for a tenant, team, namespace or model) differ from it. Example: portcullis policy list --control soc2 --domain admission
    """
    from policies.check import load_tree

    if domain is not None and domain not in DOMAINS:
        raise BadInput(f"there is no domain {domain[:40]!r}; the domains are {', '.join(DOMAINS)}", where="--domain")
    here = session(context)
    use = _in_use(here)
    loaded = load_tree(extra=_extra(context, extra)) if extra or use is None else _running(here)
    rules = [rule for rule in loaded.catalogue.rules() if domain in {None, rule.domain} and rule.bears_on(control)]
    rows = [
        {**rule.as_json(), **(use.about(rule.id) if use else {"mode": None, "narrower": None, "exemptions": None})}
        for rule in rules
    ]
    shown = table("RULE", "SEVERITY", "MANDATORY", *(["MODE", "EXEMPTIONS"] if use else []), "TITLE", "CONTROLS")
    shown.columns[0].min_width = max((len(rule.id) for rule in rules), default=0)
    for rule, row in zip(rules, rows, strict=True):
        more = f"{row['mode']} (+{len(row['narrower'])})" if row["narrower"] else str(row["mode"])
        modes = [more, str(len(row["exemptions"]) or "")] if use else []
        shown.add_row(rule.id, rule.severity, "yes" if rule.mandatory else "", *modes, rule.title, ", ".join(rule.controls))
    here.result({"revision": loaded.bundle.revision, "rules": rows}, shown)


def _running(here: Session) -> Loaded:
    """The rules that decide in this installation."""

    async def work(management: Management, _: Principal) -> Loaded:
        from policies.running import running_loaded

        return await running_loaded(management.database, here.settings.policy, management.clock)

    return here.run(work)


def _in_use(here: Session) -> RulesInUse | None:
    """What the operator's configuration says of rules; None where there is no installation, which is not made for looking."""
    if here.settings.storage.url.startswith("sqlite") and not here.state.is_dir():
        return None

    async def work(management: Management, _: Principal) -> RulesInUse:
        from policies.config_use import RulesInUse

        listed = await management.config.list_exemptions()
        active = [item.exemption for item in listed if item.state == "active"]
        return RulesInUse.of(await management.config.effective(), active)

    return here.run(work)


@app.command()
def check(
    context: typer.Context,
    extra: Extra = None,
    cost: Annotated[bool, typer.Option("--cost", help="Also measure each rule against its budget (custom.budget_us).")] = False,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--inputs",
            help="Inputs to measure over besides those of the tests: a file or a folder of .jsonl files, one input per line, "
            "alone or as policy bundle build --inputs takes it.",
        ),
    ] = None,
) -> None:
    """Whether the rules may decide: METADATA, places, `checked`, permitted built-ins, no undefined trap. Exits 1 with findings.

    With --cost the JSON is {"findings", "costs"}; a rule over its budget is a finding. Example: portcullis policy check --cost
    """
    from policies.check import Finding, check_tree

    if inputs and not cost:
        raise BadInput("--inputs says what to measure over; it goes with --cost")
    here = session(context)
    folders = _extra(context, extra)
    findings = check_tree(extra=folders)
    costs = [] if findings or not cost else _measured(here, folders, inputs or [])
    findings += [Finding(one.rule.path, 0, "cost", one.problem) for one in costs if one.problem]
    rows = [{"path": f.path, "line": f.line, "code": f.code, "message": f.message} for f in findings]
    told = "\n".join(str(finding) for finding in findings) or "nothing found"
    if cost:
        shown = table("RULE", "INPUTS", "MEDIAN µs", "SLOWEST µs", "BUDGET µs", "SHARE")
        for one in costs:
            shown.add_row(one.rule.id, str(one.inputs), *_figures(one))
        if costs and not here.json:
            here.result(None, shown)
        here.result({"findings": rows, "costs": [one.as_json() for one in costs]}, told)
    else:
        here.result(rows, told)
    raise typer.Exit(1 if findings else 0)


def _measured(here: Session, folders: list[Path], files: list[Path]) -> list[Cost]:
    from policies import corpus
    from policies.cost import measure

    documents = [corpus.input_of(document) for _, document in corpus.documents(files)]
    costs: list[Cost] = []
    said = time.monotonic()
    for one in measure(extra=folders, inputs=documents):
        costs.append(one)
        if time.monotonic() - said > 2:
            here.say(f"{len(costs)} rules measured")
            said = time.monotonic()
    return costs


def _figures(cost: Cost) -> list[str]:
    if cost.median_us is None or cost.slowest_us is None or cost.share is None:
        return ["", "", str(cost.budget_us), "not measured"]
    return [f"{cost.median_us:.0f}", f"{cost.slowest_us:.0f}", str(cost.budget_us), f"{cost.share:.0%}"]


@app.command("test")
def run_tests(
    context: typer.Context,
    extra: Extra = None,
    only: Annotated[str | None, typer.Option(help="Only tests whose name or file contains this.")] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Also say which lines of the rules their tests evaluated.")
    ] = False,
    fail_under: Annotated[
        int | None, typer.Option(min=0, max=100, help="Fail when a rule's own tests cover less of it than this many percent.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Run again whenever a .rego file changes, until interrupted.")] = False,
) -> None:
    """Runs the rules' own tests in this process; no OPA program is needed. Exits 1 when one fails.

    A failing test names the statement that does not hold and shows what was expected and what was found.
    With --coverage the JSON is {"tests", "coverage"}. Example: portcullis policy test --extra own-policies --watch --coverage
    """
    from policies.testing import changes, run_all

    here = session(context)
    folders = _extra(context, extra)
    covered = coverage or fail_under is not None
    if not watch:
        raise typer.Exit(
            _told(here, run_all(extra=folders, only=only, coverage=covered), covered=covered, fail_under=fail_under)
        )
    try:
        for _ in changes(extra=folders):
            try:
                _told(here, run_all(extra=folders, only=only, coverage=covered), covered=covered, fail_under=fail_under)
            except PortcullisError as error:
                here.say(str(error))
            here.say("waiting for a change (Ctrl-C ends)")
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _told(here: Session, run: TestRun, *, covered: bool, fail_under: int | None) -> int:
    """Prints one run; gives the exit status."""
    from policies.covered import ranges

    failed = [r for r in run.results if r.passed is False]
    rows = [
        {"name": r.name, "passed": r.passed, "detail": r.detail, "file": r.file, "seconds": r.duration} for r in run.results
    ]
    lines = [f"FAIL {r.name} ({r.file})\n{indent(r.detail, '     ')}" for r in failed]
    lines.append(f"{sum(r.passed is True for r in run.results)} passed, {len(failed)} failed")
    short = [f for f in run.files if fail_under is not None and f.rule is not None and f.percent < fail_under]
    if covered:
        lines += [
            f"{f.percent:4.0f} %  {f.rule or f.file}{f'   not covered: {ranges(f.missed)}' if f.missed else ''}"
            for f in run.files
        ]
    lines += [f"{f.rule}: its tests cover {f.percent:.0f} %, less than {fail_under} %" for f in short]
    coverage = [
        {"file": f.file, "rule": f.rule, "percent": round(f.percent, 1), "covered": list(f.covered), "missed": list(f.missed)}
        for f in run.files
    ]
    here.result({"tests": rows, "coverage": coverage} if covered else rows, "\n".join(lines))
    return 1 if failed or short else 0


@app.command()
def docs(
    context: typer.Context,
    extra: Extra = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
) -> None:
    """A page about every rule, from its METADATA: messages, what to do, controls, and the paths of the input that it reads.

    Example: portcullis policy docs --extra own-policies -o rules.md
    """
    from policies.rulebook import page

    text = page(extra=_extra(context, extra))
    if output is None:
        session(context).result({"markdown": text}, text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PortcullisError(f"cannot be written: {error.strerror}", where=str(output)) from error
    session(context).result({"file": str(output)}, str(output))


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
