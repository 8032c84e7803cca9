"""`portcullis model` and `portcullis dataset`: what is known of models and data, and who approved what."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.policy import show_decision
from cli.session import read_bytes, session, table
from core import yamlread
from core.errors import BadInput, NotFound
from core.names import ModelRef

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal
    from lineage.deployments import Deployment

model = typer.Typer(help="Model versions: register, describe, approve, revoke.", no_args_is_help=True)
dataset = typer.Typer(help="Datasets: register, show, withdraw.", no_args_is_help=True)

Ref = Annotated[str, typer.Argument(metavar="NAME@VERSION")]


@dataset.command("register")
def register_dataset(
    context: typer.Context,
    ref: Ref,
    origin: Annotated[str, typer.Option(help="Where the data comes from and how it was collected")],
    basis: Annotated[Literal["given", "not_required"], typer.Option(help="Consent of the people in it")],
    licence: Annotated[str | None, typer.Option(help="For example CC-BY-4.0")] = None,
    purpose: Annotated[list[str] | None, typer.Option(help="A purpose it may be used for; none means any")] = None,
    digest: Annotated[str | None, typer.Option(help="sha256:… of the data")] = None,
) -> None:
    """Registers a version of a dataset."""

    async def work(management: Management, operator: Principal) -> None:
        await management.datasets.register(
            ModelRef.parse(ref),
            by=operator,
            origin=origin,
            basis=basis,
            licence=licence,
            purposes=tuple(purpose or ()),
            digest=digest,
        )

    session(context).run(work)
    session(context).result({"dataset": ref}, f"{ref} is registered")


@dataset.command("show")
def show_dataset(context: typer.Context, ref: Ref) -> None:
    """Licence, purposes, consent, and the models that were trained on it."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.datasets.show(management.settings.tenant, ModelRef.parse(ref))

    found = session(context).run(work)
    session(context).result({name: getattr(found, name) for name in found.__slots__})


