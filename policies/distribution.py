"""A bundle as one file that travels: OPA's own bundle format (a gzipped tar), built bit for bit the same from the same rules.

    .manifest           OPA's: the revision, the roots; under metadata.portcullis what the bundle holds, what it uses, what it was
                        tried with, and the Wasm module's digest
    lib/… rules/… generated/…   the Rego modules
    policy.wasm         the same rules, compiled with one entrypoint per domain; only where an `opa` program was there
    .signatures.json    a JSON web token (EdDSA or ES256) over every file, as `opa sign` makes it and OPA checks it

The revision names the Rego alone (`policies.bundle`); `.manifest` leaves `wasm` out, for an OPA built without a Wasm engine stops on it.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from core.canonical import sha256
from core.decision import DOMAINS, MANDATORY
from core.errors import BadInput, BadSignature, Broken, ConfigError, Unavailable
from core.jsonread import loads_object
from core.names import is_digest
from policies import bundle_keys
from policies.builtins import used
from policies.bundle import MANIFEST, Bundle
from policies.bundle_keys import SigningKey, VerifyKey
from policies.check import Loaded, load_modules
from policies.syntax import parse
from policies.tree import rule_of

WASM, SIGNATURES = "policy.wasm", ".signatures.json"
FORMAT = "portcullis.dev/bundle/v1"
STRUCTURED = frozenset({MANIFEST, "data.json", SIGNATURES})
"""Files that OPA hashes by their content and not by their bytes."""
MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 5_000
MAX_COUNT = 2**53 - 1
COMPILE_SECONDS = 300
_BUILD_AGAIN = "build it again with portcullis policy bundle build"


@dataclass(frozen=True)
class Distribution:
    """A bundle file, read and checked. `signed`: by the key that was asked for. `data`: the file itself."""

    loaded: Loaded
    wasm: bytes | None
    about: Mapping[str, Any]
    signed: bool
    data: bytes

    @property
    def revision(self) -> str:
        return self.loaded.bundle.revision

    @property
    def serial(self) -> int:
        return int(self.about["serial"])


def build(
    loaded: Loaded,
    *,
    wasm: bytes | None,
    tests: int,
    corpus: Mapping[str, Any] | None = None,
    serial: int = 0,
    key: SigningKey | None = None,
) -> bytes:
    """The bundle file of these rules. The same arguments give the same bytes (signatures are deterministic).

    `tests` is how many passed, `corpus` what `policies.corpus.summary` says of the inputs that got their decision. `serial` says which of two bundles is the newer one: a door that checks signatures goes back to no smaller one.
    """
    files = loaded.bundle.files()
    if wasm is not None:
        files[WASM] = wasm
    manifest = json.loads(files[MANIFEST])
    manifest["metadata"] = {"portcullis": {**_about(loaded.bundle, wasm, tests, corpus), "serial": serial}}
    files[MANIFEST] = json.dumps(manifest, sort_keys=True).encode() + b"\n"
    if key is not None:
        files[SIGNATURES] = sign(files, key)
    return _packed(files)


def _about(bundle: Bundle, wasm: bytes | None, tests: int, corpus: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "wasm": None if wasm is None else sha256(wasm),
        **_content(bundle),
        "mandatory": {domain: list(MANDATORY[domain]) for domain in DOMAINS},
        "tests": tests,
        "corpus": corpus,
    }


def _content(bundle: Bundle) -> dict[str, Any]:
    """What the modules themselves say: the rules and those that grant, by domain, and every built-in that is used."""
    modules = {path: parse(path, text) for path, text in bundle.modules.items()}
    rules = {rule: syntax for path, syntax in modules.items() if (rule := rule_of(path)) is not None}
    granting = [rule for rule, syntax in rules.items() if "grant" in syntax.names]
    return {
        "rules": _by_domain(rules),
        "grants": _by_domain(granting),
        "builtins": sorted(set().union(*(used(syntax) for syntax in modules.values()))),
    }


def _by_domain(rules: Iterable[str]) -> dict[str, list[str]]:
    return {domain: sorted(rule for rule in rules if rule.startswith(f"{domain}/")) for domain in DOMAINS}


def read(data: bytes, *, key: VerifyKey | None = None, where: str = "bundle") -> Distribution:
    """The bundle in `data`, every rule checked as at load.

    With `key`, BadSignature unless it signed exactly these files. Broken for what is no bundle, for content that is not its
    revision, for a Wasm module that is not the one the manifest names, and for a manifest that says other rules, grants or
    built-ins than the modules have. How many tests and which inputs passed, only who signed can vouch for.
    """
    files = _unpacked(data, where)
    signatures = files.pop(SIGNATURES, None)
    if key is not None:
        if signatures is None:
            raise BadSignature("the bundle is not signed, and policy.verify_key asks for it", where=where)
        verify(files, signatures, key, where=where)
    wasm = files.pop(WASM, None)
    bundle = Bundle.from_files(files)
    about = loads_object(files[MANIFEST]).get("metadata", {})
    about = about.get("portcullis") if isinstance(about, dict) else None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise Broken(f"the manifest does not say {FORMAT}; {_BUILD_AGAIN}", where=where)
    if about.get("wasm") != (None if wasm is None else sha256(wasm)):
        raise Broken("policy.wasm is not the module that the manifest names", where=where)
    loaded = load_modules(bundle)
    _check_about(about, bundle, where)
    return Distribution(loaded, wasm, about, signed=key is not None, data=data)


def _check_about(about: Mapping[str, Any], bundle: Bundle, where: str) -> None:
    """Broken unless the manifest says what the modules say, and says the rest in the form that `build` gives it."""
    for name, found in _content(bundle).items():
        if about.get(name) != found:
            raise Broken(f"the manifest's {name} are not those of the modules; {_BUILD_AGAIN}", where=where)
    for name in ("serial", "tests"):
        if not _is_count(about.get(name)):
            raise Broken(f"the manifest's {name} is no number from 0; {_BUILD_AGAIN}", where=where)
    corpus = about.get("corpus")
    if corpus is None and "corpus" in about:
        return
    if not isinstance(corpus, dict) or corpus.keys() != {"inputs", "digest"} or not _is_count(corpus["inputs"]):
        raise Broken(f"the manifest's corpus is neither null nor inputs and their digest; {_BUILD_AGAIN}", where=where)
    if not isinstance(corpus["digest"], str) or not is_digest(corpus["digest"]):
        raise Broken(f"the digest of the manifest's corpus is none; {_BUILD_AGAIN}", where=where)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def read_file(path: Path, *, key: VerifyKey | None = None) -> Distribution:
    """As `read`. ConfigError when the file cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"has more than {MAX_BYTES} bytes", where=str(path))
        return read(path.read_bytes(), key=key, where=str(path))
    except OSError as error:
        raise ConfigError(f"the bundle cannot be read: {error.strerror}", where=str(path)) from error


