"""People in records are salted commitments: joinable and countable, and nobody's any more once the salt is gone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from core.canonical import canonical
from core.clock import SystemClock
from core.errors import Broken
from core.jsonread import loads_object
from core.ports import Clock
from evidence.files import secret
from evidence.tables import SaltRow
from evidence.verifier import commitment
from storage.database import Database

NONCE = 12
REMEMBERED = 10_000


class SaltedCommitments:
    """`core.ports.Commitments`. Salts lie in the database, sealed under `keys/people.key` of the evidence folder `folder`.

    So neither a copy of the database nor a copy of the log tells who somebody is.
    """

    def __init__(self, folder: Path, database: Database, *, clock: Clock | None = None, remembered: int = REMEMBERED) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        master = secret(folder / "keys" / "people.key")
        self._lookup_key = _derive(master, b"lookup")
        self._cipher = AESGCM(_derive(master, b"seal"))
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._remembered = remembered

    async def ref(self, tenant: str, person: str) -> str:
        """`ref:` and 32 hex digits, made on first use. Unavailable when the database does not answer."""
        known = self._known.get((tenant, person))
        if known is not None:
            self._known.move_to_end((tenant, person))
            return known
        found = await self._find(tenant, person)
        if found is None:
            found = await self._make(tenant, person)
        self._known[tenant, person] = found
        if len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return found

    def _lookup(self, tenant: str, person: str) -> str:
        return hmac.new(self._lookup_key, canonical([tenant, person]), hashlib.sha256).hexdigest()

    async def _find(self, tenant: str, person: str) -> str | None:
        query = select(SaltRow.ref).where(SaltRow.tenant == tenant, SaltRow.lookup == self._lookup(tenant, person))
        async with self._database.session(reading=True) as session:
            return (await session.execute(query)).scalar_one_or_none()

    async def _make(self, tenant: str, person: str) -> str:
        salt = secrets.token_bytes(32)
        ref = commitment(salt, tenant, person)
        nonce = secrets.token_bytes(NONCE)
        opened = canonical({"salt": base64.b64encode(salt).decode(), "person": person})
        row = SaltRow(
            ref=ref,
            tenant=tenant,
            lookup=self._lookup(tenant, person),
            sealed=nonce + self._cipher.encrypt(nonce, opened, ref.encode()),
            created_unix=self._clock.now_unix(),
        )
        try:
            async with self._database.session() as session:
                session.add(row)
        except IntegrityError:
            # Another process met the same person at the same moment: its salt stands.
            found = await self._find(tenant, person)
            if found is None:
                raise
            return found
        return ref

    async def open(self, refs: Collection[str], *, tenant: str | None = None) -> dict[str, dict[str, str]]:
        """What opens each of `refs` (of `tenant` only, when given): {ref: {tenant, person, salt}}. Erased ones are left out.

        Personal data: only for callers that may see it. Broken when a row cannot be opened with this folder's key.
        """
        wanted = sorted(refs)
        names: dict[str, dict[str, str]] = {}
        async with self._database.session(reading=True) as session:
            for at in range(0, len(wanted), 500):
                query = select(SaltRow).where(SaltRow.ref.in_(wanted[at : at + 500]))
                rows = (await session.execute(query)).scalars().all()
                names |= {row.ref: self._opened(row) for row in rows if tenant is None or row.tenant == tenant}
        return names

    def _opened(self, row: SaltRow) -> dict[str, str]:
        try:
            data = self._cipher.decrypt(row.sealed[:NONCE], row.sealed[NONCE:], row.ref.encode())
        except (InvalidTag, ValueError) as error:
            raise Broken(
                f"the salt of {row.ref} cannot be opened with this installation's key", where="evidence_salts"
            ) from error
        opened = loads_object(data)
        return {"tenant": row.tenant, "person": str(opened["person"]), "salt": str(opened["salt"])}


def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"portcullis people v1 " + purpose).derive(master)
