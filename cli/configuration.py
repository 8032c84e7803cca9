"""`portcullis config`, `exemption`, `quota`: the operator's versioned configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bundle import change_line, proposal_lines
from cli.coverage import day, traffic_of
from cli.session import read_value, session, table
from core.errors import BadInput
from core.names import show_gpus

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal
    from policies.proposals import Proposal
    from policies.reviewed import Action

config = typer.Typer(help="Teams, quotas, registries, modes, grants: versioned, every change recorded.", no_args_is_help=True)
exemption = typer.Typer(help="Permissions to break one rule for a while.", no_args_is_help=True)
quota = typer.Typer(help="What is charged against what is allowed.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; recorded with the change.")]


@config.command()
def show(
    context: typer.Context, path: Annotated[str | None, typer.Argument(help="For example tenants.acme.teams")] = None
) -> None:
    """The configuration in force: defaults, files and the database, put together."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.config.show(path)

    session(context).result(session(context).run(work))


@config.command("set")
def set_value(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="For example tenants.acme.teams.vision.gpu_quota")],
    value: Annotated[str, typer.Argument(help='Read as YAML: 4, "3/7", [a, b], {registry: r, repository: ml}')],
    reason: Reason,
) -> None:
    """Changes one value; the whole result is checked before it counts. Exits 1 when it weakens, which takes config propose.

    Example: portcullis config set tenants.acme.teams.vision.gpu_quota 4 -m "new project"
    """

    async def work(management: Management, operator: Principal) -> int:
        return await management.config.set(path, read_value(value), author=operator, reason=reason)

    version = session(context).run(work)
    session(context).result({"version": version}, f"version {version}")


@config.command()
def unset(context: typer.Context, path: Annotated[str, typer.Argument()], reason: Reason) -> None:
    """Takes back what `config set` set; files and defaults show through again."""

    async def work(management: Management, operator: Principal) -> int:
        return await management.config.unset(path, author=operator, reason=reason)

    version = session(context).run(work)
    session(context).result({"version": version}, f"version {version}")


@config.command()
def propose(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="For example modes.admission/gpu-quota")],
    reason: Reason,
    value: Annotated[str | None, typer.Argument(help="Read as YAML; left out with --unset")] = None,
    take_back: Annotated[bool, typer.Option("--unset", help="Propose to take back what config set set")] = False,
) -> None:
    """Proposes a change for others to sign. What weakens (a rule off, a wide exemption, fewer approvals) is made in no other way:
    registered approvers other than you sign it by policy bundle approve, then config apply makes it.

    Example: portcullis config propose modes.admission/gpu-quota "{mode: warn}" -m "until the migration is over"
    """
    if take_back == (value is not None):
        raise BadInput("give a value, or --unset", where="value")
    meant = None if value is None else read_value(value)

    async def work(management: Management, operator: Principal) -> Proposal:
        action: Action = "unset" if take_back else "set"
        return await management.reviewed.propose(path, meant, action=action, by=operator, reason=reason)

    made = session(context).run(work)
    session(context).result(asdict(made), proposal_lines(made))