def compile_wasm(bundle: Bundle, opa: str) -> bytes:
    """The rules as a Wasm module, by the program `opa`. Unavailable when it cannot be run, Broken when it does not like them."""
    with tempfile.TemporaryDirectory(prefix="portcullis-bundle-") as folder:
        bundle.write(Path(folder) / "rules")
        entrypoints = [part for domain in DOMAINS for part in ("-e", f"portcullis/{domain}/decision")]
        command = [opa, "build", "-t", "wasm", *entrypoints, "-b", "rules", "-o", "out.tar.gz"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"the program cannot be run: {type(error).__name__}", where=opa) from error
        if done.returncode != 0:
            raise Broken(f"opa build: {done.stderr.strip()[:500]}", where=opa)
        return _unpacked((Path(folder) / "out.tar.gz").read_bytes(), "out.tar.gz")[WASM]


def check_module(found: Distribution, opa: str | None) -> None:
    """Raises unless the bundle's Wasm module is what its Rego compiles to: people read the Rego, and the module would decide.

    Unavailable without an `opa` program; Broken when the module is another one, or another version of OPA made it.
    """
    if found.wasm is None:
        return
    if opa is None:
        raise Unavailable(
            "nobody can see from here what the Wasm module does: it takes an opa program (PATH or PORTCULLIS_OPA) to compile the "
            "rules again and compare; propose a bundle built with --no-wasm otherwise",
            where="policy.wasm",
        )
    if compile_wasm(found.loaded.bundle, opa) != found.wasm:
        raise Broken(
            "policy.wasm is not what these rules compile to here: it was changed, or made by another version of OPA; build the "
            "bundle again with this one",
            where="policy.wasm",
        )


