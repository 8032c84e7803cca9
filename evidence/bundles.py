"""Every policy bundle that decided something, kept once, so that its decisions can be recomputed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from core.errors import Broken, NotFound
from core.names import check_digest
from evidence.files import FOLDER, PRIVATE, sync_folder, trouble, write_all
from evidence.verifier import VerificationFailed, bundle_revision, check_member_name


class Bundles:
    """`bundles/<revision>/…` of the evidence folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bundles"

    def _place(self, revision: str) -> Path:
        return self.folder / check_digest(revision, "policy revision").removeprefix("sha256:")

    def has(self, revision: str) -> bool:
        return self._place(revision).is_dir()

    def keep(self, revision: str, files: Mapping[str, bytes]) -> None:
        """Keeps the bundle; nothing happens when it is kept already.

        Broken when `files` are not that revision, or hold names that a package could not carry.
        """
        if self.has(revision):
            return
        _check(revision, files)
        place = self._place(revision)
        aside = self.folder / f".{place.name}.{secrets.token_hex(6)}.tmp"
        with trouble("the policy bundle cannot be kept", place):
            aside.mkdir(parents=True, mode=FOLDER)
            try:
                for name, data in files.items():
                    _write(aside / name, data)
                if not place.is_dir():
                    aside.rename(place)
                    sync_folder(self.folder)
            except OSError:
                if not place.is_dir():  # another process may have kept it meanwhile
                    raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def load(self, revision: str) -> dict[str, bytes]:
        """The bundle's files. NotFound when it was not kept, Broken when it is not that revision any more."""
        place = self._place(revision)
        if not place.is_dir():
            raise NotFound(f"the policy bundle {revision} was not kept", where=str(place))
        with trouble("the policy bundle cannot be read", place):
            files = {
                file.relative_to(place).as_posix(): file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file()
            }
        _check(revision, files)
        return files


def _check(revision: str, files: Mapping[str, bytes]) -> None:
    try:
        for name in files:
            check_member_name(name)
    except VerificationFailed as error:
        raise Broken(str(error), where="policy bundle") from error
    if bundle_revision(files) != revision:
        raise Broken(f"the files are revision {bundle_revision(files)}, not {revision}", where="policy bundle")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
