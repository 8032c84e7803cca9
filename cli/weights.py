"""`portcullis weights`: sealing, signing, and opening by permission."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.policy import show_decision
from cli.session import Session, session, table
from core.errors import BadInput, Conflict, NotFound, PortcullisError
from core.names import ModelRef, check_digest

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal
    from weights.sealed import Sealed

app = typer.Typer(help="Sealed, signed weights: FLOE, OMS, keys released by policy.", no_args_is_help=True)

Folder = Annotated[str, typer.Argument(help="A sealed folder, or sealed://PATH@sha256:… to say which one it must be")]
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
    from weights.reference import SealedReference

    here = session(context)
    ref = None if model is None else ModelRef.parse(model)

    async def work(management: Management, operator: Principal) -> Sealed:
        from weights.sealed import seal

        if ref is not None and await management.registry.model(operator.tenant, ref) is None:
            raise NotFound(f"{ref} is not registered; nothing was sealed")
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
        async with _careful():
            with _progress(here, "sealing", size) as advance:
                made = await seal(source, target, management.weight_keys, progress=advance)
        if ref is not None:
            try:
                await management.models.set_manifest(ref, made.digest, by=operator)
            except PortcullisError:
                here.say(f"sealed into {target}, but not registered; later: model register {ref} --manifest {made.digest}")
                raise
        return made

    made = here.run(work)
    uri = str(SealedReference(str(target), made.digest))
    shown = {"manifest": made.digest, "files": len(made.manifest.files), "uri": uri, "model": model}
    here.result(shown, f"{made.digest}\n{uri}")


@app.command("open")
def open_folder(
    context: typer.Context,
    source: Folder,
    target: Annotated[Path, typer.Argument(help="The folder of plain weights to make")],
    model: Annotated[str, typer.Option("--model", metavar="NAME@VERSION", help="The registered version it is")],
) -> None:
    """Opens a sealed folder when policy releases its key. Exits 1, with the reasons, when it does not.

    Example: portcullis weights open ./llama-sealed ./llama --model llama-3@7
    """
    from weights.files import sweep

    here = session(context)
    if target.exists():
        raise Conflict("is there already; choose another place", where=str(target))
    sweep(target)  # whatever the decision: what a killed run left holds plain weights

    async def work(management: Management, operator: Principal) -> Any:
        from weights.sealed import check_listing, open_sealed, total

        sealed = _look(source)
        check_listing(sealed)
        async with _careful():
            async with management.engine() as engine:
                released = await management.key_release(engine).release(
                    operator, ModelRef.parse(model), sealed.digest, sealed.keys
                )
            if released.key is not None:
                with _progress(here, "opening", total(sealed.manifest.files)) as advance:
                    await open_sealed(sealed, target, released.key, progress=advance)
        return released.decision

    decision = here.run(work)
    if decision.allow:
        here.result({"opened": str(target), "decision": decision.as_json()}, str(target))
        return
    error = {"message": decision.explanation or "denied", "code": decision.code or "denied", "where": ""}
    here.result({"error": error, "decision": decision.as_json()}, show_decision(decision))
    raise typer.Exit(1)


@app.command()
def sign(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder to sign")],
    key: Annotated[Path, typer.Option(help="Your private signing key (weights keygen --signing)")],
) -> None:
    """Signs a folder by OMS; writes model.sig into it. A sealed folder is checked first, and signed but for its keys.json.

    Example: portcullis weights sign ./llama-sealed --key release.pem
    """
    from weights import signing
    from weights.sealed import check, inspect, is_sealed

    if is_sealed(folder):
        sealed = inspect(folder)
        with _progress(session(context), "checking", sum(file.sealed_size for file in sealed.manifest.files)) as advance:
            check(sealed, progress=advance)
    signature = signing.sign(folder, key)
    session(context).result({"signature": str(signature)}, str(signature))


@app.command()
def verify(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help="A folder, or sealed://PATH@sha256:… to say which one it must be")],
    key: Annotated[Path | None, typer.Option(help="The signer's public key, had from somewhere else")] = None,
    digest: Annotated[str | None, typer.Option(help="The manifest digest that is registered and approved")] = None,
) -> None:
    """Checks every file against the manifest and, with --key, the signature. Exits 1 when anything does not hold.

    A folder that is not sealed has a signature only, so --key is needed; --digest and sealed:// ask for a sealed one.

    Example: portcullis weights verify ./llama-sealed --key release.pem.pub
    """
    from weights import signing
    from weights.reference import SCHEME
    from weights.sealed import check, is_sealed

    here = session(context)
    if digest is None and not folder.startswith(SCHEME) and Path(folder).is_dir() and not is_sealed(Path(folder)):
        if key is None:
            raise BadInput("is not sealed, so only a signature can say what it must hold; give --key", where=folder)
        files = signing.verify(Path(folder), key)
        shown = {"manifest": None, "files": files, "signature": "verified"}
        here.result(shown, f"not sealed: {files} files as signed; signature verified")
        return
    sealed = _look(folder, digest)
    with _progress(here, "checking", sum(file.sealed_size for file in sealed.manifest.files)) as advance:
        check(sealed, progress=advance)
    if key is not None:
        signing.verify(sealed.folder, key)
    signature = "verified" if key is not None else "not checked: no --key" if sealed.signed else "none"
    shown = {"manifest": sealed.digest, "files": len(sealed.manifest.files), "signature": signature}
    here.result(shown, f"{sealed.digest}: {len(sealed.manifest.files)} files whole; signature {signature}")


@app.command()
def inspect(context: typer.Context, folder: Folder) -> None:
    """What a sealed folder says of itself; needs no key, and checks no file (weights verify does).

    Example: portcullis weights inspect ./llama-sealed
    """
    sealed = _look(folder)
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


def _look(place: str, digest: str | None = None) -> Sealed:
    """The sealed folder at a path, or at a sealed:// reference, which says its digest. SealBroken when it is another one."""
    from weights.reference import SCHEME, SealedReference
    from weights.sealed import inspect as look

    if digest is not None:
        check_digest(digest, "--digest")
    if not place.startswith(SCHEME):
        return look(Path(place), expected=digest)
    reference = SealedReference.parse(place)
    if digest not in (None, reference.digest):
        raise BadInput("--digest and the reference name different manifests", where=place)
    return look(Path(reference.path), expected=reference.digest)


@asynccontextmanager
async def _careful() -> AsyncIterator[None]:
    """While plain weights and their key are in this process: no core dump holds them, and SIGTERM and SIGHUP (a terminal that
    is closed) clean up as Ctrl-C does."""
    from cli.serving import ending

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    ended: list[int] = []

    def end(number: int) -> None:
        if not ended and task is not None:  # once: a second one must not interrupt the cleaning up
            task.cancel()
        ended.append(number)

    numbers = ending()
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        if ended:
            raise typer.Exit(128 + ended[0]) from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


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