@config.command("apply")
def apply_change(context: typer.Context, proposal: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Makes exactly the change of an approved proposal. Exits 1 while it lacks signatures, 2 when the configuration changed
    meanwhile so that it would be another change."""

    async def work(management: Management, operator: Principal) -> int:
        async with management.engine() as engine:
            return await management.reviewed.apply(proposal, by=operator, engine=engine)

    version = session(context).run(work)
    session(context).result({"proposal": proposal, "version": version}, f"version {version}")


@config.command()
def diff(
    context: typer.Context,
    from_version: Annotated[int, typer.Argument(min=0)],
    to_version: Annotated[int | None, typer.Argument(min=0, help="The newest when left out.")] = None,
) -> None:
    """What changed between two versions."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.config.diff(from_version, to_version)

    changes = session(context).run(work)
    rows = [asdict(change) for change in changes]
    session(context).result(rows, "\n".join(map(change_line, rows)) or "no difference")


@config.command()
def history(context: typer.Context) -> None:
    """Who changed what, and why; newest first. Authors are shown as references."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.config.history()

    versions = session(context).run(work)
    shown = table("VERSION", "ACTION", "PATH", "AUTHOR", "REASON")
    for v in versions:
        shown.add_row(str(v.version), v.action, v.path, v.author_ref, v.reason)
    rows = [
        {
            "version": v.version,
            "action": v.action,
            "path": v.path,
            "author": v.author_ref,
            "reason": v.reason,
            "time": v.created_unix,
        }
        for v in versions
    ]
    session(context).result(rows, shown)


@exemption.command("add")
def add(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="For example EX-1")],
    rule: Annotated[str, typer.Option(help="For example admission/approved-images")],
    owner: Annotated[str, typer.Option(help="Who answers for it")],
    reason: Reason,
    ticket: Annotated[str, typer.Option(help="Where it was discussed")],
    expires: Annotated[str, typer.Option(help="With a zone: 2027-01-31T00:00:00Z")],
    subject: Annotated[list[str], typer.Option(help="Deployment/chat or llama-3@7; * for all")],
    tenant: Annotated[str | None, typer.Option(help="The installation's tenant when left out")] = None,
    namespace: Annotated[list[str] | None, typer.Option(help="Only in these namespaces")] = None,
    team: Annotated[list[str] | None, typer.Option(help="Only for these teams")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only for these models: NAME or NAME@VERSION")] = None,
    propose: Annotated[bool, typer.Option("--propose", help="Keep it for others to sign, as a wide one must be")] = False,
) -> None:
    """Adds an exemption. It counts until it expires, for exactly these subjects. A wide one (subject *, every namespace, more than
    90 days) takes two approvals: --propose it, then policy bundle approve and config apply."""
    fields: dict[str, Any] = {
        "id": id,
        "rule": rule,
        "owner": owner,
        "reason": reason,
        "ticket": ticket,
        "expires": expires,
        "subjects": subject,
        "namespaces": namespace or [],
        "teams": team or [],
        "models": model or [],
    }

    async def work(management: Management, operator: Principal) -> int:
        return await management.config.add_exemption(**fields, tenant=tenant or management.settings.tenant, author=operator)

    async def proposing(management: Management, operator: Principal) -> Proposal:
        return await management.reviewed.propose_exemption(**fields, tenant=tenant or management.settings.tenant, by=operator)

    if propose:
        made = session(context).run(proposing)
        session(context).result(asdict(made), proposal_lines(made))
        return
    version = session(context).run(work)
    session(context).result({"id": id, "version": version}, f"{id} counts from version {version} on")


@exemption.command("list")
def list_exemptions(
    context: typer.Context,
    uses: Annotated[
        bool, typer.Option("--uses", help="Also how often each was used and when last, from the evidence log")
    ] = False,
) -> None:
    """Every exemption, and whether it counts now; with --uses those that nobody needs show, to be ended."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.config.list_exemptions()

    found = session(context).run(work)
    used = _uses(context) if uses else {}
    shown = table("ID", "RULE", "STATE", "EXPIRES", "TICKET", "SUBJECTS", *(("USES", "LAST USED") if uses else ()))
    rows = []
    for item in found:
        e = item.exemption
        count, last = used.get(e.id, (0, None))
        rows.append(
            {**e.model_dump(mode="json"), "state": item.state, **({"uses": count, "last_used_unix": last} if uses else {})}
        )
        more = (str(count), day(last)) if uses else ()
        shown.add_row(e.id, e.rule, item.state, str(e.expires or ""), e.ticket or "", ", ".join(e.subjects), *more)
    session(context).result(rows, shown)


def _uses(context: typer.Context) -> dict[str, tuple[int, int | None]]:
    """By exemption: the decisions in which it covered something, and the time of the last, over the whole log."""
    traffic, lost = traffic_of(session(context), None)
    if lost:
        session(context).say(f"{lost} decisions cannot be opened whole, so some uses may be missing")
    return {name: (uses.count, uses.last_unix) for name, uses in traffic.exemptions.items()}


@exemption.command()
def revoke(context: typer.Context, id: Annotated[str, typer.Argument()], reason: Reason) -> None:
    """Ends an exemption now."""

    async def work(management: Management, operator: Principal) -> int:
        return await management.config.revoke_exemption(id, author=operator, reason=reason)

    version = session(context).run(work)
    session(context).result({"id": id, "version": version}, f"{id} is revoked")


@quota.command("show")
def show_quota(context: typer.Context, team: Annotated[str | None, typer.Argument()] = None) -> None:
    """GPUs held and allowed, by team of this installation's tenant."""
    from admission.ledger import QuotaLedger
    from api.quota import rows as quota_rows

    async def work(management: Management, _: Principal) -> list[dict[str, Any]]:
        accounts = QuotaLedger(management.database, management.clock)
        return await quota_rows(management.config, accounts, management.settings.tenant, team)

    rows = session(context).run(work)
    shown = table("TEAM", "USED", "ALLOWED")
    for row in rows:
        limit = row["limit_shares"]
        shown.add_row(row["team"], show_gpus(row["used_shares"]), "none" if limit is None else show_gpus(limit))
    session(context).result(rows, shown)
