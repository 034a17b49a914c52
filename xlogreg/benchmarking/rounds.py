"""Contestants take turns, round after round, in processes of their own; answers are checked before times are taken."""

import contextlib
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, tutorial
from ..backend import processor_name
from ..errors import InputError
from ..training import machine
from .contestants import OURS, Contestant, contestants_on
from .problems import RATE, TUTORIAL, Problem, load

# What a contestant may need, of the memory that is free: the machine must not start to swap.
_MEMORY_SHARE = 0.85
# Seconds between two turns: threads that spin for a while when their work is done must be asleep by then.
_PAUSE = 0.3
_WORKER = [sys.executable, "-m", "xlogreg.benchmarking.worker"]
Progress = Callable[[str], None]


class _Worker:
    """A contestant's process and the line to it."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.process = subprocess.Popen(
            [*_WORKER, contestant.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": "its process ended"}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def compete(
    problems: Sequence[Problem], names: Sequence[str] | None, rounds: int, progress: Progress, device: str = "cpu"
) -> dict[str, Any]:
    """Run all installed contestants of a device (or those of `names`); returns what the report shows, as JSON."""
    everybody = contestants_on(device)
    contestants = [c for c in everybody if c.installed and (names is None or c.name in names)]
    progress("measuring the machine's limits")
    if device == "gpu":
        from .gpu import OURS as ours
        from .gpu import measure_gpu

        limits: Any = measure_gpu()
        processor = limits.name
    else:
        ours, processor = OURS, processor_name()
        if not any(contestant.name == OURS for contestant in contestants):
            raise InputError("Numba is not installed, so there is no fused kernel to compare with; install it.")
        from .limits import measure

        limits = measure()
    results = []
    for problem in problems:
        with _saved(problem) as paths:
            results.append(_compete(problem, paths, contestants, rounds, progress, ours))
        seconds = limits.bounds(problem.pictures, 3072)
        results[-1]["bound_ms"] = {name: bound * 1e3 for name, bound in zip(limits.names, seconds, strict=True)}
    packages = ("numpy", "numba", "jax", "torch", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x")
    return {
        "xlogreg": __version__,
        "date": datetime.date.today().isoformat(),
        "device": device,
        "ours": ours,
        "machine": {"processor": processor, **machine()},
        "packages": {name: version for name in packages if (version := _version(name))},
        "not_installed": sorted({c.needs for c in everybody if not c.installed}),
        "learning_rate": RATE,
        "rounds": rounds,
        "limits": limits.as_json(),
        "problems": results,
    }  # fmt: skip


def _compete(
    problem: Problem, paths: dict[str, str], contestants: Sequence[Contestant], rounds: int, progress: Progress,
    ours: str,
) -> dict[str, Any]:  # fmt: skip
    workers: list[_Worker] = []
    skipped: dict[str, str] = {}
    exact_cost, exact_digest = np.nan, ""
    entries: dict[str, dict[str, Any]] = {}
    pixels = problem.pictures * 3072
    free, held = _free_memory(), 0.0
    try:
        for contestant in contestants:
            # While it converts, a contestant holds its floats twice.
            if held + pixels * (1 + 2 * contestant.bytes_per_pixel) > _MEMORY_SHARE * free:
                skipped[contestant.name] = "its floats would not fit into the memory beside the others"
                continue
            progress(f"{problem.pictures:,} pictures: {contestant.name}: answer")
            worker = _Worker(contestant)
            # The first run compiles and warms up; its answer is checked and its time is not taken.
            answer = worker.ask({"setup": {**paths, "rate": RATE}})
            if "error" not in answer:
                answer = worker.ask({"run": problem.iterations})
            if contestant.name == ours and "error" not in answer:
                exact_cost, exact_digest = answer["cost"], answer["digest"]
            wrong = answer.get("error") or _wrong(contestant, answer, exact_cost, exact_digest, problem)
            if wrong:
                skipped[contestant.name] = wrong
                worker.close()
                continue
            workers.append(worker)
            held += pixels * (1 + contestant.bytes_per_pixel)
            entries[contestant.name] = {"deviation": answer["cost"] - exact_cost, "seconds": []}
            if answer["digest"]:
                entries[contestant.name]["digest"] = answer["digest"]
        if ours not in entries:
            raise InputError(f"xlogreg's own kernel did not finish on {problem.pictures:,} pictures: {skipped[ours]}.")
        for number in range(rounds):
            progress(f"{problem.pictures:,} pictures: round {number + 1} of {rounds}")
            # Another one goes first each time.
            for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                time.sleep(_PAUSE)
                answer = worker.ask({"run": problem.iterations})
                if "error" in answer:
                    skipped[worker.contestant.name] = answer["error"]
                else:
                    entries[worker.contestant.name]["seconds"].append(answer["seconds"])
        if ours in skipped:
            raise InputError(f"xlogreg's own kernel did not finish on {problem.pictures:,} pictures: {skipped[ours]}.")
        entries = {name: entry for name, entry in entries.items() if name not in skipped}
    finally:
        for worker in workers:
            worker.close()
    our_seconds = np.array(entries[ours]["seconds"])
    for entry in entries.values():
        seconds = np.array(entry["seconds"])
        entry["ms_per_iteration"] = float(np.median(seconds)) / problem.iterations * 1e3
        # Neighbours in time share what the machine was doing: the median of the rounds' ratios.
        entry["ratio"] = float(np.median(seconds / our_seconds))
    return {
        "pictures": problem.pictures, "iterations": problem.iterations, "origin": problem.origin,
        "exact_cost": exact_cost, "history_sha256": exact_digest, "contestants": entries, "skipped": skipped,
    }  # fmt: skip


def _wrong(contestant: Contestant, answer: dict[str, Any], cost: float, digest: str, problem: Problem) -> str:
    """What is wrong with an answer; empty if it is right."""
    if contestant.exact:
        golden = tutorial.GOLDEN_SHA256 if (problem.pictures, problem.iterations) == _GOLDEN else digest
        return "" if answer["digest"] == golden else f"WRONG ANSWER: digest {answer['digest']}"
    deviation = answer["cost"] - cost
    fine = deviation <= 0 if contestant.own_solver else abs(deviation) <= contestant.tolerance
    return "" if fine else f"WRONG ANSWER: its cost deviates by {deviation:.1e}"


_GOLDEN = (TUTORIAL.pictures, tutorial.ITERATIONS)


@contextlib.contextmanager
def _saved(problem: Problem) -> Iterator[dict[str, str]]:
    x, y = load(problem)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / f"{name}.npy") for name in ("x", "y")}
        np.save(paths["x"], x)
        np.save(paths["y"], y)
        del x, y
        yield paths


def _free_memory() -> float:
    """Bytes that can be had without swapping; where the system does not tell, no limit."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float("inf")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
