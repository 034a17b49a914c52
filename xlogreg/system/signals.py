"""What stops a command."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

# Ctrl-C, a request to end (as from a shutdown or a batch system), and a terminal that was closed.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def restored() -> Iterator[dict[signal.Signals, Any]]:
    """Gives what handles them, and has it handle them again after the block, whatever does within; for the main thread.

    Handlers that were not set by Python, and cannot be by it, are left out.
    """
    before = {number: handler for number in STOP_SIGNALS if (handler := signal.getsignal(number)) is not None}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
