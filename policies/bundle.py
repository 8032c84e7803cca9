"""A bundle: every module that decides, and the revision that names exactly this content.

On disk, in an evidence package and for `opa run --server --bundle DIR` it is the same set of files: the Rego modules by their
path (`lib/…`, `rules/…`, `generated/…`) and OPA's `.manifest` with the revision. Tests are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.canonical import digest, sha256
from core.errors import Broken
from core.jsonread import loads_object

MANIFEST = ".manifest"
FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """`modules`: path to Rego text. Two bundles with the same modules have the same revision, wherever they came from."""

    modules: Mapping[str, str]

    @property
    def revision(self) -> str:
        """sha256 over the canonical JSON of {format, modules: path → sha256 of its text}."""
        return digest({"format": FORMAT, "modules": {path: sha256(text.encode()) for path, text in self.modules.items()}})

    def files(self) -> dict[str, bytes]:
        """What is written: every module and the manifest."""
        manifest = {"revision": self.revision, "roots": ["portcullis"], "rego_version": 1}
        files = {path: text.encode() for path, text in sorted(self.modules.items())}
        return {MANIFEST: json.dumps(manifest, sort_keys=True).encode() + b"\n", **files}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Bundle:
        """The bundle in `files` (as `files()` gives them). Broken when its content is not what its manifest says."""
        if MANIFEST not in files:
            raise Broken("the bundle has no manifest, so nothing says which revision it is", where=MANIFEST)
        claimed = loads_object(files[MANIFEST]).get("revision")
        modules = {}
        for path, data in files.items():
            if path == MANIFEST:
                continue
            if not path.endswith(".rego") or ".." in PurePosixPath(path).parts or path.startswith("/"):
                raise Broken("a bundle holds Rego modules and a manifest, nothing else", where=path[:200])
            try:
                modules[path] = data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise Broken("not UTF-8 text", where=path) from error
        bundle = cls(modules)
        if bundle.revision != claimed:
            raise Broken(f"the content is revision {bundle.revision}, the manifest says {str(claimed)[:80]}", where=MANIFEST)
        return bundle

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """The bundle that `write` left in `folder`. Broken as `from_files`, or when it cannot be read."""
        try:
            return cls.from_files(
                {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
            )
        except OSError as error:
            raise Broken(f"the bundle cannot be read: {error.strerror}", where=str(folder)) from error

    def write(self, folder: Path) -> None:
        """Writes `files()` below `folder`, which must be empty or not there: a stray module would change what OPA decides."""
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Broken("the folder for the bundle is not empty", where=str(folder))
        for path, data in self.files().items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def write_opa_bundle(bundle: Bundle, folder: Path) -> None:
    """`bundle` as the folder that `opa run --server --bundle FOLDER` takes."""
    bundle.write(folder)
