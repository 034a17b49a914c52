"""Standard output and error of the command line: what they cannot show is escaped, and words that
they cannot take end nothing."""

import contextlib
import io
import os
import signal
import sys
from typing import Any


class _Lossy(io.FileIO):
    """A stream that loses what cannot be written: a full disk or a pipe that nobody reads must not end a training that
    only wanted to say how far it is."""

    lost = False

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        if written is None:
            self.lost = True
        return len(data) if written is None else written


def prepare() -> None:
    """Let the process's own streams escape what their encoding lacks, and standard error lose what it cannot take."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it was closed
            stream.reconfigure(errors="backslashreplace")
    # Windows writes to its consoles by other means, and these are never full.
    if isinstance(sys.stderr, io.TextIOWrapper) and not (os.name == "nt" and sys.stderr.isatty()):
        try:
            raw = _Lossy(sys.stderr.fileno(), "w", closefd=False)
        except OSError:  # no file of the system's
            return
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True
        )


def exit_code(code: int) -> int:
    """The code to exit with: 1 instead of 0 where words were lost on standard error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    return 1 if code == 0 and isinstance(raw, _Lossy) and raw.lost else code


def give_up_output() -> None:
    """Nothing more can be written to standard output, and nobody must try: neither what comes next nor Python at its
    end."""
    with contextlib.suppress(OSError, AttributeError):  # it may be closed, or None from the start
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def die_of_broken_pipe() -> int:
    """Nobody reads standard output any more, as after `| head`: end without a word, as other programs do, by the
    signal that says so; where there is none, the code to exit with."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    give_up_output()
    return 1
