"""Reading JSON from strangers: strict, bounded, one meaning only.

Two parsers that disagree about a document are a bypass (duplicate keys, NaN, lone surrogates), and a deep document can
exhaust a stack, so both die here before anything else sees them.
"""

from __future__ import annotations

import json
import math
from typing import Any, Never

from core.errors import BadInput, TooLarge

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise BadInput("an object holds the same key twice")
        result[key] = value
    return result


def _constant(name: str) -> Never:
    raise BadInput(f"{name} is not JSON")


def _finite(text: str) -> float:
    """A number past a float's range would be read as infinity, and written on as what is not JSON."""
    value = float(text)
    if not math.isfinite(value):
        raise BadInput("a number is too large to be read")
    return value


def check_depth(data: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raises TooLarge when brackets outside strings nest deeper than `max_depth`. Linear, no recursion."""
    depth = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x7B, 0x5B):
            depth += 1
            if depth > max_depth:
                raise TooLarge(f"nested deeper than {max_depth} levels")
        elif byte in (0x7D, 0x5D):
            depth -= 1


def loads(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The JSON value in `data`.

    Raises TooLarge beyond `max_bytes` or `max_depth`, BadInput for anything that is not exactly one strict JSON value
    in UTF-8 (duplicate keys, NaN, Infinity, 1e999, a byte order mark, lone surrogates and trailing text included).
    """
    if len(data) > max_bytes:
        raise TooLarge(f"{len(data)} bytes; at most {max_bytes} are read")
    if data.count(b"{") + data.count(b"[") > max_depth:
        check_depth(data, max_depth)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise BadInput("not valid UTF-8, or a lone surrogate") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"not JSON: {error.msg}", where=f"line {error.lineno} column {error.colno}") from error
    except (RecursionError, ValueError) as error:
        raise BadInput("not JSON that can be read safely") from error
    return value


def loads_object(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """As `loads`, and the value must be an object."""
    value = loads(data, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(value, dict):
        raise BadInput(f"expected a JSON object, found {type(value).__name__}")
    return value
