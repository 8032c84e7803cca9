"""How long the redactor will need for a document, told from its bytes, so that none is taken on that outlasts the budget. Pure.

Measured with every recognizer (`patterns`, the slowest policy) on one core of the machine that this was written on, whole documents,
CPU time: 0.35 ms for each key and each value, whatever it holds; then up to 4 µs for a character, but up to 120 µs for one of those that
numbers, addresses and times are made of (the phone recognizer tries each run of them in 13 regions), and 25 µs for a byte of a
character beyond ASCII (digits of other scripts are among them). A text in a message's parts is looked at twice.
"""

from __future__ import annotations

STRING = 350e-6
LIGHT = 4e-6
NUMERIC = 100e-6
WIDE = 25e-6
_NUMERIC = b"0123456789+-.:()[]/"
_WIDE = bytes(range(0x80, 0x100))


def seconds(data: bytes) -> float:
    """For the JSON in `data`; a document that JSON in a string holds counts, for the redactor walks it too."""
    numeric = len(data) - len(data.translate(None, _NUMERIC))
    wide = len(data) - len(data.translate(None, _WIDE))
    return STRING * data.count(b'"') / 2 + NUMERIC * numeric + WIDE * wide + LIGHT * (len(data) - numeric - wide)
