"""The operator's configuration, versioned: defaults, the operator's files, and what `config set` changed, one over the other.

Every answer belongs to a revision (the digest of the whole effective document), and a change made anywhere is seen within a
second. When a source cannot be read the store does not go on with what it knew: it raises until the source is whole again,
because a stale configuration would go on granting what an operator has just taken away.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from core.errors import BadInput, ConfigError, Conflict, NotFound, PortcullisError
from core.inputs import AdmissionConfig, BundleConfig, GatewayConfig, LineageConfig, WeightsConfig
from core.names import ModelRef
from core.ports import Clock, Commitments, Recorder
from core.principal import Principal
from core.record import Entry
from policies import changes
from policies import config_overlay as overlay
from policies.changes import Edit, Intent, Reviewed, Weighed
from policies.config import Document, ExemptionRule, ExemptionState, Path, show_time, state_of, unix
from policies.config_lookup import Lookup
from policies.config_overlay import Change, Layer
from policies.config_sources import Built, Files, Mark
from policies.tables import ConfigVersion
from policies.weakening import weakenings
from storage.database import Database

MAX_AGE_SECONDS = 0.5
"""How long an answer may be given without a look at the sources: half of the second that is promised."""
HOLD = 1.8
"""How many of these an old answer is given for while a new revision is built: nine tenths of the promised second."""


@dataclass(frozen=True, slots=True)
class Version:
    """One row of the history. Version 0 is the empty document before the first change."""

    version: int
    action: str
    path: str
    author_ref: str
    reason: str
    created_unix: int


@dataclass(frozen=True, slots=True)
class ListedExemption:
    """An exemption with what the rules will make of it now: only `active` ones count."""

    exemption: ExemptionRule
    state: ExemptionState


class ConfigStore:
    """Implements `core.ports.OperatorConfig` and the commands `config` and `exemption`.

    `home` is the tenant that owns this installation: when it is given, authors of another tenant may change only what is
    their own tenant's. Without it every author with the role may change everything.
    """

    def __init__(
        self,
        database: Database,
        *,
        commitments: Commitments,
        recorder: Recorder,
        files: Sequence[FilePath],
        clock: Clock,
        home: str | None = None,
        rules: Collection[str] | None = None,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self._database = database
        self._commitments = commitments
        self._recorder = recorder
        self._files = Files(files)
        self._clock = clock
        self.home = home
        self._rules = rules
        self._max_age = max_age_seconds
        self._lock = asyncio.Lock()
        self._building: asyncio.Task[None] | None = None
        self._built: Built | None = None
        self._lookup: Lookup | None = None
        self._seen: tuple[Any, ...] = ()
        self._failure: PortcullisError | None = None
        self._looked = self._changed = float("-inf")

    # --- the port ----------------------------------------------------------------------------------------------------

    async def admission(self, namespace: str, *, subject: str, caller: str, models: Sequence[ModelRef]) -> AdmissionConfig:
        return await (await self._current()).admission(namespace, subject=subject, caller=caller, models=models)

    async def gateway(self, principal: Principal, ref: ModelRef) -> GatewayConfig:
        return await (await self._current()).gateway(principal, ref)

    async def weights(self, principal: Principal, ref: ModelRef) -> WeightsConfig:
        return await (await self._current()).weights(principal, ref)

    async def lineage(self, principal: Principal, ref: ModelRef) -> LineageConfig:
        return await (await self._current()).lineage(principal, ref)

    async def bundle(self, tenant: str) -> BundleConfig:
        return await (await self._current()).bundle(tenant)

    async def requests_per_minute(self, tenant: str, team: str | None, key_id: str) -> int:
        return (await self._current()).requests_per_minute(tenant, team, key_id)

    async def accelerators(self) -> Mapping[str, int]:
        return (await self._current()).accelerators

    # --- reading -----------------------------------------------------------------------------------------------------

    async def refresh(self) -> str:
        """Looks at the sources now if the last look is too old; the revision that answers come from.

        Raises ConfigError when a file or the stored document cannot be used, Unavailable when the database does not answer.
        """
        return (await self._current()).revision

    async def effective(self) -> Document:
        """The typed configuration that decisions are made with."""
        return (await self._current()).document

    async def latest(self) -> Document:
        """The typed configuration that the sources hold now, whatever decisions are made with yet."""
        return (await self._latest_effective())[1]

    async def version(self) -> int:
        """The number of the latest change made through this store or another one."""
        return await self._version()

    async def holds(self, path: Path) -> bool:
        """Whether the database's own document (not a file or a default) has something at `path`."""
        _, stored = await self._latest()
        try:
            overlay.get(stored, path)
        except NotFound:
            return False
        return True

    async def named_rules(self) -> set[str]:
        """The rules that modes and exemptions name."""
        document = await self.effective()
        return {mode.rule for mode in document.modes} | {exemption.rule for exemption in document.exemptions}

    async def show(self, path: str | None = None) -> Any:
        """The effective configuration as data, or the part of it at `path`. NotFound when nothing is configured there."""
        merged = overlay.overlay(await self._layers(*await self._latest()))
        if path is None:
            return overlay.listed(merged)
        parts = overlay.parse_path(path)
        value = overlay.get(merged, parts)
        return [value[key] for key in sorted(value)] if len(parts) == 1 and parts[0] in overlay.IDENTITY else value

    async def history(self, limit: int = 100) -> list[Version]:
        """The latest changes, newest first."""
        query = select(ConfigVersion).order_by(ConfigVersion.version.desc()).limit(limit)
        async with self._database.session(reading=True) as session:
            rows = (await session.scalars(query)).all()
        return [Version(r.version, r.action, r.path, r.author_ref, r.reason, r.created_unix) for r in rows]

    async def diff(self, from_version: int, to_version: int | None = None) -> list[Change]:
        """What the changes between two versions did to the database's document; `to_version` None is the latest."""
        latest, _ = await self._latest()
        before = await self._document(from_version)
        after = await self._document(latest if to_version is None else to_version)
        return list(overlay.differences(before, after))

    # --- changing ----------------------------------------------------------------------------------------------------

    async def set(self, path: str, value: Any, *, author: Principal, reason: str, expected_version: int | None = None) -> int:
        """Sets the value at `path`; the version that holds it (the same as before when nothing changes).

        The whole effective configuration is validated first, the change is recorded, then it is saved. Raises BadInput,
        ConfigError (it was unusable before), Conflict (somebody else was quicker), Forbidden, NeedsApproval (it weakens, which
        `policies.reviewed` does), EvidenceUnavailable.
        """
        parts = changes.editable(path)
        clean = overlay.plain(value, where=path)
        intent = Intent(changes.kind_of(parts), "set", overlay.show_path(parts), author, reason)
        return await self.apply(lambda document: overlay.put(document, parts, clean), intent, expected_version)

    async def unset(self, path: str, *, author: Principal, reason: str, expected_version: int | None = None) -> int:
        """Takes back what `set` said at `path`; files and defaults show through again. NotFound when nothing was set there."""
        parts = changes.editable(path)
        intent = Intent(changes.kind_of(parts), "unset", overlay.show_path(parts), author, reason)
        return await self.apply(lambda document: overlay.drop(document, parts), intent, expected_version)

    async def add_exemption(self, *, author: Principal, **fields: Any) -> int:
        """Adds an exemption that counts from now until `expires`; the fields and errors of `new_exemption`, and those of `set`."""
        path, item = await self.new_exemption(**fields)
        intent = Intent("exemption", "add", overlay.show_path(path), author, item["reason"])
        return await self.apply(lambda document: overlay.put(document, path, item), intent)

    async def new_exemption(
        self,
        *,
        id: str,
        rule: str,
        owner: str,
        reason: str,
        ticket: str,
        expires: str,
        tenant: str,
        subjects: Sequence[str],
        namespaces: Sequence[str] = (),
        teams: Sequence[str] = (),
        models: Sequence[str] = (),
    ) -> tuple[Path, dict[str, Any]]:
        """An exemption that would count from now until `expires`, and where it would stand. Conflict when the id is taken; all
        fields are needed."""
        for name, value in (("owner", owner), ("reason", reason), ("ticket", ticket)):
            if not value.strip():
                raise BadInput(
                    f"an exemption needs its {name}; without it no rule would honour it", where=f"exemptions.{id}.{name}"
                )
        if unix(expires) <= self._clock.now_unix():
            raise BadInput("the expiry has passed already", where=f"exemptions.{id}.expires")
        scopes = {"namespaces": namespaces, "teams": teams, "models": models}
        item: dict[str, Any] = {
            "rule": rule,
            "owner": owner,
            "reason": reason,
            "ticket": ticket,
            "expires": expires,
            "tenant": tenant,
        }
        item |= {"id": id, "subjects": list(subjects), **{name: list(found) for name, found in scopes.items() if found}}
        path: Path = ("exemptions", id)
        if any(found.exemption.id == id for found in await self.list_exemptions()):
            raise Conflict(
                "an exemption with this id exists; choose another id or revoke that one", where=overlay.show_path(path)
            )
        return path, item

    async def list_exemptions(self, tenant: str | None = None) -> list[ListedExemption]:
        """Every exemption (of one tenant), with its state at this moment."""
        _, document = await self._latest_effective()
        now = self._clock.now_unix()
        found = [rule for rule in document.exemptions if tenant in (None, rule.tenant)]
        return [ListedExemption(rule, state_of(rule, now)) for rule in found]

    async def revoke_exemption(self, id: str, *, author: Principal, reason: str) -> int:
        """Ends an exemption now. One that a file declares cannot be deleted from here: its expiry is set to this moment."""
        path: Path = ("exemptions", id)
        where = overlay.show_path(path)
        if not any(found.exemption.id == id for found in await self.list_exemptions()):
            raise NotFound("there is no such exemption", where=where)
        below = overlay.overlay(await asyncio.to_thread(self._files.layers))
        ended = show_time(self._clock.now_unix())
        intent = Intent("exemption", "revoke", where, author, reason)
        if id in below.get("exemptions", {}):
            return await self.apply(lambda document: overlay.put(document, (*path, "expires"), ended), intent)
        return await self.apply(lambda document: overlay.drop(document, path), intent)

    async def weigh(self, edit: Edit, intent: Intent) -> Weighed:
        """What `edit` would change and weaken, and that its author may. Raises as `set`, but NeedsApproval."""
        changes.check(intent)
        version, stored = await self._latest()
        changed = await asyncio.to_thread(edit, stored)
        below = await asyncio.to_thread(self._files.layers)
        layers = [*below, _stored_layer(version + 1, changed)]
        before, after = overlay.overlay([*below, _stored_layer(version, stored)]), overlay.overlay(layers)
        document = await self._must_fit(before, after, layers, path=intent.path)
        was = await asyncio.to_thread(changes.document_before, before, after, document)
        weakens = await asyncio.to_thread(weakenings, was, document, now_unix=self._clock.now_unix())
        found = Weighed(version, stored, changed, before, after, tuple(weakens), was)
        changes.check_scope(found, self.home, intent.author)
        return found

    async def apply(
        self, edit: Edit, intent: Intent, expected_version: int | None = None, *, reviewed: Reviewed | None = None
    ) -> int:
        """Changes the database's document by `edit`: validated whole, recorded, saved; the version that holds it. Raises as `set`."""
        found = await self.weigh(edit, intent)
        if expected_version is not None and expected_version != found.version:
            raise Conflict(f"the configuration is at version {found.version}, not {expected_version}; look again and repeat")
        if found.changed == found.stored:
            return found.version
        changes.check_reviewed(found, reviewed, intent, self.home)
        return await self._save(found, intent, reviewed)

    async def _save(self, found: Weighed, intent: Intent, reviewed: Reviewed | None) -> int:
        actor = await self._commitments.ref(intent.author.tenant, intent.author.id)
        version = found.version + 1
        digests = {"config_before": overlay.revision(found.before), "config": overlay.revision(found.after)}
        await self._recorder.event(
            Entry(
                kind=intent.kind,
                actor=actor,
                tenant=intent.author.tenant,
                subject=intent.subject or f"config/{intent.path}",
                digests={**digests, **intent.digests},
                details={"action": intent.action, "version": version, **intent.details},
            )
        )
        row = ConfigVersion(
            version=version,
            document=overlay.listed(found.changed),
            action=f"{intent.kind}.{intent.action}",
            path=intent.path,
            author_ref=actor,
            reason=intent.reason,
            created_unix=self._clock.now_unix(),
        )
        try:
            async with self._database.session() as session:
                session.add(row)
                if reviewed is not None:
                    await reviewed.close(session)
        except IntegrityError as error:
            raise Conflict("somebody else changed the configuration meanwhile; look again and repeat") from error
        self._looked, self._changed = float("-inf"), time.monotonic()
        return version

    async def _must_fit(self, before: dict[str, Any], after: dict[str, Any], layers: Sequence[Layer], *, path: str) -> Document:
        """The typed document. BadInput when it is the change that makes the whole unusable; ConfigError when it was so before."""
        try:
            return await asyncio.to_thread(overlay.validate, after, layers, self._nameable(before))
        except ConfigError as error:
            with contextlib.suppress(ConfigError):
                await asyncio.to_thread(overlay.validate, before, layers, self._rules)
                raise changes.its_own(error, path) from error
            raise

    # --- sources -----------------------------------------------------------------------------------------------------

    async def _current(self) -> Lookup:
        """The lookup of the current revision, after a look at the sources when the last one is older than the limit.

        While a new revision is built the old one answers, as far as the promised second allows; then calls wait for the new one.
        """
        while self._age() >= self._max_age:
            async with self._lock:
                if self._age() >= self._max_age and not self._is_building():
                    await self._look()
            building = self._building
            old_will_do = self._lookup is not None and self._age() < self._max_age * HOLD
            if building is None or building.done() or old_will_do:
                break
            await asyncio.shield(building)
            # A build says how things were when it began, so the sources are looked at again where that is too long ago.
            if self._failure is not None:
                break
        if self._failure is not None:
            raise type(self._failure)(self._failure.message, where=self._failure.where)
        if self._lookup is None:
            raise ConfigError("the configuration has not been read")
        return self._lookup

    def _age(self) -> float:
        return time.monotonic() - self._looked

    def _is_building(self) -> bool:
        return self._building is not None and not self._building.done()

    async def _look(self) -> None:
        """One look at the sources, which starts a build when one of them changed. A failure is kept as long as a success would be,
        so that a broken file is not read per call."""
        started = time.monotonic()
        try:
            marks = await asyncio.to_thread(self._files.marks)
            if self._lookup is None or self._failure is not None or self._seen != (await self._version(), marks):
                self._building = asyncio.create_task(self._rebuild(started, marks))
                return
            self._lookup.forget()
        except PortcullisError as error:
            self._failure = error
        self._looked = started

    async def _rebuild(self, started: float, marks: tuple[Mark, ...]) -> None:
        try:
            version, document = await self._latest_row()
            self._built, self._lookup = await asyncio.to_thread(self._build, version, document)
            self._seen = (version, marks)
            self._failure = None
        except PortcullisError as error:
            self._failure = error
        # What this process changed meanwhile is looked for at once.
        self._looked = started if started > self._changed else float("-inf")

    def _build(self, version: int, document: Any) -> tuple[Built, Lookup]:
        stored = {} if document is None else _stored(version, document)
        built = Built.of([*self._files.layers(), _stored_layer(version, stored)], self._rules, self._built)
        if self._lookup is not None and built.revision == self._lookup.revision:
            self._lookup.forget()
            return built, self._lookup
        return built, Lookup(built.document, built.revision, self._commitments, home=self.home, previous=self._lookup)

    async def _version(self) -> int:
        async with self._database.session(reading=True) as session:
            return int(await session.scalar(select(func.max(ConfigVersion.version))) or 0)

    async def _latest(self) -> tuple[int, dict[str, Any]]:
        """The number of the latest version and its keyed document."""
        version, document = await self._latest_row()
        return (0, {}) if document is None else (version, await asyncio.to_thread(_stored, version, document))

    async def _latest_row(self) -> tuple[int, Any]:
        query = select(ConfigVersion).order_by(ConfigVersion.version.desc()).limit(1)
        async with self._database.session(reading=True) as session:
            row = (await session.scalars(query)).first()
        return (0, None) if row is None else (row.version, row.document)

    async def _latest_effective(self) -> tuple[int, Document]:
        version, stored = await self._latest()
        layers = await self._layers(version, stored)
        return version, await asyncio.to_thread(overlay.validate, overlay.overlay(layers), layers)

    def _nameable(self, before: dict[str, Any]) -> Collection[str] | None:
        """The rules that a change may leave named: those that there are, and those that were named before it. Doors refuse the
        latter when they load, but where two are named the one must be removable while the other is still there."""
        if self._rules is None:
            return None
        named = [entry.get("rule") for section in ("modes", "exemptions") for entry in before.get(section, {}).values()]
        return {*self._rules, *(rule for rule in named if isinstance(rule, str))}

    async def _document(self, version: int) -> dict[str, Any]:
        if version == 0:
            return {}
        async with self._database.session(reading=True) as session:
            row = await session.get(ConfigVersion, version)
        if row is None:
            raise NotFound(f"there is no version {version} of the configuration; `config history` lists them")
        return _stored(row.version, row.document)

    async def _layers(self, version: int, stored: dict[str, Any]) -> list[Layer]:
        return [*await asyncio.to_thread(self._files.layers), _stored_layer(version, stored)]


def _stored_layer(version: int, stored: dict[str, Any]) -> Layer:
    return Layer(f"database version {version}", stored)


def _stored(version: int, document: Any) -> dict[str, Any]:
    try:
        return overlay.keyed(document)
    except BadInput as error:
        raise ConfigError(error.message, where=f"database version {version}: {error.where}") from error
