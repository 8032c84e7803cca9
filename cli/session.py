"""What every command shares: the settings, the state folder, how to print, how to end."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table

from core.errors import BadInput, ConfigError
from core.settings import Settings, parse, rooted

if TYPE_CHECKING:
    from api.compose import Management
    from core.principal import Principal

T = TypeVar("T")
DEFAULT_CONFIG = Path("portcullis.yaml")
DEFAULT_STATE = Path(".portcullis")


@dataclass
class Session:
    """The global options, and what follows from them."""

    config: Path | None = None
    state: Path = DEFAULT_STATE
    json: bool = False
    verbose: bool = False
    out: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))

    @cached_property
    def settings(self) -> Settings:
        """From --config, else ./portcullis.yaml where it exists, else the defaults. ConfigError says what is wrong where."""
        path = self.config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
        text = ""
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeError) as error:
                raise ConfigError("the settings cannot be read", where=str(path)) from error
        return rooted(parse(text, where=str(path or "defaults"), environ=os.environ), self.state)

    @property
    def actor(self) -> str:
        """Who runs the command; the number of a user that has no name, as in a container."""
        try:
            return getpass.getuser()
        except (KeyError, OSError):  # OSError from Python 3.13 on
            return f"uid-{os.getuid()}"

    def run(self, work: Callable[[Management, Principal], Awaitable[T]]) -> T:
        """`work` with the opened state and the local operator; closes the state whatever happens."""

        async def whole() -> T:
            from api.compose import build

            management = await build(self.settings, os.environ)
            try:
                return await work(management, management.operator(self.actor))
            finally:
                await management.close()

        return asyncio.run(whole())

    # --- printing: results to stdout, everything else to stderr ---------------------------------------------------

    def result(self, value: Any, text: str | Table | None = None) -> None:
        """`value` as JSON with --json; otherwise `text` (or the value, readable)."""
        if self.json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")
        elif text is not None:
            self.out.print(text, markup=not isinstance(text, str))
        elif isinstance(value, str):
            self.out.print(value, markup=False)
        else:
            self.out.print_json(data=value, default=str)

    def say(self, text: str) -> None:
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def session(context: typer.Context) -> Session:
    found = context.find_object(Session)
    if found is None:
        raise BadInput("no session; start the command through cli.main.run")
    return found


def table(*columns: str) -> Table:
    """A table whose cells go on in the next line where they are too long: an id that is cut is of no use."""
    return Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False, header_style="bold")


def read_bytes(path: str) -> bytes:
    """A file's bytes; `-` is standard input."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=path) from error


def read_value(text: str) -> Any:
    """A value that was typed on a command line, read as YAML (`4`, `"4"`, `[a, b]`, `{registry: r}`)."""
    from core import yamlread

    return yamlread.load(text, where="value")
