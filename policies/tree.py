"""Reading the Rego tree: the shipped rules and the operator's extra folders, as text with a place each.

    lib/NAME/NAME.rego                   package portcullis.lib.NAME
    rules/DOMAIN/RULE/RULE.rego          package portcullis.rules.DOMAIN["RULE"]
    rules/DOMAIN/RULE/RULE_test.rego     its tests; never part of a bundle

An extra folder has only `rules/`. What is wrong with a tree is found by `policies.check`; here only what cannot be read fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError

SHIPPED = Path(__file__).resolve().parent / "rego"
MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 5_000


@dataclass(frozen=True, slots=True)
class Source:
    """One Rego file. `path` is its place in the tree (posix), `file` where it was read, `extra` whether an operator brought it."""

    path: str
    text: str
    file: str
    extra: bool = False

    @property
    def is_test(self) -> bool:
        return self.path.endswith("_test.rego")

    @property
    def rule_id(self) -> str | None:
        """`DOMAIN/RULE` for a file under rules/DOMAIN/RULE/, else None."""
        return rule_of(self.path)


@dataclass(frozen=True, slots=True)
class Tree:
    sources: tuple[Source, ...]

    @property
    def modules(self) -> tuple[Source, ...]:
        """What decisions are made of."""
        return tuple(source for source in self.sources if not source.is_test)

    @property
    def tests(self) -> tuple[Source, ...]:
        return tuple(source for source in self.sources if source.is_test)


def rule_of(path: str) -> str | None:
    """The rule whose folder a place in the tree lies in."""
    parts = path.split("/")
    return f"{parts[1]}/{parts[2]}" if len(parts) == 4 and parts[0] == "rules" else None


def read_tree(root: Path | None = None, extra: Sequence[Path] = ()) -> Tree:
    """Every .rego file below `root` (the shipped rules when None) and below each extra folder, in a fixed order.

    Raises ConfigError for a folder that is not there, a file that cannot be read as UTF-8 or is too large, too many files,
    and data files: constant tables belong into Rego, where the revision and the checks see them.
    """
    sources = _read_folder(root or SHIPPED, extra=False)
    for folder in extra:
        sources += _read_folder(folder, extra=True)
    return Tree(tuple(sources))


def rule_ids(extra: Sequence[str | Path] = ()) -> frozenset[str]:
    """The ids of the shipped rules and of those in the extra folders. ConfigError as `read_tree`."""
    sources = read_tree(None, [Path(folder) for folder in extra]).modules
    return frozenset(source.rule_id for source in sources if source.rule_id is not None)


def _read_folder(folder: Path, *, extra: bool) -> list[Source]:
    if not folder.is_dir():
        raise ConfigError("this folder of rules does not exist", where=str(folder))
    sources = []
    for file in sorted(folder.rglob("*")):
        if file.suffix in {".json", ".yaml", ".yml"}:
            raise ConfigError("data files are not read here; write constant tables in Rego", where=str(file))
        if file.suffix == ".rego":
            sources.append(Source(file.relative_to(folder).as_posix(), _read_file(file), str(file), extra))
    if len(sources) > MAX_FILES:
        raise ConfigError(f"{len(sources)} Rego files; at most {MAX_FILES} are read", where=str(folder))
    return sources


def _read_file(file: Path) -> str:
    try:
        data = file.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{len(data)} bytes; a Rego file may have {MAX_FILE_BYTES}", where=str(file))
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text", where=str(file)) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(file)) from error
