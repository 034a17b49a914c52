"""Contestants take turns, round after round, in processes of their own; answers are checked before times are taken."""

import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ..arrays import choose_device
from ..errors import InputError
from ..runs.run_folder import machine
from ..system.machine import version_of
from ..system.version import __version__
from .contestants import Contestant, contestants_on
from .limits import Limits
from .problems import FEATURES, RATE, Problem, load

# What a contestant may need, of the memory that is free: the machine must not start to swap.
_MEMORY_SHARE = 0.85
# Seconds after which no answer is expected any more: far beyond the slowest contestant's largest problem.
_PATIENCE = 900.0
# Seconds between two turns: threads that spin for a while when their work is done must be asleep by then.
PAUSE = 0.3
_WORKER = [sys.executable, "-m", "xlogreg.benchmarking.worker"]
Progress = Callable[[str], None]


class Competitor(Protocol):
    """What a process of a contestant's own asks of it, be it one of `contestants` or of `minimisers`."""

    @property
    def name(self) -> str: ...
    @property
    def bytes_per_pixel(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def threads(self) -> int: ...


Some = TypeVar("Some", bound=Competitor)


class Worker(Generic[Some]):
    """A contestant's process and the line to it."""

    def __init__(self, contestant: Some, command: Sequence[str] = ()) -> None:
        self.contestant, self.late = contestant, False
        # Libraries read these when they are loaded.
        names = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        threads = dict.fromkeys(names, str(contestant.threads)) if contestant.threads else {}
        # On a machine with a GPU, JAX would take it unasked, and most of its memory.
        threads["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        if contestant.device == "cpu":
            threads["JAX_PLATFORMS"] = "cpu"
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [*(command or _WORKER), contestant.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **threads},
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        late = threading.Timer(_PATIENCE, self._stop)
        late.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late.cancel()
        return json.loads(line) if line else {"error": self._last_words()}

    def _stop(self) -> None:
        self.late = True
        self.process.kill()

    def _last_words(self) -> str:
        """Why there is no answer, as far as the process said it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            self._stop()
        if self.late:
            return f"it answered nothing for {_PATIENCE / 60:.0f} minutes"
        if self.process.returncode < 0:
            return f"its process was killed (signal {-self.process.returncode}), for want of memory perhaps"
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - 4096))
        words = self.errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "")
        return "its process ended" + (f" ({last})" if last else "")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def compete(
    problems: Sequence[Problem], names: Sequence[str] | None, rounds: int, progress: Progress, device: str = "cpu"
) -> dict[str, Any]:
    """Run all installed contestants of a device (or those of `names`); returns what the report shows, as JSON."""
    everybody = contestants_on(device)
    contestants = [c for c in everybody if c.installed and (names is None or c.name in names)]
    # All others are compared with the first.
    ours = everybody[0]
    if ours not in contestants:
        raise InputError("Numba is not installed, so there is no fused kernel to compare with; install it.")
    progress("measuring the machine's limits")
    limits = _measure(device)
    results = []
    for problem in problems:
        with saved(*load(problem)) as paths:
            results.append(_compete(problem, paths, contestants, rounds, progress))
        results[-1]["bound_ms"] = limits.bounds(problem.pictures * FEATURES)
    packages = ("numpy", "numba", "jax", "torch", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x")
    return {
        "xlogreg": __version__,
        "date": datetime.date.today().isoformat(),
        "device": device,
        "ours": ours.name,
        "machine": {"processor": limits.processor, **machine()},
        "packages": {name: version for name in packages if (version := version_of(name))},
        "not_installed": sorted({c.needs for c in everybody if not c.installed}),
        "learning_rate": RATE,
        "rounds": rounds,
        "limits": limits.values,
        "problems": results,
    }


def _measure(device: str) -> Limits:
    if device == "gpu":
        from .gpu import measure_gpu

        return measure_gpu()
    from .cpu import measure_cpu

    return measure_cpu()


def joined(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The results of two calls of `compete`, the first of which may be empty, as of one.

    The best that the machine could do in either counts for both: other programs may have slowed down the other.
    """
    if not before:
        return found
    limits, rate = dict(before["limits"]), "multiply_adds_g_s"
    for name in {"copy_gb_s", "read_gb_s", rate} & limits.keys():
        limits[name] = max(limits[name], found["limits"][name])
    for results in (before, found) if rate in limits else ():
        for problem in results["problems"]:
            problem["bound_ms"]["multiply-adds"] *= results["limits"][rate] / limits[rate]
    return {**found, **before, "limits": limits, "problems": [*before["problems"], *found["problems"]]}


def _compete(
    problem: Problem, paths: dict[str, str], contestants: Sequence[Contestant], rounds: int, progress: Progress
) -> dict[str, Any]:
    """All contestants on one problem; the first is ours."""
    ours, *waiting = contestants
    entries: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    answer: dict[str, Any] = {}
    # Those that fit into the memory together take turns with each other; xlogreg's kernel is one of every group.
    while waiting or not entries:
        group, waiting = group_of(problem.pictures, ours, waiting, skipped)
        there, answer = _take_turns(problem, paths, group, rounds, skipped, progress)
        entries = {**there, **entries}
    return {
        "pictures": problem.pictures, "iterations": problem.iterations, "origin": problem.origin,
        "exact_cost": answer["cost"], "history_sha256": answer["digest"],
        "contestants": {c.name: entries[c.name] for c in contestants if c.name in entries}, "skipped": skipped,
    }  # fmt: skip


def group_of(
    pictures: int, ours: Some, waiting: Sequence[Some], skipped: dict[str, str]
) -> tuple[list[Some], list[Some]]:
    """Ours and as many of those that wait, in order, as fit into the free memory together; and who waits on."""
    pixels, free = pictures * FEATURES, _MEMORY_SHARE * _free_memory(ours.device)
    group, later = [ours], list[Some]()
    held = least = pixels * (1 + ours.bytes_per_pixel)
    for contestant in waiting:
        # While it converts, a contestant holds its floats twice.
        most = pixels * (1 + 2 * contestant.bytes_per_pixel)
        if least + most > free:
            skipped[contestant.name] = "its floats do not fit into the memory"
        elif held + most > free or later:
            later.append(contestant)
        else:
            group.append(contestant)
            held += pixels * (1 + contestant.bytes_per_pixel)
    return group, later


def _take_turns(
    problem: Problem,
    paths: dict[str, str],
    contestants: Sequence[Contestant],
    rounds: int,
    skipped: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What each contestant of a group reached, and the first one's (ours) exact answer; fills `skipped`."""
    workers: list[Worker[Contestant]] = []
    exact: dict[int, dict[str, Any]] = {}
    entries: dict[str, dict[str, Any]] = {}
    ours = contestants[0]

    def leave_out(contestant: Contestant, why: str) -> None:
        if contestant is ours:
            raise InputError(f"xlogreg's own kernel did not finish on {problem.pictures:,} pictures: {why}.")
        skipped[contestant.name] = why
        entries.pop(contestant.name, None)

    try:
        for contestant in contestants:
            progress(f"{problem.pictures:,} pictures: {contestant.name}: answer")
            workers.append(Worker(contestant))
            iterations = _iterations(contestant, problem)
            # The first run compiles and warms up; its answer is checked and its time is not taken.
            answer = workers[-1].ask({"setup": {**paths, "rate": RATE}})
            if "error" not in answer:
                answer = workers[-1].ask({"run": iterations})
            if iterations not in exact:
                # Only the first, which is ours, does as many as there are to do.
                exact[iterations] = answer if contestant is ours else workers[0].ask({"run": iterations})
            if wrong := answer.get("error") or _wrong(contestant, answer, exact[iterations], problem):
                leave_out(contestant, wrong)
                workers.pop().close()
                continue
            deviation = answer["cost"] - exact[iterations]["cost"]
            entries[contestant.name] = {"deviation": deviation, "iterations": iterations, "seconds": []}
            if answer["digest"]:
                entries[contestant.name]["digest"] = answer["digest"]
        for number in range(rounds):
            progress(f"{problem.pictures:,} pictures: round {number + 1} of {rounds}")
            # Another one goes first each time.
            for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                time.sleep(PAUSE)
                answer = worker.ask({"run": _iterations(worker.contestant, problem)})
                if "error" in answer:
                    leave_out(worker.contestant, answer["error"])
                elif entry := entries.get(worker.contestant.name):
                    entry["seconds"].append(answer["seconds"])
    finally:
        for worker in workers:
            worker.close()
    ours_seconds = np.array(entries[ours.name]["seconds"]) / problem.iterations
    for entry in entries.values():
        seconds = np.array(entry["seconds"]) / entry["iterations"]
        entry["ms_per_iteration"] = float(np.median(seconds)) * 1e3
        # Neighbours in time share what the machine was doing: the median of the rounds' ratios.
        entry["ratio"] = float(np.median(seconds / ours_seconds))
    return entries, exact[problem.iterations]


def _iterations(contestant: Contestant, problem: Problem) -> int:
    """How many iterations of the problem a contestant does in a round."""
    return (problem.steady_iterations if contestant.steady else 0) or problem.iterations


def _wrong(contestant: Contestant, answer: dict[str, Any], exact: dict[str, Any], problem: Problem) -> str:
    """What is wrong with an answer; empty if it is right."""
    if contestant.exact:
        golden = problem.digest if _iterations(contestant, problem) == problem.iterations else ""
        right = answer["digest"] == (golden or exact["digest"])
        return "" if right else f"WRONG ANSWER: digest {answer['digest']}"
    deviation = answer["cost"] - exact["cost"]
    fine = deviation <= 0 if contestant.own_solver else abs(deviation) <= contestant.tolerance
    return "" if fine else f"WRONG ANSWER: its cost deviates by {deviation:.1e}"


@contextlib.contextmanager
def saved(x: np.ndarray, y: np.ndarray) -> Iterator[dict[str, str]]:
    """The paths of x and y as files, for the contestants' processes."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / f"{name}.npy") for name in ("x", "y")}
        np.save(paths["x"], x)
        np.save(paths["y"], y)
        del x, y
        yield paths


def _free_memory(device: str) -> float:
    """Bytes that can be had without swapping, and on the device; where the system does not tell, no limit."""
    if device == "gpu":
        return min(float(choose_device("gpu").xp.cuda.Device().mem_info[0]), _free_memory("cpu"))
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float("inf")