@dataset.command("list")
def list_datasets(context: typer.Context) -> None:
    """Every dataset of this tenant."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.datasets.all(management.settings.tenant)

    rows = session(context).run(work)
    shown = table("DATASET", "LICENCE", "CONSENT", "MODELS")
    for d in rows:
        shown.add_row(f"{d.name}@{d.version}", d.licence or "", d.consent, ", ".join(d.models))
    session(context).result([{name: getattr(d, name) for name in d.__slots__} for d in rows], shown)


@dataset.command("withdraw")
def withdraw(context: typer.Context, ref: Ref, reason: Annotated[str, typer.Option("--reason", "-m")]) -> None:
    """Consent is withdrawn: every model trained on it is denied from the next decision on. Lists what was admitted before."""

    async def work(management: Management, operator: Principal) -> tuple[tuple[str, ...], list[Deployment]]:
        models = await management.datasets.withdraw(ModelRef.parse(ref), by=operator, reason=reason)
        running = [item for name in models for item in await management.deployments.list(operator.tenant, ModelRef.parse(name))]
        return models, running

    models, running = session(context).run(work)
    named = ", ".join(models) or "no model"
    lines = [f"still there: {item.environment}/{item.workload} ({item.model})" for item in running]
    session(context).result(
        {"dataset": ref, "models": list(models), "deployments": [asdict(item) for item in running]},
        "\n".join([f"{ref} is withdrawn; denied from now on: {named}", *lines]),
    )


@model.command("register")
def register(
    context: typer.Context,
    ref: Ref,
    dataset: Annotated[list[str] | None, typer.Option(help="NAME@VERSION of a dataset it was trained on")] = None,
    team: Annotated[str | None, typer.Option()] = None,
    manifest: Annotated[str | None, typer.Option(help="sha256:… of its sealed manifest")] = None,
) -> None:
    """Registers a version; whoever registers it can never approve it. With --manifest on a registered one: sets its manifest."""

    async def work(management: Management, operator: Principal) -> None:
        wanted = ModelRef.parse(ref)
        if await management.registry.model(operator.tenant, wanted) is None:
            trained_on = [ModelRef.parse(item) for item in dataset or []]
            await management.models.register(wanted, by=operator, datasets=trained_on, team=team)
        elif manifest is None or dataset or team:
            raise BadInput(f"{ref} is registered already; only --manifest can be set anew")
        if manifest is not None:
            await management.models.set_manifest(wanted, manifest, by=operator)

    session(context).run(work)
    session(context).result({"model": ref, "manifest": manifest}, f"{ref} is registered")


@model.command("show")
def show(context: typer.Context, ref: Ref) -> None:
    """Everything that decides whether it may be used, and where it was admitted. People are shown as references."""

    async def work(management: Management, _: Principal) -> Any:
        tenant, wanted = management.settings.tenant, ModelRef.parse(ref)
        found = await management.registry.model(tenant, wanted)
        if found is None:
            raise NotFound(f"{ref} is not registered")
        placed = [asdict(item) for item in await management.deployments.list(tenant, wanted)]
        return {**found.model_dump(mode="json", exclude_none=True), "deployments": placed}

    session(context).result(session(context).run(work))


@model.command("list")
def list_models(context: typer.Context) -> None:
    """Every version of this tenant."""

    async def work(management: Management, _: Principal) -> Any:
        return [str(ref) for ref in await management.models.all(management.settings.tenant)]

    rows = session(context).run(work)
    session(context).result(rows, "\n".join(rows))


@model.command("deployments")
def list_deployments(
    context: typer.Context,
    ref: Annotated[str | None, typer.Argument(metavar="NAME@VERSION", help="Only this version's")] = None,
    ended: Annotated[bool, typer.Option("--ended", help="Also those that are over")] = False,
) -> None:
    """Which workloads were admitted with which version and have not been deleted since."""

    async def work(management: Management, _: Principal) -> list[Deployment]:
        wanted = None if ref is None else ModelRef.parse(ref)
        return await management.deployments.list(management.settings.tenant, wanted, ended=ended)

    rows = session(context).run(work)
    shown = table("MODEL", "NAMESPACE", "WORKLOAD", "DECISION", "STATE")
    for item in rows:
        state = "admitted" if item.ended_unix is None else "ended"
        shown.add_row(item.model, item.environment, item.workload, item.decision_id, state)
    session(context).result([asdict(item) for item in rows], shown)


@model.command("card")
def card(
    context: typer.Context, ref: Ref, file: Annotated[str, typer.Option("--file", "-f", help="YAML; - for stdin")]
) -> None:
    """Keeps a new version of the model's card and says which mandatory fields are missing. Exits 1 when some are."""
    value = yamlread.load(read_bytes(file), where=file)

    async def work(management: Management, operator: Principal) -> list[str]:
        return await management.models.set_card(ModelRef.parse(ref), value, by=operator)

    missing = session(context).run(work)
    text = f"missing: {', '.join(missing)}" if missing else "the card is complete"
    session(context).result({"model": ref, "missing": missing}, text)
    raise typer.Exit(1 if missing else 0)


@model.command("approve")
def approve(
    context: typer.Context,
    ref: Ref,
    key: Annotated[Path, typer.Option(help="Your private key (identity keygen)")],
) -> None:
    """Signs the model's current manifest with your key and submits it. Exits 1, with the reasons, when it does not count."""
    private = private_key(key)

    async def work(management: Management, _: Principal) -> Any:
        from lineage.statements import approve as sign

        tenant, wanted = management.settings.tenant, ModelRef.parse(ref)
        found = await management.registry.model(tenant, wanted)
        if found is None or found.manifest_digest is None:
            raise NotFound(f"{ref} is not registered with a manifest; there is nothing to approve")
        envelope = sign(
            private, tenant=tenant, model=wanted, manifest_digest=found.manifest_digest, issued_unix=management.clock.now_unix()
        )
        async with management.engine() as engine:
            return await management.approvals(engine).submit(tenant, envelope)

    decision = session(context).run(work)
    session(context).result(decision.as_json(), show_decision(decision))


def private_key(path: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(read_bytes(str(path)), password=None)
    except (ValueError, TypeError) as error:
        raise BadInput("is not a private key in PEM", where=str(path)) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise BadInput("is not an Ed25519 key; make one with portcullis identity keygen", where=str(path))
    return found


@model.command("revoke")
def revoke(context: typer.Context, ref: Ref, reason: Annotated[str, typer.Option("--reason", "-m")]) -> None:
    """Ends a version for good: denied from the next decision on."""

    async def work(management: Management, operator: Principal) -> None:
        await management.models.revoke(ModelRef.parse(ref), by=operator, reason=reason)

    session(context).run(work)
    session(context).result({"model": ref, "state": "revoked"}, f"{ref} is revoked")
