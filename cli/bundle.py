"""`portcullis policy bundle`: rules as one file that travels, built the same everywhere, signed, checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.models import private_key
from cli.session import read_bytes, session
from core.errors import BadInput, ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from policies.distribution import Distribution

app = typer.Typer(help="Rules as one file: build, sign, verify.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A bundle file")]
Key = Annotated[Path, typer.Option(help="Your private Ed25519 key (portcullis identity keygen)")]


@app.command()
def build(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write")] = Path("bundle.tar.gz"),
    extra: Annotated[list[Path] | None, typer.Option(help="A folder with rules of your own, beside policy.extra")] = None,
    key: Annotated[Path | None, typer.Option(help="Sign it with this private Ed25519 key")] = None,
    wasm: Annotated[bool, typer.Option("--wasm/--no-wasm", help="Compile a Wasm module too; needs an opa program")] = True,
) -> None:
    """Runs every rule's tests, then builds one OPA bundle, the same bytes from the same rules. Exits 1 when a test fails.

    Example: portcullis policy bundle build -o bundle.tar.gz --key release.pem
    """
    from policies import distribution
    from policies.check import load_tree
    from policies.testing import run

    here = session(context)
    folders = [*(Path(folder) for folder in here.settings.policy.extra), *(extra or [])]
    results = run(extra=folders)
    failed = [result.name for result in results if result.passed is False]
    if failed:
        here.result({"failed": failed}, "\n".join(f"FAIL {name}" for name in failed))
        raise typer.Exit(1)
    opa = distribution.find_opa() if wasm else None
    if wasm and opa is None:
        raise ConfigError(
            "there is no opa program (PATH or PORTCULLIS_OPA), so no Wasm module; --no-wasm builds without", where="opa"
        )
    loaded = load_tree(None, folders)
    module = None if opa is None else distribution.compile_wasm(loaded.bundle, opa)
    signer = None if key is None else private_key(key)
    data = distribution.build(loaded, wasm=module, tests=len(results), key=signer)
    _write(output, data)
    shown = _shown(distribution.read(data, key=signer.public_key() if signer else None), output)
    here.result(shown, _lines(shown))


@app.command()
def sign(context: typer.Context, bundle: File, key: Key) -> None:
    """Signs a bundle, as `opa sign --signing-alg EdDSA` does; the file is replaced."""
    from policies import distribution

    signer = private_key(key)
    found = distribution.read_file(bundle)
    data = distribution.build(found.loaded, wasm=found.wasm, tests=int(found.about["tests"]), key=signer)
    _write(bundle, data)
    shown = _shown(distribution.read(data, key=signer.public_key()), bundle)
    session(context).result(shown, _lines(shown))


@app.command()
def verify(
    context: typer.Context,
    bundle: File,
    key: Annotated[Path | None, typer.Option(help="The signer's public key, had from somewhere else")] = None,
) -> None:
    """Checks a bundle: its rules, its revision, its Wasm module, and with --key its signature. Exits 1 when anything does not hold,
    and without --key, for then nobody vouches for it."""
    from policies import distribution

    found = distribution.read_file(bundle, key=None if key is None else _public_key(key))
    shown = _shown(found, bundle)
    session(context).result(shown, _lines(shown))
    raise typer.Exit(0 if found.signed else 1)


def _shown(found: Distribution, path: Path) -> dict[str, Any]:
    return {
        "bundle": str(path),
        "revision": found.revision,
        "wasm": found.about["wasm"],
        "rules": found.about["rules"],
        "tests": found.about["tests"],
        "signature": "verified" if found.signed else "not checked: no key",
    }


def _lines(shown: dict[str, Any]) -> str:
    rules = sum(len(ids) for ids in shown["rules"].values())
    return (
        f"{shown['bundle']}\nrevision   {shown['revision']}\nwasm       {shown['wasm'] or 'none'}\n"
        f"rules      {rules}, {shown['tests']} tests passed when it was built\nsignature  {shown['signature']}"
    )


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        found = load_pem_public_key(read_bytes(str(path)))
    except ValueError as error:
        raise BadInput("is not a public key in PEM", where=str(path)) from error
    if not isinstance(found, Ed25519PublicKey):
        raise BadInput("is not an Ed25519 key; make one with portcullis identity keygen", where=str(path))
    return found


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", where=str(path)) from error
