"""The redactor process: `python -m redaction.worker POLICY`. Reads documents on stdin, writes them redacted on stdout.

What goes through it stays in its memory: no core dump, no text in messages, no file.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import sys
from typing import BinaryIO

from redaction import Redactor, frames, load

PR_SET_DUMPABLE = 4


def serve(source: BinaryIO, sink: BinaryIO, redactor: Redactor) -> None:
    """Until `source` ends. A document that the detector fails on is answered with `failed`, never with itself."""
    sink.write(frames.encode({"ready": True}))
    sink.flush()
    while (message := frames.read(source)) is not None:
        try:
            redacted, counts = redactor.redact_json(message["document"])
            answer = frames.encode({"id": message["id"], "document": redacted, "counts": counts})
        except Exception as error:
            sys.stderr.write(f"a record could not be judged: {type(error).__name__}\n")
            answer = frames.encode({"id": message["id"], "failed": True})
        sink.write(answer)
        sink.flush()


def keep_in_memory() -> None:
    """No core dump: not as a file, and not through a program that core_pattern names, which heeds no limit (core(5), prctl(2))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "core dumps cannot be turned off")


def main() -> None:
    keep_in_memory()
    logging.disable()  # a library's log line may quote what it looked at
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which closes our stdin when it is done
    # Whatever a library prints must not get among the frames.
    frames_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    redactor = load(sys.argv[1])
    try:
        serve(sys.stdin.buffer, frames_out, redactor)
    except Exception as error:
        # The gateway is gone, or what it sends is no frame. A traceback may quote a document, and an ordinary exit would flush into
        # the broken pipe once more.
        sys.stderr.write(f"the redactor ends: {type(error).__name__}\n")
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
