"""Checks an evidence package offline. One file: the standard library and `cryptography`, nothing of ours.

    python verifier.py PACKAGE --key log.pub [--earlier CHECKPOINT]

A package proves nothing about who signed it by a key that it brings itself, so the caller pins the signer's key. The steps:

 1. The archive has the one layout that packages have (stored, sorted, no names that leave the folder); rebuilt from its files
    it is the same bytes, so no byte of it goes unchecked.
 2. `manifest.json` is canonical JSON and names every other file with its SHA-256: none missing, none extra.
 3. `manifest.note` and `checkpoint` are signed by the pinned key (without one: by `keys/log.pub`, and the result says that
    the signer is not pinned); both speak of the same log.
 4. Every line of `records.jsonl` is a record in canonical form, in the order of `seq`, of the tenant stated.
 5. Completeness: every leaf from the first to the last `seq` stated is there, as a record or, where it belongs to another
    tenant, as a bare leaf hash.
 6. Each of these leaves is in the signed tree at its `seq` (RFC 6962 2.1.1).
 7. The tree extends the earlier checkpoint, where one is given (RFC 6962 2.1.2): history was not rewritten.
 8. Every input is what a record's digest says: none missing, none extra.
 9. Every bundle is the revision that a decision names: none missing, none extra.
10. `names.json`, where it is there, opens commitments that records hold.

`evidence.merkle` and `evidence.notes` use the functions here, so that there is one implementation of each check. The formats:
docs/formats/evidence-package.md, evidence-record.md, log.md.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import json
import re
import struct
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "portcullis.dev/evidence-package/v1"
MAX_PACKAGE_BYTES = 1 << 30
MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 64
ED25519 = 0x01
CLOCK_TOLERANCE = 300
"""Seconds by which a record may be dated after a later one before it is flagged."""

_RECORD_KEYS = {
    "v",
    "id",
    "seq",
    "time",
    "kind",
    "actor",
    "tenant",
    "subject",
    "decision",
    "digests",
    "controls",
    "commitments",
}
_PLACES = {
    "manifest.json", "manifest.note", "checkpoint", "records.jsonl", "names.json", "keys/log.pub",
    "proofs/inclusion.jsonl", "proofs/withheld.json", "proofs/consistency.json",
}  # fmt: skip
_FOLDERS = ("inputs/", "bundles/")
_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\Z")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


class VerificationFailed(Exception):
    """The package, proof or note is not what it claims to be; the message says which check failed and where."""


# --- canonical JSON (RFC 8785) -----------------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """`value` as RFC 8785 bytes. VerificationFailed for what that form cannot hold."""
    try:
        return _canonical(value).encode("utf-8")
    except (UnicodeEncodeError, RecursionError) as error:
        raise VerificationFailed("a value has no canonical form") from error


def _canonical(value: Any) -> str:
    if value is None or value is True or value is False or isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in keys) + "}"
    raise VerificationFailed(f"{type(value).__name__} has no canonical form")


def _integer(value: int) -> str:
    """Beyond 2^53 - 1 only what a double is written as (1e20 is 100000000000000000000): any other integer would change its value."""
    if abs(value) <= 2**53 - 1:
        return str(value)
    try:
        text = _number(float(value))
    except OverflowError as error:
        raise VerificationFailed("a number too large for a double has no canonical form") from error
    if text != str(value):
        raise VerificationFailed("an integer beyond 2^53 - 1 has no canonical form")
    return text


def _number(value: float) -> str:
    """ECMA-262 Number::toString, which RFC 8785 3.2.2.3 asks for."""
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124  (NaN)
        raise VerificationFailed("NaN and infinities have no canonical form")
    if value == 0:
        return "0"
    shortest = Decimal(repr(abs(value))).normalize().as_tuple()
    digits = "".join(map(str, shortest.digits))
    point = len(digits) + int(shortest.exponent)
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        text = f"{digits[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return "-" + text if value < 0 else text


def parse_canonical(data: bytes, where: str) -> Any:
    """The JSON value in `data`, which must be its canonical form (so: no duplicate keys, no white space, one meaning)."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise VerificationFailed(f"{where}: not JSON") from error
    if canonical(value) != data:
        raise VerificationFailed(f"{where}: not in canonical form (RFC 8785)")
    return value


