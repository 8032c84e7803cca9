"""A program that ends with the one that started it, however that one ends: `portcullis up` and its services.

Whoever starts a program names itself in PORTCULLIS_PARENT; the started program asks the kernel for SIGTERM at that one's death
(prctl(2), PR_SET_PDEATHSIG). It is asked for there and not between fork and exec, where another thread's lock could hold the
child for ever. On systems other than Linux the variable does nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping

from core.errors import ConfigError, Unavailable

VARIABLE = "PORTCULLIS_PARENT"
PR_SET_PDEATHSIG = 1


def bound(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a program that is to end with this process. Start it from a thread that lives as long as the process: to
    the kernel the parent is the thread."""
    return {**environ, VARIABLE: str(os.getpid())}


def follow(environ: MutableMapping[str, str]) -> None:
    """Ends this process with the one that `environ` names; the name is taken out, so that nobody inherits it.

    Raises ConfigError for a name that is no process number, Unavailable when that process is not, or no longer, the parent.
    """
    named = environ.pop(VARIABLE, None)
    if named is None or sys.platform != "linux":
        return
    if not (named.isascii() and named.isdigit()):
        raise ConfigError("is not a process number; only the program that starts this one sets it", where=VARIABLE)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise Unavailable(f"cannot be set to end with its parent: {os.strerror(ctypes.get_errno())}", where=VARIABLE)
    if os.getppid() != int(named):  # it may have ended before the kernel was asked
        raise Unavailable(f"process {named}, which started this one, is gone", where=VARIABLE)
