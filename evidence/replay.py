"""Recomputing decisions from what the record, the input and the bundle say: the second proof, which needs an engine.

Verification shows that records are what was logged; replay shows that they are what the policies of that day make of the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from core.canonical import sha256
from core.decision import DOMAINS
from core.errors import Broken, InvalidProof, NotFound, PortcullisError
from core.jsonread import loads_object
from core.ports import Engine
from evidence.bundles import Bundles
from evidence.payloads import Payloads
from evidence.reader import Reader
from evidence.recorder import decision_document
from evidence.verifier import MAX_PACKAGE_BYTES, VerificationFailed, unpack

LoadEngine = Callable[[Mapping[str, bytes]], Engine]
Verdict = Literal["equal", "different", "cannot"]
COMPARED = ("allow", "evaluated", "grants", "violations", "warnings", "obligations", "config_revision")
"""What must come out the same. Ids and timing are of the moment; the engine may be another one: they agree on every decision."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One decision recomputed. `note` says what differs, or why it could not be recomputed."""

    seq: int
    record_id: str
    decision_id: str
    verdict: Verdict
    note: str = ""


@dataclass
class ReplayReport:
    items: list[Replayed] = field(default_factory=list)

    def count(self, verdict: Verdict) -> int:
        return sum(item.verdict == verdict for item in self.items)

    @property
    def agrees(self) -> bool:
        """Something was recomputed, and nothing came out otherwise. What could not be recomputed shows in `count("cannot")`."""
        return self.count("equal") > 0 and self.count("different") == 0

    def as_json(self) -> dict[str, Any]:
        return {
            "equal": self.count("equal"),
            "different": self.count("different"),
            "cannot": self.count("cannot"),
            "items": [
                {"seq": i.seq, "id": i.record_id, "decision_id": i.decision_id, "verdict": i.verdict, "note": i.note}
                for i in self.items
            ],
        }


class Source(Protocol):
    """Where decisions come from. Each method raises a PortcullisError when it has not what is asked for."""

    def records(self) -> Iterable[Mapping[str, Any]]: ...

    def payload(self, tenant: str, digest: str) -> bytes: ...

    def bundle(self, revision: str) -> Mapping[str, bytes]: ...


class PackageSource:
    """A package. It is read as it is: run `evidence.verifier.verify` first to know whose it is and that it is whole."""

    def __init__(self, path: Path) -> None:
        try:
            if path.stat().st_size > MAX_PACKAGE_BYTES:
                raise InvalidProof("the package is too large", where=str(path))
            self._files = unpack(path.read_bytes())
        except OSError as error:
            raise NotFound(f"the package cannot be read: {error.strerror}", where=str(path)) from error
        except VerificationFailed as error:
            raise InvalidProof(str(error), where=str(path)) from error

    def records(self) -> Iterator[Mapping[str, Any]]:
        for line in self._take("records.jsonl").splitlines():
            yield loads_object(line)

    def payload(self, tenant: str, digest: str) -> bytes:  # noqa: ARG002  (a package holds inputs by digest alone)
        return self._take(f"inputs/{digest.removeprefix('sha256:')}")

    def bundle(self, revision: str) -> Mapping[str, bytes]:
        prefix = f"bundles/{revision.removeprefix('sha256:')}/"
        return {name[len(prefix) :]: data for name, data in self._files.items() if name.startswith(prefix)}

    def _take(self, name: str) -> bytes:
        if name not in self._files:
            raise NotFound(f"the package has no {name}", where=name)
        return self._files[name]


class FolderSource:
    """The evidence folder itself: every decision in the log, or the one with this record or decision id."""

    def __init__(self, folder: Path, only: str | None = None) -> None:
        self._reader = Reader(folder)
        self._payloads = Payloads(folder)
        self._bundles = Bundles(folder)
        self._only = only

    def records(self) -> Iterator[Mapping[str, Any]]:
        if self._only is None:
            yield from self._reader.records()
        else:
            yield self._reader.find(self._only).record

    def payload(self, tenant: str, digest: str) -> bytes:
        return self._payloads.get(tenant, digest)

    def bundle(self, revision: str) -> Mapping[str, bytes]:
        return self._bundles.load(revision)


class _CannotReplay(Broken):
    """Why a decision cannot be recomputed; never leaves this module."""