def find_opa() -> str | None:
    """An OPA program: PORTCULLIS_OPA, else the one on PATH."""
    return os.environ.get("PORTCULLIS_OPA") or shutil.which("opa")


# --- signatures, as OPA makes and checks them --------------------------------------------------------------------------


def sign(files: Mapping[str, bytes], key: SigningKey) -> bytes:
    """`.signatures.json` over `files` (openpolicyagent.org/docs/management-bundles, Signature Format; RFC 7515, RFC 8037)."""
    signed = b".".join(_encoded(part) for part in ({"alg": bundle_keys.algorithm(key)}, {"files": _listed(files)}))
    token = signed + b"." + base64.urlsafe_b64encode(bundle_keys.signature(key, signed)).rstrip(b"=")
    return json.dumps({"signatures": [token.decode()]}).encode() + b"\n"


def verify(files: Mapping[str, bytes], signatures: bytes, key: VerifyKey, *, where: str) -> None:
    """BadSignature unless `signatures` is `key`'s over exactly `files`: none changed, missing or added."""
    try:
        tokens = loads_object(signatures).get("signatures")
    except BadInput as error:
        raise BadSignature("the signature cannot be read", where=where) from error
    parts = (
        tokens[0].encode().split(b".") if isinstance(tokens, list) and len(tokens) == 1 and isinstance(tokens[0], str) else []
    )
    if len(parts) != 3:
        raise BadSignature("there must be exactly one signature, a JSON web token", where=where)
    try:
        header, payload, signature = (_decoded(part) for part in parts)
        name = bundle_keys.algorithm(key)
        if loads_object(header) not in ({"alg": name}, {"alg": name, "typ": "JWT"}):
            raise BadSignature(f"is not signed by {name}, as the key of policy.verify_key signs", where=where)
        bundle_keys.check(key, signature, parts[0] + b"." + parts[1])
        listed = loads_object(payload).get("files")
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise BadSignature("the signature is not by the key of policy.verify_key, or not over this", where=where) from error
    except BadInput as error:
        raise BadSignature("the signature cannot be read", where=where) from error
    if not isinstance(listed, list) or sorted(map(_entry, listed)) != sorted(map(_entry, _listed(files))):
        raise BadSignature("a file was changed, added or taken away after the bundle was signed", where=where)


def _listed(files: Mapping[str, bytes]) -> list[dict[str, str]]:
    return [{"algorithm": "SHA-256", "hash": _hash(name, data), "name": name} for name, data in sorted(files.items())]


def _entry(value: Any) -> str:
    """One line of the list, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True)


def _hash(name: str, data: bytes) -> str:
    """OPA hashes JSON documents by their content: keys sorted, no white space."""
    if name in STRUCTURED:
        data = json.dumps(loads_object(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return hashlib.sha256(data).hexdigest()


def _encoded(value: Mapping[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).rstrip(b"=")


def _decoded(part: bytes) -> bytes:
    return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)


# --- the archive -------------------------------------------------------------------------------------------------------


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Sorted, owned by nobody, dated 1970: the bytes depend on the content alone."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(plain.getvalue())
    return packed.getvalue()


def _unpacked(data: bytes, where: str) -> dict[str, bytes]:
    """The regular files of the archive by name. Broken for anything else in it, a name twice, or more than is read."""
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                name = entry.name.removeprefix("/").removeprefix("./")
                left -= entry.size
                if not entry.isfile() or left < 0 or name in files or len(files) >= MAX_FILES:
                    raise Broken(
                        "holds something other than plain files, a name twice, or too much", where=f"{where}: {name[:120]}"
                    )
                content = archive.extractfile(entry)
                files[name] = content.read() if content is not None else b""
            # tarfile stops at its end mark: without this, neither what follows nor the checksum at the end would be looked at.
            rest = stream.read(tarfile.RECORDSIZE + 1)
            if len(rest) > tarfile.RECORDSIZE or rest.strip(b"\0"):
                raise Broken("something follows after the end of the archive", where=where)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise Broken("is no bundle: not a gzipped tar archive", where=where) from error
    return files
