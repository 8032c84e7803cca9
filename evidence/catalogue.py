"""The control catalogues: what each framework asks, in our words, and which query of our records answers it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from core import yamlread
from core.errors import ConfigError, NotFound

FOLDER = Path(__file__).parent / "controls"


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Control(_Closed):
    """`applies_from`: the first day on which it binds anybody; `remains`: what records cannot show."""

    id: str
    title: str
    articles: Annotated[list[str], Field(min_length=1)]
    applies_from: str
    level: Literal["A", "P", "S"]
    test: str
    remains: str = ""

    @field_validator("applies_from")
    @classmethod
    def _is_date(cls, value: str) -> str:
        return date.fromisoformat(value).isoformat()


class Framework(_Closed):
    """`text_version`: which version of the legal text the controls were written from."""

    id: str
    title: str
    text_version: str
    controls: Annotated[list[Control], Field(min_length=1)]

    @field_validator("controls")
    @classmethod
    def _unique(cls, value: list[Control]) -> list[Control]:
        if len({control.id for control in value}) != len(value):
            raise ValueError("a control stands twice")
        return value


def read(path: Path) -> Framework:
    """The catalogue in `path`. ConfigError names the field that is wrong."""
    try:
        return Framework.model_validate(yamlread.load(path.read_text("utf-8"), where=path.name))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(first["msg"], where=f"{path.name}: {'.'.join(str(part) for part in first['loc'])}") from error


def frameworks() -> tuple[Framework, ...]:
    """Every framework that a report can be made for."""
    return tuple(read(path) for path in sorted(FOLDER.glob("*.yaml")))


def framework(name: str) -> Framework:
    """NotFound lists those there are."""
    for known in frameworks():
        if known.id == name:
            return known
    raise NotFound(f"there is no framework {name[:60]!r}; there are: {', '.join(known.id for known in frameworks())}")
