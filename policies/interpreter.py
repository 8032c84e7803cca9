"""The interpreter as a process of its own (`python -m policies.interpreter`), for `policies.confined`.

It speaks frames over its standard input and output, a length in four bytes and then that many: first the rules, answered by
what is wrong with them or nothing; then a rule's name and an input each, answered by the decision. The kernel ends it when an
evaluation outlasts the deadline (SIGALRM, which needs no interpreter lock) or wants more memory than the cap, and it ends by
itself when whoever started it is gone. It has no secrets: its environment is empty but for where modules are found.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import BinaryIO

from policies import embedded

LENGTH = struct.Struct(">I")


def main() -> None:
    """`deadline in seconds` and `memory in bytes` are the arguments."""
    deadline, memory = float(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal goes to the whole group; the door ends this one
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("r+b") as nothing:  # whatever a library prints must not be read as an answer
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    engine, problem = embedded.build(json.loads(receive(source)))
    send(sink, problem.encode())
    while not problem:
        rule, document = receive(source).decode(), receive(source).decode()
        signal.setitimer(signal.ITIMER_REAL, deadline)
        answer = embedded.run(engine, rule, document)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(sink, (b"+" + answer.text.encode()) if answer.text is not None else b"-" + answer.place.encode())


def receive(source: BinaryIO) -> bytes:
    """One frame. EOFError when the other side is gone."""
    size = LENGTH.unpack(_exactly(source, LENGTH.size))[0]
    return _exactly(source, size)


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def send(sink: BinaryIO, data: bytes) -> None:
    sink.write(LENGTH.pack(len(data)) + data)
    sink.flush()


if __name__ == "__main__":
    try:
        main()
    except (EOFError, BrokenPipeError):
        sys.exit(0)
