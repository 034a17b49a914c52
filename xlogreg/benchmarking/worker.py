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
from typing import Any

import numpy as np

from ..solvers.descent import history_sha256
from .contestants import Run, by_name


def main() -> None:
    contestant = by_name(sys.argv[1])
    # Libraries print to standard output as they please; the answers keep it for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "setup" in request:
                options = request["setup"]
                run = contestant.setup(np.load(options["x"]), np.load(options["y"]), options["rate"])
                answer: dict[str, Any] = {"ready": True}
            else:
                assert run is not None
                start = time.perf_counter()
                costs = run(request["run"])
                seconds = time.perf_counter() - start
                digest = history_sha256(costs) if contestant.exact else None
                answer = {"seconds": seconds, "cost": costs[-1], "digest": digest}
        except Exception as error:  # whatever a library throws is the contestant's result
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
