"""`portcullis freeze` and `unfreeze`: the emergency stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.session import session, table
from core.errors import BadInput

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal

Tenant = Annotated[str | None, typer.Option("--tenant", help="Whose; the installation's tenant when left out")]


def freeze(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Argument(help="model:NAME, model:NAME@VERSION (or NAME@VERSION), caller:ID, tenant:NAME")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", "-m", help="Why; the record keeps its digest.")] = None,
    tenant: Tenant = None,
    listing: Annotated[bool, typer.Option("--list", help="Shows what is frozen, and changes nothing.")] = False,
) -> None:
    """Denies a model, a caller or a tenant at every door within a second: admission, calls, weight keys.

    ID is a principal as `portcullis key list` shows it (key:K..., person:NAME), a key's id or prefix, or a Kubernetes user name.
    No rule mode and no exemption weakens a freeze. Calls that are being answered may finish, streams too; pods that run go on until
    they are deleted, and none is started anew.

    Example: portcullis freeze llama-3@7 -m "incident 42: leaks training data"
    """
    if listing:
        if target is not None or reason is not None:
            raise BadInput("--list stands alone; leave TARGET and --reason out", where="freeze")
        _list(context, tenant)
        return
    if target is None or reason is None:
        raise BadInput("give TARGET and --reason, or --list", where="freeze")
    _show(context, _change(context, "freeze", target, tenant, reason), "is frozen", "was frozen before")


def unfreeze(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="As portcullis freeze --list shows it")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; the record keeps its digest.")],
    tenant: Tenant = None,
) -> None:
    """Lifts exactly this freeze. It needs the role admin; another freeze of the same model or its tenant stays.

    Example: portcullis unfreeze llama-3@7 -m "incident 42 is closed"
    """
    _show(context, _change(context, "unfreeze", target, tenant, reason), "is no longer frozen", "")


def _change(context: typer.Context, action: str, text: str, tenant: str | None, reason: str) -> dict[str, Any]:
    async def work(management: Management, operator: Principal) -> dict[str, Any]:
        from api import freezes

        whose = freezes.whose(text, tenant, operator)
        target = await freezes.resolve(management, text, whose, known=action == "freeze")
        change = management.freezes.freeze if action == "freeze" else management.freezes.unfreeze
        return freezes.shown(await change(target, tenant=whose, author=operator, reason=reason))

    return session(context).run(work)


def _show(context: typer.Context, done: dict[str, Any], changed: str, unchanged: str) -> None:
    said = changed if done["changed"] else unchanged
    session(context).result(done, f"{done['target']} of {done['tenant']} {said} (version {done['version']})")


def _list(context: typer.Context, tenant: str | None) -> None:
    async def work(management: Management, _: Principal) -> Any:
        return await management.freezes.list(tenant)

    found = session(context).run(work)
    shown = table("TARGET", "TENANT", "SINCE", "REASON")
    for rule in found:
        shown.add_row(rule.target, rule.tenant, rule.since, rule.reason)
    session(context).result([rule.model_dump(mode="json") for rule in found], shown)
