"""One contestant in a process of its own, so that no other's threads or memory disturb it.

    python -m xlogreg.benchmarking.worker NAME

Reads one JSON request a line from standard input and answers one line each:
``{"setup": {"x": path, "y": path, "rate": r}}`` loads and converts the data;
``{"run": n}`` trains n iterations from zeros and answers seconds, last cost and digest of all costs (if it has them).
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..solvers.descent import history_sha256
from .contestants import Contestant, Run, by_name

Request = dict[str, Any]


class Descending:
    """Answers for one contestant."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.run: Run | None = None

    def answer(self, request: Request) -> Request:
        if "setup" in request:
            options = request["setup"]
            self.run = self.contestant.setup(np.load(options["x"]), np.load(options["y"]), options["rate"])
            return {"ready": True}
        assert self.run is not None
        start = time.perf_counter()
        costs = self.run(request["run"])
        seconds = time.perf_counter() - start
        digest = history_sha256(costs) if self.contestant.exact else None
        return {"seconds": seconds, "cost": costs[-1], "digest": digest}


def serve(answer: Callable[[Request], Request]) -> None:
    """Answer each line of standard input."""
    # Libraries print to standard output as they please; the answers keep it for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answered = answer(request)
        except Exception as error:  # whatever a library throws is the contestant's result
            answered = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answered), file=answers, flush=True)


def main() -> None:
    serve(Descending(by_name(sys.argv[1])).answer)


if __name__ == "__main__":
    main()
