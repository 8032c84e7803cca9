"""One spelling for what can be written in many: full-width forms and digits of other scripts, invisible characters, escapes.

Every character of the normal text knows where it came from, so that what is found there is replaced in the original.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
_ESCAPE = re.compile(r"%([0-7][0-9A-Fa-f])|&#(\d{2,3});|&#[xX]([0-9A-Fa-f]{2,4});|\\u00([0-7][0-9A-Fa-f])")


@dataclass(frozen=True, slots=True)
class Normal:
    """`starts[i]` and `ends[i]`: the range of the original that character `i` of `text` stands for."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def original(self, start: int, end: int) -> tuple[int, int]:
        return self.starts[start], self.ends[end - 1]


def normalise(text: str) -> Normal:
    """NFKC character by character, invisible characters left out, %40, &#64; and \\u0040 read. Linear in the length."""
    if text.isascii() and not _ESCAPE.search(text):
        return Normal(text, tuple(range(len(text))), tuple(range(1, len(text) + 1)))
    characters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    while at < len(text):
        match = _ESCAPE.match(text, at) if text[at] in "%&\\" else None
        end = match.end() if match else at + 1
        for character in _read(match) if match else _plain(text[at]):
            characters.append(character)
            starts.append(at)
            ends.append(end)
        at = end
    return Normal("".join(characters), tuple(starts), tuple(ends))


def _read(match: re.Match[str]) -> str:
    hexadecimal = match[1] or match[3] or match[4]
    code = int(hexadecimal, 16) if hexadecimal else int(match[2])
    return chr(code) if 0x20 <= code < 0xD800 else " "


def _plain(character: str) -> str:
    if character in INVISIBLE:
        return ""
    if character.isascii():
        return character
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    if unicodedata.category(character) == "Zs":
        return " "
    return unicodedata.normalize("NFKC", character)