def _no_constant(name: str) -> Never:
    raise VerificationFailed(f"{name} is not JSON")


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def from_base64(text: str, where: str) -> bytes:
    """The bytes of standard base64 in its one exact spelling (unused bits zero)."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationFailed(f"{where}: not base64") from error
    if base64.b64encode(data).decode() != text:
        raise VerificationFailed(f"{where}: not base64 in its exact form")
    return data


# --- Merkle tree (RFC 6962) --------------------------------------------------------------------------------------


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


EMPTY_ROOT = hashlib.sha256(b"").digest()


def _check_hashes(**named: bytes | Sequence[bytes]) -> None:
    for name, value in named.items():
        for item in [value] if isinstance(value, (bytes, bytearray)) else value:
            if len(item) != 32:
                raise VerificationFailed(f"{name}: a hash has 32 bytes, found {len(item)}")


def verify_inclusion(leaf: bytes, index: int, tree_size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Returns when `leaf` (a leaf hash) is at `index` of the tree of `tree_size` with `root`; VerificationFailed otherwise.

    The algorithm of RFC 9162 2.1.3.2, which is exact about the proof's length.
    """
    if not 0 <= index < tree_size:
        raise VerificationFailed(f"there is no leaf {index} in a tree of {tree_size}")
    _check_hashes(leaf=leaf, root=root, proof=proof)
    at, last, value = index, tree_size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise VerificationFailed("the inclusion proof is too long")
        if at & 1 or at == last:
            value = node_hash(sibling, value)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise VerificationFailed("the inclusion proof is too short")
    if not hmac.compare_digest(value, root):
        raise VerificationFailed("the inclusion proof does not lead to the root")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Returns when the tree (`size2`, `root2`) extends (`size1`, `root1`); VerificationFailed otherwise. RFC 9162 2.1.4.2.

    Every tree extends the empty one: with `size1` 0 the proof must be empty and `root1` the empty tree's own root, so that a
    made-up root of size 0 is not a way round the check.
    """
    if not 0 <= size1 <= size2:
        raise VerificationFailed(f"a tree of {size2} cannot extend one of {size1}")
    _check_hashes(root1=root1, root2=root2, proof=proof)
    if (size1 == 0 and root1 != EMPTY_ROOT) or (size2 == 0 and root2 != EMPTY_ROOT):
        raise VerificationFailed("the root of size 0 is not the empty tree's")
    if size1 in (0, size2):
        if proof:
            raise VerificationFailed("this consistency proof must be empty")
        if size1 == size2 and root1 != root2:
            raise VerificationFailed(f"two roots for one size ({size1}): the log has forked")
        return
    # A first tree that is complete is itself the first hash of the path.
    path = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    if not path:
        raise VerificationFailed("the consistency proof is empty")
    first, second = _climb(size1, size2, path)
    if not (hmac.compare_digest(first, root1) and hmac.compare_digest(second, root2)):
        raise VerificationFailed("the consistency proof does not join the two roots: the log was rewritten")


def _climb(size1: int, size2: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots that the path of a consistency proof leads to."""
    at, last = size1 - 1, size2 - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for step in path[1:]:
        if last == 0:
            raise VerificationFailed("the consistency proof is too long")
        if at & 1 or at == last:
            first, second = node_hash(step, first), node_hash(step, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, step)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise VerificationFailed("the consistency proof is too short")
    return first, second


# --- signed notes and checkpoints (C2SP) -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """`NAME+HASH+BASE64`: who signs, under which Ed25519 key."""

    name: str
    key_id: bytes
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise VerificationFailed("not a verifier key; expected NAME+HASH+BASE64")
        name, hint, encoded = parts
        data = from_base64(encoded, "verifier key")
        if len(data) != 33 or data[0] != ED25519:
            raise VerificationFailed("the verifier key is not an Ed25519 key (type 0x01)")
        key = cls(name, key_id(name, data[1:]), data[1:])
        if hint != key.key_id.hex():
            raise VerificationFailed("the verifier key's hash is not that of its name and key")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([ED25519]) + self.public).decode()}"


