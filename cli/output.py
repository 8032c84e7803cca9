"""Lines on stdout and stderr for a program that runs on when nobody reads them any more."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def occupy() -> None:
    """Gives stdout and stderr that were closed before the start (`>&-`) a descriptor, or the next file that is opened gets it:
    a database that somebody prints into. It can only be read, so that writing fails like it does on a pipe without a reader."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # how Python shows it
            nowhere = os.open(os.devnull, os.O_RDONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


class Lines:
    """Whole lines to a stream. Once it cannot be written (its reader went away, its disk is full) no more is tried: half a line
    of JSON followed by others would be worse than none."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def write(self, line: str) -> bool:
        """Whether the line was taken."""
        if self._stream is None:
            return False
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            self._give_up(self._stream)
            return False
        return True

    def _give_up(self, stream: TextIO) -> None:
        """What is still buffered must go somewhere, or the interpreter fails when it ends (signal, note on SIGPIPE)."""
        self._stream = None
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            return  # it has no descriptor of its own, so it holds nothing back either
