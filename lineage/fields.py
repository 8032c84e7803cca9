"""Reading what people write into cards, datasets and reasons: bounded, printable, refused with a clear message.

Text is stored as it was written (PostgreSQL cannot store NUL, and a control character has no business in a card, so those
are refused); it is made safe where it is rendered.
"""

from __future__ import annotations

from core.errors import BadInput, TooLarge
from core.names import check_name

MAX_TEXT = 20_000
MAX_LINE = 256
MAX_LIST = 64


def line(value: str, what: str, *, max_length: int = MAX_LINE) -> str:
    """One line of printable text, stripped; BadInput when empty, too long or with control characters."""
    found = text(value, what, max_length=max_length)
    if not found:
        raise BadInput(f"{what} is empty", where=what)
    if "\n" in found or "\t" in found:
        raise BadInput(f"{what} must be one line", where=what)
    return found


def text(value: str, what: str, *, max_length: int = MAX_TEXT) -> str:
    """Text of any number of lines, stripped (so that blank counts as missing). BadInput, TooLarge."""
    if not isinstance(value, str):
        raise BadInput(f"{what} must be text, found {type(value).__name__}", where=what)
    found = value.replace("\r\n", "\n").strip()
    if len(found) > max_length:
        raise TooLarge(f"{what} has {len(found)} characters; at most {max_length} are kept", where=what)
    if any((ord(c) < 0x20 and c not in "\n\t") or ord(c) == 0x7F or 0xD800 <= ord(c) <= 0xDFFF for c in found):
        raise BadInput(f"{what} holds a control character", where=what)
    return found


def names(values: list[str] | tuple[str, ...], what: str) -> list[str]:
    """A list of names without repetition, in the order given. BadInput for anything that is not a name (`core.names`)."""
    if not isinstance(values, (list, tuple)):
        raise BadInput(f"{what} must be a list of names, found {type(values).__name__}", where=what)
    if len(values) > MAX_LIST:
        raise TooLarge(f"{what} has {len(values)} entries; at most {MAX_LIST} are kept", where=what)
    return list(dict.fromkeys(check_name(value, what) for value in values))
