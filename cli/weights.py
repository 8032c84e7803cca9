"""`portcullis weights`: sealing, signing, and opening by permission."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.policy import show_decision
from cli.session import Session, session, table
from core.errors import Conflict, NotFound
from core.names import ModelRef

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal
    from weights.sealed import Sealed

app = typer.Typer(help="Sealed, signed weights: FLOE, OMS, keys released by policy.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A sealed folder")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME@VERSION", help="The registered version")]


@app.command()
def keygen(
    context: typer.Context,
    signing: Annotated[
        Path | None, typer.Option(help="Make a signing pair (EC P-256) instead: PATH and PATH.pub, in PEM")
    ] = None,
) -> None:
    """Makes a key-encryption key in the state folder, which wraps the keys of what is sealed from now on.

    Example: portcullis weights keygen && portcullis weights keygen --signing release.pem
    """
    if signing is not None:
        from weights.signing import generate

        public = generate(signing)
        session(context).result({"private": str(signing), "public": str(public)}, f"{signing}\n{public}")
        return

    async def work(management: Management, _: Principal) -> str:
        return management.weight_keys.generate()

    made = session(context).run(work)
    session(context).result({"kek": made}, made)


@app.command("seal")
def seal_folder(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="The folder of plain weights")],
    target: Annotated[Path, typer.Argument(help="The sealed folder to make")],
    model: Model = None,
) -> None:
    """Seals every file of a folder; prints the manifest's digest, which is what people approve.

    With --model the digest becomes the registered manifest of that version.

    Example: portcullis weights seal ./llama ./llama-sealed --model llama-3@7
    """
    ref = None if model is None else ModelRef.parse(model)

    async def work(management: Management, operator: Principal) -> Sealed:
        from weights.sealed import seal

        if ref is not None and await management.registry.model(operator.tenant, ref) is None:
            raise NotFound(f"{ref} is not registered; nothing was sealed")
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
        with _progress(session(context), "sealing", size) as advance:
            made = await seal(source, target, management.weight_keys, progress=advance)
        if ref is not None:
            await management.models.set_manifest(ref, made.digest, by=operator)
        return made

    made = session(context).run(work)
    uri = f"sealed://{target.name}@{made.digest}"
    shown = {"manifest": made.digest, "files": len(made.manifest.files), "uri": uri, "model": model}
    session(context).result(shown, f"{made.digest}\n{uri}")


@app.command("open")
def open_folder(
    context: typer.Context,
    source: Folder,
    target: Annotated[Path, typer.Argument(help="The folder of plain weights to make")],
    model: Annotated[str, typer.Option("--model", metavar="NAME@VERSION", help="The registered version it is")],
) -> None:
    """Opens a sealed folder when policy releases its key. Exits 1, with the reasons, when it does not."""
    here = session(context)
    if target.exists():
        raise Conflict("is there already; choose another place", where=str(target))

    async def work(management: Management, operator: Principal) -> Any:
        from weights.sealed import check, inspect, open_sealed, total

        sealed = inspect(source)
        check(sealed)
        engine = management.engine()
        try:
            released = await management.key_release(engine).release(operator, ModelRef.parse(model), sealed.digest, sealed.keys)
        finally:
            engine.close()
        if released.key is not None:
            with _progress(here, "opening", total(sealed.manifest.files)) as advance:
                open_sealed(sealed, target, released.key, progress=advance)
        return released.decision

    decision = here.run(work)
    here.result(decision.as_json(), f"{target}" if decision.allow else show_decision(decision))
    raise typer.Exit(0 if decision.allow else 1)


@app.command()
def sign(
    context: typer.Context,
    folder: Folder,
    key: Annotated[Path, typer.Option(help="Your private signing key (weights keygen --signing)")],
) -> None:
    """Signs a folder by OMS, every file but keys.json; writes model.sig into it."""
    from weights import signing

    signature = signing.sign(folder, key)
    session(context).result({"signature": str(signature)}, str(signature))


@app.command()
def verify(
    context: typer.Context,
    folder: Folder,
    key: Annotated[Path | None, typer.Option(help="The signer's public key, had from somewhere else")] = None,
    digest: Annotated[str | None, typer.Option(help="The manifest digest that is registered and approved")] = None,
) -> None:
    """Checks every file against the manifest and, with --key, the signature. Exits 1 when anything does not hold.

    Example: portcullis weights verify ./llama-sealed --key release.pem.pub
    """
    from core.errors import BadSignature
    from weights import signing
    from weights.sealed import check, inspect

    sealed = inspect(folder)
    if digest is not None and digest != sealed.digest:
        raise BadSignature(f"NOT VERIFIED: the manifest is {sealed.digest}", where=str(folder))
    size = sum(file.sealed_size for file in sealed.manifest.files)
    with _progress(session(context), "checking", size) as advance:
        check(sealed, progress=advance)
    if key is not None:
        signing.verify(folder, key)
    signature = "verified" if key is not None else "not checked: no --key" if sealed.signed else "none"
    shown = {"manifest": sealed.digest, "files": len(sealed.manifest.files), "signature": signature}
    session(context).result(shown, f"{sealed.digest}: {len(sealed.manifest.files)} files whole; signature {signature}")


@app.command()
def inspect(context: typer.Context, folder: Folder) -> None:
    """What a sealed folder holds; needs no key."""
    from weights.sealed import inspect as look

    sealed = look(folder)
    shown = table("FILE", "BYTES", "TENSORS")
    for file in sealed.manifest.files:
        shown.add_row(file.path, f"{file.size:,}", "" if file.tensors is None else str(file.tensors))
    here = session(context)
    value = {
        "manifest": sealed.digest,
        "files": [file.as_json() for file in sealed.manifest.files],
        "segment_bytes": sealed.manifest.parameters.segment_bytes,
        "keys": [{"provider": key.provider, "kek": key.kek} for key in sealed.keys],
        "signed": sealed.signed,
    }
    if not here.json:
        keys = ", ".join(f"{key.provider}/{key.kek}" for key in sealed.keys)
        here.out.print(f"{sealed.digest}\nkeys: {keys}\nsigned: {'yes' if sealed.signed else 'no'}", markup=False)
    here.result(value, shown)


@contextmanager
def _progress(here: Session, what: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for what takes long; none with --json or where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    hidden = here.json or not os.isatty(2)
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bar:
        task = bar.add_task(what, total=size)
        yield lambda count: bar.advance(task, count)
