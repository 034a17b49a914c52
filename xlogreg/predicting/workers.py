"""Processes that predict pictures: much of the work on a picture holds Python's lock, which a process has to itself.

A worker is this process's own image (`Forked`), there at once, or a Python that starts anew (`Started`) where a fork is
not safe. It answers lists of files with lists of outcomes, in lines of JSON: nothing that is sent is ever run. It ends
when nobody can send it any more, and Ctrl-C is not its business.
"""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from ..models.classifier import Classifier, Failure
from ..system.parallel import STOP_SIGNALS, one_blas_thread

# Each takes a hundred megabytes, and there are disks behind the files.
MOST = 16
# What libraries read to see how many threads they may have.
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
_MAIN = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from xlogreg.predicting.workers import main; main()"

_TRIES = 100

# Of a picture: the probability of class 1, or why there is none.
Outcome = float | str


class WorkerLost(Exception):
    """A worker's process ended, for want of memory say."""


class Worker:
    """A process that predicts pictures: its number, and the ends of its pipes that are here."""

    def __init__(self, pid: int, questions: IO[bytes], answers: IO[bytes]) -> None:
        self.pid, self._questions, self._answers = pid, questions, answers

    def ask(self, request: Any) -> Any:
        """The answer to anything that JSON can say.

        Raises
        ------
        WorkerLost
            The process ended before it had an answer.
        """
        try:
            self._questions.write(json.dumps(request).encode() + b"\n")
            self._questions.flush()
            answer = self._answers.readline()
        except (OSError, ValueError) as error:  # a broken pipe, or one that `end` has closed
            raise WorkerLost from error
        if not answer.endswith(b"\n"):
            raise WorkerLost
        return json.loads(answer)

    def predict(self, paths: Sequence[str]) -> list[Outcome]:
        """Predict these files, or raise `WorkerLost`."""
        answer: list[Outcome] = self.ask(paths)
        return answer

    def end(self) -> None:
        """End the process at once; whoever waits for an answer gets `WorkerLost`."""
        self._kill()
        self.close()

    def close(self) -> None:
        for stream in (self._questions, self._answers):
            with contextlib.suppress(OSError):
                stream.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def can_fork() -> bool:
    """Whether a copy of this process would be sound: other threads of Python's may hold locks, which nobody would
    release in it. (Apple's libraries do not bear it.)"""
    only = threading.active_count() == 1 and threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and only


def alone() -> bool:
    """Whether this process has one thread, those of libraries included. BLAS ends its own before a fork."""
    with contextlib.suppress(OSError):
        for _ in range(_TRIES):
            if len(os.listdir("/proc/self/task")) == 1:
                return True
            time.sleep(0.001)  # one that has ended, and was joined, may still be there for a moment
    return False


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """What stops a command comes after the block. While a process is copied, Python would lose the exceptions that they
    raise, and in the copy they would go the other process's ways. (To block them would not do: the threads of libraries
    take them.)"""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    known = {number: handler for number, handler in before.items() if handler is not None}
    for number in known:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


class Forked(Worker):
    """A copy of this process, made while `signals_wait`: it has all that is loaded here, in a few milliseconds, and
    shares its memory.

    others : those that there are already; each must see the end when this process is no more, so no copy keeps theirs

    Raises
    ------
    OSError
        There can be no more processes.
    """

    def __init__(self, classifier: Classifier, others: Sequence[Worker]) -> None:
        with contextlib.ExitStack() as opened:
            questions, asking = _pipe(opened)
            answering, answers = _pipe(opened)
            parent = os.getpid()
            try:
                pid = os.fork()
                if pid == 0:
                    _be_a_worker(classifier, others, (questions, answers), (asking, answering))
            finally:
                if os.getpid() != parent:
                    # No tidying up, and no way back: all that is left to be done is the other process's.
                    os._exit(0)
            opened.pop_all()
        os.close(questions)
        os.close(answers)
        super().__init__(pid, os.fdopen(asking, "wb"), os.fdopen(answering, "rb"))


def _pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends are none of the standard streams, which may be closed."""
    import fcntl

    low = os.pipe()
    try:
        ends = []
        for end in low:
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
            opened.callback(os.close, ends[-1])
        return ends[0], ends[1]
    finally:
        for end in low:
            os.close(end)


def _be_a_worker(
    classifier: Classifier, others: Sequence[Worker], ends: tuple[int, int], theirs: tuple[int, int]
) -> None:
    os.setpgid(0, 0)
    # It ends with the other process, whose business the terminal is.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    for other in others:
        other.close()
    for end in theirs:
        os.close(end)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    with one_blas_thread, os.fdopen(ends[0], "rb") as questions, os.fdopen(ends[1], "wb") as answers:
        _serve(classifier, questions, answers)


class Started(Worker):
    """A new Python, which takes a second or more; `ready` is called with it when it can predict, if it ever can."""

    def __init__(self, classifier: Classifier, ready: "Callable[[Worker], None]") -> None:
        apart: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, json.dumps(sys.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")}, **apart,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        super().__init__(self._process.pid, self._process.stdin, self._process.stdout)
        self._waiting = threading.Thread(target=self._wait, args=(classifier, ready), daemon=True)
        try:
            self._waiting.start()
        except RuntimeError as error:  # the system starts no more threads
            self._process.kill()
            self._process.wait()
            self.close()
            raise OSError(str(error)) from error

    def _wait(self, classifier: Classifier, ready: "Callable[[Worker], None]") -> None:
        with contextlib.suppress(WorkerLost):
            self.ask(base64.b64encode(classifier.to_bytes()).decode())
            ready(self)

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._waiting.join()


def main() -> None:
    """What a `Started` worker does."""
    from .batch import reuse_memory

    # What anybody prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    classifier = Classifier.from_bytes(base64.b64decode(json.loads(sys.stdin.buffer.readline())))
    reuse_memory()
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _answer(answers, "ready")
        _serve(classifier, sys.stdin.buffer, answers)
    # No questions, no reason to tidy up.
    os._exit(0)


def _serve(classifier: Classifier, questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until nobody asks any more."""
    from ..images.resizing import resize_fast
    from .batch import predict_batch

    never, turn = threading.Event(), threading.Lock()
    for line in questions:
        results = predict_batch(classifier, json.loads(line), resize_fast, never, turn)
        _answer(answers, [result.message if isinstance(result, Failure) else result.probability for result in results])


def _answer(answers: IO[bytes], answer: Any) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()
