"""Reading fields of objects that strangers wrote: a wrong type is an error that names the path, never a silent default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.errors import BadInput


def mapping(value: Any, where: str) -> dict[str, Any]:
    """`value` as an object; absent (null) is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"expected an object, found {kind_of(value)}", where=where)
    for key in value:
        if not isinstance(key, str):
            raise BadInput("a key is not text", where=where)
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """`value` as a list; absent (null) is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadInput(f"expected a list, found {kind_of(value)}", where=where)
    return value


def text(value: Any, where: str, *, most: int = 4096) -> str | None:
    """`value` as text of at most `most` characters; None when absent."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadInput(f"expected text, found {kind_of(value)}", where=where)
    if len(value) > most:
        raise BadInput(f"{len(value)} characters; at most {most} are read", where=where)
    return value


def needed(value: Any, where: str, *, most: int = 253) -> str:
    """`value` as text that must be there."""
    found = text(value, where, most=most)
    if not found:
        raise BadInput("is missing", where=where)
    return found


def flag(value: Any, where: str) -> bool:
    """`value` as a boolean; absent (null) is false."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadInput(f"expected true or false, found {kind_of(value)}", where=where)
    return value


def count(value: Any, where: str, *, default: int) -> int:
    """`value` as an int32 of at least 0 (what Kubernetes takes for replicas and parallelism); `default` when absent."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"expected a whole number, found {kind_of(value)}", where=where)
    if not 0 <= value < 2**31:
        raise BadInput("expected a number from 0 to 2147483647", where=where)
    return value


def items(parent: dict[str, Any], key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of the list `parent[key]` with its path."""
    for index, item in enumerate(sequence(parent.get(key), f"{where}.{key}")):
        path = f"{where}.{key}[{index}]"
        yield path, mapping(item, path)


def kind_of(value: Any) -> str:
    """The JSON name of a value's type."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
