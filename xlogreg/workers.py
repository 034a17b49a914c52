"""Processes that predict pictures: much of the work on a picture holds Python's lock, which a process has to itself.

A worker is a Python that runs `main`. It is sent the model's bytes, says that it is ready, and answers lists of files
with lists of outcomes, all of it in lines of JSON: nothing that is sent is ever run. It ends when nobody can send it
any more, and Ctrl-C is not its business.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .classifier import Classifier, Failure

# Each takes a hundred megabytes, and there are disks behind the files.
MOST = 16
# What libraries read to see how many threads they may have.
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
_MAIN = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from xlogreg.workers import main; main()"

# Of a picture: the probability of class 1, or why there is none.
Outcome = float | str


class WorkerLost(Exception):
    """A worker's process ended, for want of memory say."""


class Worker:
    """A process that predicts pictures with a classifier; `ready` is called with it when it can, if it ever can."""

    def __init__(self, classifier: Classifier, ready: "Callable[[Worker], None]") -> None:
        apart: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, json.dumps(sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")}, **apart,
        )  # fmt: skip
        self._waiting = threading.Thread(target=self._wait, args=(classifier, ready), daemon=True)
        self._waiting.start()

    def _wait(self, classifier: Classifier, ready: "Callable[[Worker], None]") -> None:
        with contextlib.suppress(WorkerLost):
            self._ask(base64.b64encode(classifier.to_bytes()).decode())
            ready(self)

    def _ask(self, request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except (OSError, ValueError) as error:  # a broken pipe, or one that `end` has closed
            raise WorkerLost from error
        if not answer.endswith(b"\n"):
            raise WorkerLost
        return json.loads(answer)

    def predict(self, paths: Sequence[str]) -> list[Outcome]:
        """Predict these files.

        Raises
        ------
        WorkerLost
            The process ended before it had an answer.
        """
        answer: list[Outcome] = self._ask(paths)
        return answer

    def end(self) -> None:
        """End the process at once; whoever waits for an answer gets `WorkerLost`."""
        self._process.kill()
        self._process.wait()
        self._waiting.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def main() -> None:
    """What a worker does."""
    from .bulk import predict_batch, reuse_memory
    from .shrinking import resize_fast

    # What anybody prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = (json.loads(line) for line in sys.stdin.buffer)
    classifier = Classifier.from_bytes(base64.b64decode(next(questions)))
    reuse_memory()
    never, turn = threading.Event(), threading.Lock()
    answer: Any = "ready"
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        while True:
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
            paths = next(questions, None)
            if paths is None:
                break
            results = predict_batch(classifier, paths, resize_fast, never, turn)
            answer = [result.message if isinstance(result, Failure) else result.probability for result in results]
    # No questions, no reason to tidy up.
    os._exit(0)
