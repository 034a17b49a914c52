"""One minimiser in a process of its own, which tells its seconds, its answer and the most memory it had.

    python -m xlogreg.benchmarking.minimising NAME

As `worker`: ``{"setup": {"x": path, "y": path, "l2": number}}`` loads and converts the data;
``{"run": tolerance}`` minimises from zeros and answers seconds, w, b, steps, and the memory in bytes or None.
"""

import contextlib
import gc
import sys
import time
from typing import Any

import numpy as np

from .minimisers import Minimiser, Run, by_name
from .problems import FEATURES
from .worker import Request, serve


class Minimising:
    """Answers for one minimiser."""

    def __init__(self, minimiser: Minimiser) -> None:
        self.minimiser = minimiser
        self.run: Run | None = None
        self.before = 0

    def answer(self, request: Request) -> Request:
        if "setup" in request:
            # What is compiled and loaded at the first use is neither its time nor its memory.
            few = np.random.RandomState(0).randint(0, 256, (64, FEATURES), dtype=np.uint8)
            self.minimiser.setup(few, np.arange(64) % 2, 0.1)(1e-2)
            gc.collect()
            self.before = _status("VmRSS:")
            with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the peak counts from here
            options = request["setup"]
            self.run = self.minimiser.setup(np.load(options["x"]), np.load(options["y"]), options["l2"])
            return {"ready": True}
        assert self.run is not None
        start = time.perf_counter()
        w, b, steps = self.run(request["run"])
        seconds = time.perf_counter() - start
        answer: dict[str, Any] = {"seconds": seconds, "w": np.asarray(w, dtype=np.float64).tolist(), "b": b}
        peak = _status("VmHWM:") - self.before
        return {**answer, "steps": steps, "memory": peak if self.before and peak > 0 else None}


def _status(name: str) -> int:
    """A number of bytes that Linux tells of this process; 0 elsewhere."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(name)), 0)
    return 0


if __name__ == "__main__":
    serve(Minimising(by_name(sys.argv[1])).answer)