def replay(source: Source, load_engine: LoadEngine) -> ReplayReport:
    """Recomputes every decision of `source`. `load_engine` makes an engine from a bundle's files; each bundle is loaded once.

    A denial that the engine's failure made (`engine/…`), or that a door made without asking an engine, cannot come out of
    policies again: it is counted as `cannot`, never as equal.
    """
    report = ReplayReport()
    engines: dict[str, Engine | str] = {}
    for record in source.records():
        if record["decision"] is None:
            continue
        try:
            verdict, note = _replay_one(source, record, engines, load_engine)
        except _CannotReplay as reason:
            verdict, note = "cannot", reason.message
        decision_id = str(record["decision"].get("decision_id", ""))
        report.items.append(Replayed(record["seq"], record["id"], decision_id, verdict, note))
    return report


@dataclass(frozen=True, slots=True)
class Opened:
    """A decision of the log with all that was kept of it: the whole document, and the input it was made from."""

    record: dict[str, Any]
    decision: dict[str, Any]
    input: dict[str, Any]


def opened(folder: Path, wanted: str) -> Opened:
    """The decision with this record or decision id. NotFound when the log has none, or what it was made from is not kept whole."""
    source = FolderSource(folder, wanted)
    (record,) = source.records()
    if record["decision"] is None:
        raise NotFound(f"the record {wanted[:80]!r} is not one of a decision", where=str(folder))
    try:
        decision, document = _recorded(source, record)
    except _CannotReplay as reason:
        raise NotFound(f"the decision cannot be opened: {reason.message}", where=str(folder)) from reason
    return Opened(dict(record), decision, document)


def _replay_one(
    source: Source, record: Mapping[str, Any], engines: dict[str, Engine | str], load_engine: LoadEngine
) -> tuple[Verdict, str]:
    recorded, document = _recorded(source, record)
    engine = _engine(source, recorded["policy_revision"], engines, load_engine)
    computed = decision_document(engine.decide(recorded["domain"], document))
    different = [name for name in COMPARED if computed[name] != recorded.get(name)]
    if not different:
        return "equal", ""
    failed = _failures(recorded) or _failures(computed)
    if failed:
        raise _CannotReplay(f"the engine failed ({', '.join(failed)}), so no policy made this denial")
    return "different", "; ".join(
        f"{name}: recorded {recorded.get(name)!r}, computed {computed[name]!r}"[:400] for name in different
    )


def whole_decision(source: Source, record: Mapping[str, Any]) -> dict[str, Any]:
    """The decision of `record` with everything it found, also where it was too large for a leaf and is kept beside the log.

    NotFound or Broken when it cannot be had any more.
    """
    if "decision" not in record["digests"]:
        return dict(record["decision"])
    whole = source.payload(record["tenant"], record["digests"]["decision"])
    if sha256(whole) != record["digests"]["decision"]:
        raise Broken("the decision kept is not the one the record names")
    return loads_object(whole)


def _recorded(source: Source, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    digests = record["digests"]
    if not digests.get("input") or not record["decision"].get("policy_revision"):
        raise _CannotReplay("no engine was asked: there is no input")
    try:
        data = source.payload(record["tenant"], digests["input"])
        if sha256(data) != record["decision"].get("input_digest"):
            raise _CannotReplay("the input kept is not the one the decision names")
        recorded = whole_decision(source, record)
        if recorded.get("domain") not in DOMAINS:
            raise _CannotReplay("the record names no domain that decides")
        return recorded, loads_object(data)
    except PortcullisError as error:
        raise _CannotReplay(str(error)) from error


def _engine(source: Source, revision: str, engines: dict[str, Engine | str], load_engine: LoadEngine) -> Engine:
    if revision not in engines:
        try:
            engine = load_engine(source.bundle(revision))
            same = engine.revision == revision
            engines[revision] = engine if same else f"the bundle is revision {engine.revision}, not {revision}"
        except PortcullisError as error:
            engines[revision] = f"the bundle {revision} cannot be loaded: {error}"
    found = engines[revision]
    if isinstance(found, str):
        raise _CannotReplay(found)
    return found


def _failures(document: Mapping[str, Any]) -> list[str]:
    return sorted({entry["rule"] for entry in document["violations"] if str(entry["rule"]).startswith("engine/")})
