"""`portcullis policy bundle`: rules as one file that travels, built the same everywhere, signed, checked, and reviewed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.models import private_key
from cli.policy import show_decision
from cli.session import read_bytes, session, table
from core.errors import BadInput, ConfigError

if TYPE_CHECKING:
    from api.compose import Management
    from cli.session import Session
    from core.principal import Principal
    from policies.check import Loaded
    from policies.corpus import Expected
    from policies.distribution import Distribution
    from policies.proposals import Proposal

PROGRESS_SECONDS = 2

app = typer.Typer(help="Rules as one file: build, sign, verify; proposed, approved by two people.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A bundle file")]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--inputs",
        help="Inputs with the decision that each must get, a file or a folder of .jsonl files: {domain, input, expect} per line",
    ),
]
Key = Annotated[Path, typer.Option(help="Your private Ed25519 key (portcullis identity keygen)")]


@app.command()
def build(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write")] = Path("bundle.tar.gz"),
    extra: Annotated[list[Path] | None, typer.Option(help="A folder with rules of your own, beside policy.extra")] = None,
    key: Annotated[Path | None, typer.Option(help="Sign it with this private key, Ed25519 or P-256")] = None,
    serial: Annotated[
        int,
        typer.Option(
            min=0, max=2**53 - 1, help="Which of two bundles is newer: doors with policy.verify_key go back to no smaller one"
        ),
    ] = 0,
    wasm: Annotated[bool, typer.Option("--wasm/--no-wasm", help="Compile a Wasm module too; needs an opa program")] = True,
    inputs: Inputs = None,
) -> None:
    """Runs every rule's tests, then builds one OPA bundle, the same bytes from the same rules. Exits 1 when a test fails.

    With --inputs each input is decided too, by the embedded engine and by the Wasm module where one is built; without the decision
    that it must get, or when the two engines' documents differ in a byte, nothing is built. The manifest says how many passed.

    Example: portcullis policy bundle build -o bundle.tar.gz --key release.pem --inputs corpus/
    """
    from policies import corpus, distribution
    from policies.bundle_keys import read_signing_key
    from policies.check import load_tree
    from policies.testing import run

    here = session(context)
    expected = corpus.read(inputs) if inputs else []
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
    _hold(here, loaded, module, expected)
    signer = None if key is None else read_signing_key(read_bytes(str(key)), where=str(key))
    tried = corpus.summary(expected) if expected else None
    data = distribution.build(loaded, wasm=module, tests=len(results), corpus=tried, serial=serial, key=signer)
    _write(output, data)
    shown = _shown(distribution.read(data, key=signer.public_key() if signer else None), output)
    here.result(shown, _lines(shown))


def _hold(here: Session, loaded: Loaded, module: bytes | None, expected: list[Expected]) -> None:
    """Exits 1, with what is wrong, unless every input gets its decision."""
    from policies import corpus

    failed = []
    said = time.monotonic()
    for number, (one, problems) in enumerate(corpus.failures(loaded, module, expected), 1):
        failed += [f"{one.where}: {problem}" for problem in problems]
        if time.monotonic() - said > PROGRESS_SECONDS:
            here.say(f"{number} of {len(expected)} inputs decided, {len(failed)} problems")
            said = time.monotonic()
    if failed:
        here.result({"failed": failed}, "\n".join(f"FAIL {line}" for line in failed))
        raise typer.Exit(1)


@app.command()
def sign(
    context: typer.Context,
    bundle: File,
    key: Annotated[Path, typer.Option(help="The private key, Ed25519 or P-256")],
) -> None:
    """Signs a bundle, as `opa sign --signing-alg EdDSA` does, or ES256 with a key on P-256; the file is replaced."""
    from policies import distribution
    from policies.bundle_keys import read_signing_key

    signer = read_signing_key(read_bytes(str(key)), where=str(key))
    found = distribution.read_file(bundle)
    data = distribution.build(
        found.loaded,
        wasm=found.wasm,
        tests=found.about["tests"],
        corpus=found.about["corpus"],
        serial=found.serial,
        key=signer,
    )
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
    from policies.bundle_keys import read_verify_key

    found = distribution.read_file(bundle, key=None if key is None else read_verify_key(read_bytes(str(key)), where=str(key)))
    shown = _shown(found, bundle)
    session(context).result(shown, _lines(shown))
    raise typer.Exit(0 if found.signed else 1)


Reason = Annotated[str, typer.Option("--reason", "-m", help="Why, on one line; it is kept with the proposal")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The proposal, as policy bundle list shows it")]


@app.command()
def propose(context: typer.Context, bundle: File, reason: Reason) -> None:
    """Proposes that this bundle shall decide, and shows what differs from what runs. It takes effect by policy rollout, once
    two registered approvers other than you have signed it.

    Example: portcullis policy bundle propose bundle.tar.gz -m "quota by namespace"
    """
    from policies import distribution
    from policies.engine import verify_key

    here = session(context)
    data = read_bytes(str(bundle))
    found = distribution.read(data, key=verify_key(here.settings.policy), where=str(bundle))

    async def work(management: Management, operator: Principal) -> Proposal:
        async with management.engine() as engine:
            return await management.proposals.propose_bundle(
                data, found, running=engine.base.loaded, by=operator, reason=reason
            )

    made = here.run(work)
    here.result(_told(made), proposal_lines(made))


@app.command("list")
def list_proposals(
    context: typer.Context, every: Annotated[bool, typer.Option("--all", help="Also ended ones")] = False
) -> None:
    """Proposed changes of policy and how many have signed each."""

    async def work(management: Management, _: Principal) -> list[Proposal]:
        return await management.proposals.list(None if every else "open")

    found = session(context).run(work)
    shown = table("ID", "CHANGE", "STATE", "SIGNED", "REVISION", "REASON")
    for one in found:
        shown.add_row(one.id, one.change, one.state, str(len(one.signatures)), one.revision[7:19], one.reason)
    session(context).result([_told(one) for one in found], shown)


@app.command()
def show(
    context: typer.Context,
    proposal: Id,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the proposed content here, to look at it")
    ] = None,
) -> None:
    """One proposal: what differs, who signed. People are references."""

    async def work(management: Management, _: Principal) -> Proposal:
        found = await management.proposals.get(proposal)
        if output is not None:
            _write(output, await management.proposals.content(proposal))
        return found

    found = session(context).run(work)
    session(context).result(_told(found), proposal_lines(found))


@app.command()
def approve(context: typer.Context, proposal: Id, key: Key) -> None:
    """Signs exactly the proposed content with your key and submits it. Exits 1, with the reasons, when it does not count."""
    private = private_key(key)

    async def work(management: Management, _: Principal) -> Any:
        from policies.proposals import sign_approval

        found = await management.proposals.get(proposal)
        envelope = sign_approval(private, found, tenant=management.settings.tenant, issued_unix=management.clock.now_unix())
        async with management.engine() as engine:
            return await management.proposals.approve(envelope, engine=engine)

    decision = session(context).run(work)
    session(context).result(decision.as_json(), show_decision(decision))


@app.command()
def withdraw(context: typer.Context, proposal: Id, reason: Reason) -> None:
    """Ends an open proposal; it can take effect no more."""

    async def work(management: Management, operator: Principal) -> None:
        await management.proposals.withdraw(proposal, by=operator, reason=reason)

    session(context).run(work)
    session(context).result({"proposal": proposal, "state": "withdrawn"}, f"{proposal} is withdrawn")


@app.command()
def rollback(
    context: typer.Context,
    to: Annotated[
        str, typer.Argument(metavar="TO", help="The proposal that ran before, or `settings` for what the settings name")
    ],
    reason: Reason,
) -> None:
    """Proposes to go back to rules that ran before. It needs two signatures like any change: policy bundle approve, then
    policy rollout start."""

    async def work(management: Management, operator: Principal) -> Proposal:
        async with management.engine() as engine:
            return await management.director.propose_rollback(
                "" if to == "settings" else to,
                running=engine.base.loaded,
                configured=engine.configured,
                by=operator,
                reason=reason,
            )

    made = session(context).run(work)
    session(context).result(_told(made), proposal_lines(made))


def _told(found: Proposal) -> dict[str, Any]:
    return asdict(found)


def proposal_lines(found: Proposal) -> str:
    lines = [f"{found.id}  {found.change}, {found.state}", f"content    {found.digest}"]
    lines += [f"revision   {found.revision}"] if found.revision else []
    lines.append(f"reason     {found.reason}")
    for name in ("added", "removed", "changed", "other", "severity", "weakens"):
        lines += [f"{name:10} {item}" for item in found.summary.get(name, ())]
    lines += [f"{'differs':10} {change_line(item)}" for item in found.summary.get("differences", ())]
    lines += [f"signed     {one.person} with {one.key_id}" for one in found.signatures] or ["signed     nobody yet"]
    if found.state == "open":
        lines.append(f"next: portcullis policy bundle approve {found.id} --key YOUR.pem")
        lines += [f"then: portcullis config apply {found.id}"] if found.change == "configuration" else []
    return "\n".join(lines)


def change_line(change: Mapping[str, Any]) -> str:
    """One value of the configuration that differs."""
    sign = "+" if change["added"] else "-" if change["removed"] else "~"
    return f"{sign} {change['path']}: {change['before']!r} -> {change['after']!r}"


def _shown(found: Distribution, path: Path) -> dict[str, Any]:
    return {
        "bundle": str(path),
        "revision": found.revision,
        "serial": found.serial,
        "wasm": found.about["wasm"],
        "rules": found.about["rules"],
        "grants": found.about["grants"],
        "builtins": found.about["builtins"],
        "tests": found.about["tests"],
        "corpus": found.about["corpus"],
        "signature": "verified" if found.signed else "not checked: no key",
    }


def _lines(shown: dict[str, Any]) -> str:
    rules, grants = (sum(len(ids) for ids in shown[name].values()) for name in ("rules", "grants"))
    corpus = "none" if shown["corpus"] is None else f"{shown['corpus']['inputs']} inputs, {shown['corpus']['digest']}"
    return (
        f"{shown['bundle']}\nrevision   {shown['revision']}\nserial     {shown['serial']}\nwasm       {shown['wasm'] or 'none'}\n"
        f"rules      {rules}, of which {grants} grant; {shown['tests']} tests passed when it was built\n"
        f"built-ins  {', '.join(shown['builtins'])}\ncorpus     {corpus}\nsignature  {shown['signature']}"
    )


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", where=str(path)) from error