def key_id(name: str, public: bytes) -> bytes:
    """C2SP signed-note: SHA-256(name || 0x0A || type || public key), first four bytes."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([ED25519]) + public).digest()[:4]


def check_key_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() or ord(character) < 0x20 for character in name):
        raise VerificationFailed("a key's name must not be empty nor hold spaces, control characters or '+'")


def open_note(data: bytes, keys: Sequence[VerifierKey]) -> str:
    """The text of a signed note that at least one of `keys` has signed.

    Unknown keys are ignored; a known key whose signature is wrong rejects the note, and so does a key that signs twice.
    """
    text, signatures = split_note(data)
    good: set[tuple[str, bytes]] = set()
    for name, blob in signatures:
        for key in keys:
            if (key.name, key.key_id) != (name, blob[:4]):
                continue
            if (name, blob[:4]) in good:
                raise VerificationFailed(f"the note has two signatures of {name}")
            try:
                Ed25519PublicKey.from_public_bytes(key.public).verify(blob[4:], text.encode())
            except (InvalidSignature, ValueError) as error:
                raise VerificationFailed(f"the signature of {name} does not fit the text") from error
            good.add((name, blob[:4]))
    if not good:
        raise VerificationFailed("the note is not signed by the key asked for")
    return text


def split_note(data: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and (name, key id + signature) pairs of a signed note; says nothing about who signed."""
    if len(data) > MAX_NOTE_BYTES:
        raise VerificationFailed("the note is too large")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationFailed("the note is not UTF-8") from error
    if any(ord(character) < 0x20 and character != "\n" for character in note):
        raise VerificationFailed("the note holds control characters")
    text, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n") or not text:
        raise VerificationFailed("the note has no text and signatures divided by a blank line")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise VerificationFailed(f"the note has more than {MAX_SIGNATURES} signatures")
    signatures = []
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\u2014":
            raise VerificationFailed("a signature line does not begin with an em dash")
        check_key_name(name)
        blob = from_base64(encoded, "signature")
        if len(blob) < 5:
            raise VerificationFailed("a signature is too short")
        signatures.append((name, blob))
    return text + "\n", signatures


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: which log, how many leaves, which root."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The body of a tlog-checkpoint (a note's text)."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] != "" or not all(lines[:-1]):
            raise VerificationFailed("a checkpoint has the lines origin, size and root")
        if not _DECIMAL.match(lines[1]):
            raise VerificationFailed("the checkpoint's size is not a decimal number")
        root = from_base64(lines[2], "checkpoint root")
        _check_hashes(checkpoint_root=root)
        return cls(lines[0], int(lines[1]), root)

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def open_checkpoint(data: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a note signed by `key`, whose name must be its origin."""
    checkpoint = Checkpoint.parse(open_note(data, [key]))
    if checkpoint.origin != key.name:
        raise VerificationFailed(f"the checkpoint is of {checkpoint.origin}, the key of {key.name}")
    return checkpoint


# --- the archive -------------------------------------------------------------------------------------------------

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_DATE = 0x21  # 1980-01-01, the earliest the format knows


def pack(files: Mapping[str, bytes]) -> bytes:
    """The one zip archive of `files`: sorted, stored, dated 1980, so that equal files are equal bytes."""
    body, directory = bytearray(), bytearray()
    for name in sorted(files):
        check_member_name(name)
        data, encoded = files[name], name.encode("ascii")
        common = (20, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(encoded), 0)
        directory += _CENTRAL.pack(0x02014B50, 0x0314, *common, 0, 0, 0, 0o100600 << 16, len(body)) + encoded
        body += _LOCAL.pack(0x04034B50, *common) + encoded + data
    count, start = len(files), len(body)
    if start + len(directory) > MAX_PACKAGE_BYTES or count > 0xFFFF:
        raise VerificationFailed(
            f"a package holds at most {MAX_PACKAGE_BYTES} bytes in 65535 files; this would be {start + len(directory)} in {count}"
        )
    return bytes(body + directory + _END.pack(0x06054B50, 0, 0, count, count, len(directory), start, 0))


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of an archive that `pack` made. Nothing is ever inflated; anything that `pack` would not write is refused."""
    if len(data) > MAX_PACKAGE_BYTES:
        raise VerificationFailed(f"the package has {len(data)} bytes; at most {MAX_PACKAGE_BYTES} are read")
    files: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\x03\x04":
        if at + _LOCAL.size > len(data):
            raise VerificationFailed("the archive ends inside a header")
        size, name_size = struct.unpack_from("<IH", data, at + 22)
        start = at + _LOCAL.size + name_size
        name = data[at + _LOCAL.size : start].decode("ascii", "replace")
        check_member_name(name)
        if name in files:
            raise VerificationFailed(f"{name} is in the archive twice")
        files[name] = data[start : start + size]
        at = start + size
        if at > len(data):
            raise VerificationFailed(f"the archive ends inside {name}")
    if not files or pack(files) != data:
        raise VerificationFailed("the archive is not in the form that packages have, or a byte of it was changed")
    return files


def check_member_name(name: str) -> None:
    """Refuses a file name that could leave the folder or mean two things."""
    if len(name) > 512 or not _NAME.match(name) or any(part in (".", "..") for part in name.split("/")):
        raise VerificationFailed(f"{name[:80]!r} is not a file name that a package may hold")


def bundle_revision(files: Mapping[str, bytes]) -> str:
    """The revision of a policy bundle: the digest of the canonical JSON of {format, modules: path → digest}."""
    modules = {path: sha256(data) for path, data in files.items() if path != ".manifest"}
    return sha256(canonical({"format": 1, "modules": modules}))


def commitment(salt: bytes, tenant: str, person: str) -> str:
    """The reference under which `person` appears in records of `tenant`."""
    message = b"portcullis ref v1\n" + canonical([tenant, person])
    return "ref:" + hmac.new(salt, message, hashlib.sha256).hexdigest()[:32]


# --- verification ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verification:
    """What was proved. `pinned` is False when only the package's own key says who signed: then it is not verified."""

    pinned: bool
    signer: str
    checkpoint: Checkpoint
    tenant: str | None
    first: int
    last: int
    records: int
    withheld: int
    inputs: int
    bundles: int
    earlier_size: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        return self.pinned

    @property
    def summary(self) -> str:
        verdict = "verified" if self.pinned else "consistent, signer not pinned"
        earlier = "" if self.earlier_size is None else f", extends the checkpoint of size {self.earlier_size}"
        return (
            f"{verdict}: {self.records} records ({self.withheld} leaves of other tenants withheld), seq {self.first} to {self.last} "
            f"of a log of {self.checkpoint.size}{earlier}; {self.inputs} inputs, {self.bundles} bundles; signed by {self.signer}"
        )


@dataclass
class _Package:
    files: dict[str, bytes]
    manifest: dict[str, Any]
    checkpoint: Checkpoint
    records: list[dict[str, Any]] = field(default_factory=list)
    leaves: dict[int, bytes] = field(default_factory=dict)

    def take(self, name: str) -> bytes:
        if name not in self.files:
            raise VerificationFailed(f"{name} is missing")
        return self.files[name]

    def below(self, folder: str) -> dict[str, bytes]:
        return {name[len(folder) :]: data for name, data in self.files.items() if name.startswith(folder)}


def verify(package_path: Path | str, pinned_key: str | None, *, earlier: bytes | None = None) -> Verification:
    """Runs the steps of this module's docstring. `pinned_key` is a verifier key's text, `earlier` a checkpoint seen before.

    Raises VerificationFailed at the first check that fails, OSError when the file cannot be read.
    """
    path = Path(package_path)
    if path.stat().st_size > MAX_PACKAGE_BYTES:
        raise VerificationFailed(f"the package has more than {MAX_PACKAGE_BYTES} bytes")
    return verify_bytes(path.read_bytes(), pinned_key, earlier=earlier)


def verify_bytes(data: bytes, pinned_key: str | None, *, earlier: bytes | None = None) -> Verification:
    """As `verify`, over an archive already read."""
    # 1. The archive.
    files = unpack(data)
    # 2. The manifest.
    manifest = _manifest(files)
    # 3. Who signed.
    own = VerifierKey.parse(_text(files, "keys/log.pub"))
    key = own if pinned_key is None else VerifierKey.parse(pinned_key)
    if key != own:
        raise VerificationFailed(f"the package brings the key {own.name} {own.key_id.hex()}, not the pinned one")
    package = _Package(files, manifest, _signed_by(key, files, manifest))
    # 4. to 10.
    withheld = _records(package)
    _inclusion(package)
    earlier_size = None if earlier is None else _consistency(package, open_checkpoint(earlier, key))
    inputs = _inputs(package)
    bundles = _bundles(package)
    _names(package)
    return Verification(
        pinned=pinned_key is not None,
        signer=f"{key.name} {key.key_id.hex()}",
        checkpoint=package.checkpoint,
        tenant=manifest["tenant"],
        first=manifest["first"],
        last=manifest["last"],
        records=len(package.records),
        withheld=withheld,
        inputs=inputs,
        bundles=bundles,
        earlier_size=earlier_size,
        warnings=tuple(clock_warnings(package.records)),
    )


def _text(files: Mapping[str, bytes], name: str) -> str:
    if name not in files:
        raise VerificationFailed(f"{name} is missing")
    try:
        return files[name].decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationFailed(f"{name} is not UTF-8") from error


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    manifest = parse_canonical(_text(files, "manifest.json").encode(), "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise VerificationFailed(f"manifest.json is not a {FORMAT}")
    wanted = {"format": str, "created": int, "first": int, "last": int, "files": dict}
    for name, kind in wanted.items():
        if not isinstance(manifest.get(name), kind) or isinstance(manifest[name], bool):
            raise VerificationFailed(f"manifest.json: {name} is missing or of a wrong type")
    if set(manifest) != {*wanted, "tenant", "since", "until"}:
        raise VerificationFailed("manifest.json holds unknown fields, or lacks some")
    if not (manifest["tenant"] is None or isinstance(manifest["tenant"], str)):
        raise VerificationFailed("manifest.json: tenant is a name or null")
    for name in files:
        if name not in _PLACES and not name.startswith(_FOLDERS):
            raise VerificationFailed(f"{name} has no place in a package")
    listed = manifest["files"]
    present = set(files) - {"manifest.json", "manifest.note"}
    for name in sorted(present ^ set(listed)):
        raise VerificationFailed(f"{name} is {'not in manifest.json' if name in present else 'missing'}")
    for name, expected in listed.items():
        if sha256(files[name]) != expected:
            raise VerificationFailed(f"{name} is not what manifest.json says: it was changed")
    return manifest


def manifest_text(origin: str, manifest: bytes) -> str:
    """What the log's key signs for a package; its second line is no number, so it can never pass for a checkpoint."""
    return f"{FORMAT}\n{origin}\nmanifest.json {sha256(manifest)}\n"


def _signed_by(key: VerifierKey, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Checkpoint:
    for name in ("manifest.note", "checkpoint"):
        if name not in files:
            raise VerificationFailed(f"{name} is missing")
    if open_note(files["manifest.note"], [key]) != manifest_text(key.name, files["manifest.json"]):
        raise VerificationFailed("manifest.note is signed for another manifest")
    checkpoint = open_checkpoint(files["checkpoint"], key)
    if not 0 <= manifest["first"] <= manifest["last"] < checkpoint.size:
        raise VerificationFailed(f"seq {manifest['first']} to {manifest['last']} are not in a log of {checkpoint.size}")
    return checkpoint


def _lines(data: bytes, name: str) -> list[bytes]:
    if data and not data.endswith(b"\n"):
        raise VerificationFailed(f"{name} does not end with a newline")
    return data[:-1].split(b"\n") if data else []


def check_record(record: Any, where: str) -> dict[str, Any]:
    """A record has the fields of docs/formats/evidence-record.md, of the right types."""
    if not isinstance(record, dict) or record.get("v") != 1 or set(record) - {"details"} != _RECORD_KEYS:
        raise VerificationFailed(f"{where}: not a record of version 1")
    types: dict[str, Any] = {"id": str, "seq": int, "time": int, "kind": str, "actor": str, "tenant": str, "subject": str}
    types |= {"digests": dict, "controls": list, "commitments": dict, "decision": (dict, type(None))}
    for name, kind in types.items():
        if not isinstance(record[name], kind) or isinstance(record[name], bool):
            raise VerificationFailed(f"{where}: {name} is of a wrong type")
    if "details" in record and not (isinstance(record["details"], dict) and record["details"]):
        raise VerificationFailed(f"{where}: details is empty or of a wrong type")
    decision = record["decision"] or {}
    texts = [*record["digests"].values(), *record["controls"], *record["commitments"].values()]
    texts += [decision.get(name, "") for name in ("input_digest", "policy_revision")]
    if not all(isinstance(text, str) for text in texts):
        raise VerificationFailed(f"{where}: a digest, control, commitment or revision is not text")
    return record


def _records(package: _Package) -> int:
    """Steps 4 and 5; returns how many leaves are withheld."""
    tenant, first, last = (package.manifest[name] for name in ("tenant", "first", "last"))
    # 4. Form, order, tenant.
    seen: set[str] = set()
    for number, line in enumerate(_lines(package.take("records.jsonl"), "records.jsonl"), 1):
        where = f"records.jsonl line {number}"
        record = check_record(parse_canonical(line, where), where)
        if tenant is not None and record["tenant"] != tenant:
            raise VerificationFailed(f"{where}: a record of another tenant")
        if package.records and record["seq"] <= package.records[-1]["seq"]:
            raise VerificationFailed(f"{where}: seq does not rise")
        if record["id"] in seen:
            raise VerificationFailed(f"{where}: the id {record['id']} stands twice")
        seen.add(record["id"])
        package.records.append(record)
        package.leaves[record["seq"]] = leaf_hash(line)
    # 5. Completeness.
    withheld = parse_canonical(package.take("proofs/withheld.json"), "proofs/withheld.json")
    if not isinstance(withheld, dict) or (tenant is None and withheld):
        raise VerificationFailed("proofs/withheld.json: only a package of one tenant withholds leaves")
    for seq, encoded in withheld.items():
        if not _DECIMAL.match(seq) or int(seq) in package.leaves or not isinstance(encoded, str):
            raise VerificationFailed(f"proofs/withheld.json: {seq[:40]} is no leaf that can be withheld")
        package.leaves[int(seq)] = from_base64(encoded, f"proofs/withheld.json {seq}")
    if len(package.leaves) != last - first + 1 or min(package.leaves, default=-1) != first or max(package.leaves) != last:
        gap = next((seq for seq in range(first, last + 1) if seq not in package.leaves), None)
        raise VerificationFailed(
            f"not complete: seq {gap} is missing" if gap is not None else "leaves outside the range stated"
        )
    return len(withheld)


def _hashes(value: Any, where: str) -> list[bytes]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise VerificationFailed(f"{where}: expected a list of hashes")
    return [from_base64(item, where) for item in value]


def _inclusion(package: _Package) -> None:
    """Step 6."""
    lines = _lines(package.take("proofs/inclusion.jsonl"), "proofs/inclusion.jsonl")
    if len(lines) != len(package.leaves):
        raise VerificationFailed(f"{len(lines)} inclusion proofs for {len(package.leaves)} leaves")
    for seq, line in zip(sorted(package.leaves), lines, strict=True):
        where = f"inclusion proof of seq {seq}"
        proof = _hashes(parse_canonical(line, where), where)
        try:
            verify_inclusion(package.leaves[seq], seq, package.checkpoint.size, proof, package.checkpoint.root)
        except VerificationFailed as error:
            raise VerificationFailed(f"seq {seq}: {error}") from error


def _consistency(package: _Package, earlier: Checkpoint) -> int:
    """Step 7."""
    proofs = parse_canonical(package.take("proofs/consistency.json"), "proofs/consistency.json")
    if not isinstance(proofs, dict):
        raise VerificationFailed("proofs/consistency.json: expected an object")
    if earlier.size == 0 or earlier.size >= package.checkpoint.size:
        path = []
    elif str(earlier.size) in proofs:
        path = _hashes(proofs[str(earlier.size)], "proofs/consistency.json")
    else:
        raise VerificationFailed(
            f"the package has no consistency proof from size {earlier.size}; export it again with that checkpoint as --earlier"
        )
    verify_consistency(earlier.size, package.checkpoint.size, path, earlier.root, package.checkpoint.root)
    return earlier.size


def _same(kind: str, wanted: set[str], present: set[str]) -> None:
    for name in sorted(wanted ^ present):
        raise VerificationFailed(f"{kind} {name} is {'missing' if name in wanted else 'of no record'}")


def _inputs(package: _Package) -> int:
    """Step 8. What `digests` calls `input` or `decision` is kept beside the log."""
    wanted = {
        record["digests"][role] for record in package.records for role in ("input", "decision") if role in record["digests"]
    }
    present = {}
    for name, data in package.below("inputs/").items():
        if sha256(data) != f"sha256:{name}":
            raise VerificationFailed(f"inputs/{name} is not what its name says")
        present[f"sha256:{name}"] = data
    _same("the input", wanted, set(present))
    for record in package.records:
        said = (record["decision"] or {}).get("input_digest")
        if said and record["digests"].get("input", said) != said:
            raise VerificationFailed(f"seq {record['seq']}: the decision and the record name different inputs")
    return len(present)


def _bundles(package: _Package) -> int:
    """Step 9."""
    wanted = {
        record["decision"]["policy_revision"] for record in package.records if (record["decision"] or {}).get("policy_revision")
    }
    found: dict[str, dict[str, bytes]] = {}
    for name, data in package.below("bundles/").items():
        revision, _, path = name.partition("/")
        found.setdefault(f"sha256:{revision}", {})[path] = data
    _same("the bundle", wanted, set(found))
    for revision, files in found.items():
        if bundle_revision(files) != revision:
            raise VerificationFailed(f"the bundle {revision} is not what its name says")
    return len(found)


def _names(package: _Package) -> None:
    """Step 10."""
    if "names.json" not in package.files:
        return
    names = parse_canonical(package.files["names.json"], "names.json")
    if not isinstance(names, dict):
        raise VerificationFailed("names.json: expected an object")
    used = references(package.records)
    for ref, entry in names.items():
        texts = entry.values() if isinstance(entry, dict) else ()
        if (
            not isinstance(entry, dict)
            or set(entry) != {"tenant", "person", "salt"}
            or not all(isinstance(t, str) for t in texts)
        ):
            raise VerificationFailed("names.json: expected tenant, person and salt for each reference")
        salt = from_base64(entry["salt"], "names.json")
        if ref not in used or commitment(salt, entry["tenant"], entry["person"]) != ref:
            raise VerificationFailed(f"names.json does not open {ref[:40]}")


def references(records: Sequence[Mapping[str, Any]]) -> set[str]:
    """Every commitment to a person that the records hold."""
    found: set[str] = set()
    for record in records:
        candidates = [record["actor"], record["subject"], *record["commitments"].values()]
        found.update(item for item in candidates if isinstance(item, str) and item.startswith("ref:"))
    return found


def clock_warnings(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Records dated well after one that follows them: a clock was wrong. The order of the log is that of `seq`."""
    warnings = []
    soonest: int | None = None
    for record in reversed(records):
        if soonest is not None and record["time"] > soonest + CLOCK_TOLERANCE:
            warnings.append(
                f"seq {record['seq']} is dated {record['time'] - soonest} s after a later record: its clock was wrong"
            )
        soonest = record["time"] if soonest is None else min(soonest, record["time"])
    return warnings[::-1]


def main(arguments: Sequence[str] | None = None, *, out: Callable[[str], Any] = sys.stdout.write) -> int:
    """0: verified; 1: not verified, or the signer is not pinned; 2: wrong usage or an unreadable file."""
    parser = argparse.ArgumentParser(description="Check a Portcullis evidence package offline.")
    parser.add_argument("package", type=Path)
    parser.add_argument("--key", type=Path, help="the log's public key, had from somewhere else than the package")
    parser.add_argument("--earlier", type=Path, help="a checkpoint seen before, which the log must extend")
    given = parser.parse_args(arguments)
    try:
        key = given.key.read_text("utf-8") if given.key else None
        earlier = given.earlier.read_bytes() if given.earlier else None
        result = verify(given.package, key, earlier=earlier)
    except VerificationFailed as error:
        out(f"NOT VERIFIED: {error}\n")
        return 1
    except (OSError, UnicodeDecodeError) as error:
        out(f"cannot be read: {error}\n")
        return 2
    out(result.summary + "\n")
    for warning in result.warnings:
        out(f"warning: {warning}\n")
    return 0 if result.verified else 1


if __name__ == "__main__":
    sys.exit(main())
