"""`portcullis key` and `portcullis identity`: who may call, who may approve."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.session import read_bytes, session, table

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal

key = typer.Typer(help="Callers' API keys: shown once, stored hashed.", no_args_is_help=True)
app = typer.Typer(help="Approvers, their keys, and roles.", no_args_is_help=True)
approver = typer.Typer(help="People whose signatures count.", no_args_is_help=True)
role = typer.Typer(help="Roles of principals.", no_args_is_help=True)
app.add_typer(approver, name="approver")
app.add_typer(role, name="role")

DAY = 86_400


@key.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What uses the key, for example search-backend")],
    team: Annotated[str | None, typer.Option(help="The team it belongs to")] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role, for the management API")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it expires")] = 90,
    person: Annotated[str | None, typer.Option(help="The key acts as this person, not as itself")] = None,
) -> None:
    """Makes a key and shows it, this once."""

    async def work(management: Management, operator: Principal) -> Any:
        expires = int(time.time()) + days * DAY
        return await management.keys.create(
            name=name, team=team, roles=role or (), expires_unix=expires, person=person, by=operator
        )

    made = session(context).run(work)
    session(context).result({"key_id": made.key_id, "token": made.token}, f"{made.key_id}\n{made.token}")


@key.command("list")
def list_keys(context: typer.Context) -> None:
    """Every key of this tenant, without its secret."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.keys.list(management.settings.tenant)

    found = session(context).run(work)
    shown = table("KEY", "PRINCIPAL", "NAME", "TEAM", "ROLES", "STATE")
    rows = []
    for k in found:
        expired = k.expires_unix is not None and k.expires_unix <= time.time()
        state = "revoked" if k.revoked_unix else "expired" if expired else "active"
        shown.add_row(k.key_id, k.principal, k.name, k.team or "", ", ".join(sorted(k.roles)), state)
        rows.append(
            {
                "key_id": k.key_id,
                "principal": k.principal,
                "name": k.name,
                "team": k.team,
                "roles": sorted(k.roles),
                "expires": k.expires_unix,
                "state": state,
            }
        )
    session(context).result(rows, shown)


@key.command("revoke")
def revoke_key(context: typer.Context, key_id: Annotated[str, typer.Argument()]) -> None:
    """Ends a key; it is refused everywhere within a second."""

    async def work(management: Management, operator: Principal) -> None:
        await management.keys.revoke(key_id, by=operator)

    session(context).run(work)
    session(context).result({"key_id": key_id, "state": "revoked"}, f"{key_id} is revoked")


@key.command("rotate")
def rotate_key(context: typer.Context, key_id: Annotated[str, typer.Argument()]) -> None:
    """A new secret for the same key; the old one stops at once."""

    async def work(management: Management, operator: Principal) -> Any:
        return await management.keys.rotate(key_id, by=operator)

    made = session(context).run(work)
    session(context).result({"key_id": made.key_id, "token": made.token}, f"{made.key_id}\n{made.token}")


@app.command()
def keygen(
    context: typer.Context, path: Annotated[Path, typer.Argument(help="The private key; PATH.pub is the public one")]
) -> None:
    """Makes an approver's Ed25519 key pair. Give the .pub file to an administrator."""
    from identity.ed25519 import keygen as generate

    key_id = generate(path)
    session(context).result({"key_id": key_id, "private": str(path)}, f"{key_id}\n{path}")


@approver.command("add")
def add_approver(
    context: typer.Context,
    person: Annotated[str, typer.Argument(help="Lower case, one name per human being")],
    public_key: Annotated[str, typer.Argument(help="Their public key in PEM (from identity keygen)")],
) -> None:
    """Registers a person's public key; their signatures count from now on."""

    async def work(management: Management, operator: Principal) -> str:
        return await management.approvers.register_approver(person, read_bytes(public_key), by=operator)

    key_id = session(context).run(work)
    session(context).result({"person": person, "key_id": key_id}, f"{person} approves with {key_id}")


@approver.command("list")
def list_approvers(context: typer.Context) -> None:
    """Everybody registered, with their keys."""

    async def work(management: Management, _: Principal) -> Any:
        return await management.approvers.list(management.settings.tenant)

    found = session(context).run(work)
    shown = table("PERSON", "APPROVES", "KEYS")
    for a in found:
        shown.add_row(a.person, "yes" if a.approves else "no", ", ".join(k.key_id for k in a.keys))
    rows = [{"person": a.person, "approves": a.approves, "keys": [k.key_id for k in a.keys]} for a in found]
    session(context).result(rows, shown)


@approver.command("revoke")
def revoke_approver(
    context: typer.Context,
    person: Annotated[str | None, typer.Argument()] = None,
    key_id: Annotated[str | None, typer.Option("--key", help="Only this key of theirs")] = None,
) -> None:
    """A person's signatures (or one key's) no longer count."""
    if (person is None) == (key_id is None):
        raise typer.BadParameter("name a person, or a key with --key")

    async def work(management: Management, operator: Principal) -> None:
        if key_id is not None:
            await management.approvers.revoke_key(key_id, by=operator)
        elif person is not None:
            await management.approvers.revoke_person(person, by=operator)

    session(context).run(work)
    session(context).result({"revoked": key_id or person}, f"{key_id or person} is revoked")


@role.command("grant")
def grant_role(
    context: typer.Context, principal: Annotated[str, typer.Argument()], role: Annotated[str, typer.Argument()]
) -> None:
    """Gives a principal (key:K…, person:…) a role."""

    async def work(management: Management, operator: Principal) -> None:
        await management.roles.grant(principal, role, by=operator)

    session(context).run(work)
    session(context).result({"principal": principal, "role": role}, f"{principal} is {role}")


@role.command("revoke")
def revoke_role(
    context: typer.Context, principal: Annotated[str, typer.Argument()], role: Annotated[str, typer.Argument()]
) -> None:
    """Takes a role away."""

    async def work(management: Management, operator: Principal) -> None:
        await management.roles.revoke(principal, role, by=operator)

    session(context).run(work)
    session(context).result({"principal": principal, "role": role}, f"{principal} is no longer {role}")
