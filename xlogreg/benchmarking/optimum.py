"""How long it takes to the optimum: the same objective for everybody, and every answer judged before its time counts.

There are two goals. "gradient": no entry of the gradient is larger than 1e-4, which is where xlogreg and scikit-learn
stop by default. "cost": the cost is within 1e-5 of the lowest known, relative to it, whatever tolerance that takes:
where a gradient is small, different methods are differently near. The judge is the reference in float64 at the weights
that came back. A minimiser's tolerance for a goal is the first of `TOLERANCES` that reaches it.

First each minimiser runs alone, at one tolerance after the other. Then the best of each family (threads, order in
memory) take turns, as in `rounds`, and the medians count.
"""

import datetime
import math
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.birds import load_birds
from ..data.cifar10 import read_batch, read_cifar10
from ..data.fetch import cached_cifar10
from ..errors import ConvergenceWarning, InputError
from ..neuron.options import TOLERANCE, DescentOptions
from ..neuron.reference import Reference
from ..runs.run_folder import machine
from ..solvers.fit import fit
from ..system.machine import processor_name, version_of
from ..system.version import __version__
from .minimisers import MINIMISERS, OURS, Minimiser
from .problems import FEATURES, TUTORIAL, load
from .rounds import PAUSE, Progress, Worker, group_of, saved

# A gradient that was computed in float32 may be so much larger than it looked.
_SLACK = 1.02
GOALS = {"gradient": TOLERANCE * _SLACK, "cost": 1e-5}
TOLERANCES = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7)
# The lowest known cost comes from a run to this gradient.
_BEST = 1e-7
# Of a family those take turns that were so near to the fastest; who is so many times slower than xlogreg has one round.
_NEAR, _SLOW = 1.25, 20.0
# Nobody goes on to a smaller tolerance after so many seconds, if it is that slow.
_LONG = 10.0
_COMMAND = (sys.executable, "-m", "xlogreg.benchmarking.minimising")


@dataclass(frozen=True)
class Question:
    """pictures : how many; c : scikit-learn's C, so that l2 = 1 / (C m); origin : in words."""

    pictures: int
    c: float
    origin: str

    @property
    def l2(self) -> float:
        return 1.0 / (self.c * self.pictures)


QUESTIONS = (
    Question(TUTORIAL.pictures, 1.0, TUTORIAL.origin),
    Question(TUTORIAL.pictures, 0.1, TUTORIAL.origin),
    Question(10_000, 1.0, "10,000 pictures of CIFAR-10"),
    Question(50_000, 1.0, "50,000 pictures of CIFAR-10"),
)


def load_question(question: Question, data: Path | None = None) -> tuple[np.ndarray, np.ndarray, Question]:
    """x (m, 3072) uint8, y (m,), 1 for a bird, and the question with the origin that it has.

    data : an archive or folder of CIFAR-10, or a single batch; where there is none, synthetic pictures stand in
    """
    m = question.pictures
    if m == TUTORIAL.pictures:
        return *load(TUTORIAL), question
    path = data or cached_cifar10()
    if path is not None:
        single = path / "data_batch_1" if path.is_dir() else path
        if m <= 10_000 and single.name == "data_batch_1" and single.is_file():
            pictures = read_batch(single)
        else:
            pictures = read_cifar10(path)
        if len(pictures) >= m:
            x = np.ascontiguousarray(pictures.x[:m].reshape(m, -1))
            return x, (pictures.labels[:m] == pictures.class_names.index("bird")).astype(np.int64), question
    return *synthetic(m), replace(question, origin=f"{m:,} synthetic pictures")


def synthetic(m: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures with the mean and covariance of the built-in ones, of birds and of the rest: x (m, 3072) uint8, y (m,).

    A sum of pictures' differences from their mean, each times a normal random number, has their covariance.
    """
    birds = load_birds()
    flat = birds.x.reshape(len(birds), -1)
    rng = np.random.RandomState(m)
    y = rng.randint(0, 2, m)
    x = np.empty((m, flat.shape[1]), dtype=np.uint8)
    wanted = birds.labels == birds.class_names.index("bird")
    for label, rows in enumerate((flat[~wanted], flat[wanted])):
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = (rows - mean) / np.float32(math.sqrt(len(rows) - 1))
        places = np.flatnonzero(y == label)
        for start in range(0, len(places), 2000):
            some = places[start : start + 2000]
            numbers = rng.standard_normal((len(some), len(rows))).astype(np.float32)
            x[some] = np.clip(np.rint(mean + numbers @ centred), 0, 255)
    return x, y


class Judge:
    """What an answer is worth: its largest entry of the gradient, and how far its cost is above the lowest known."""

    def __init__(self, x: np.ndarray, y: np.ndarray, l2: float) -> None:
        sign = 1.0 - 2.0 * y[None]
        self._objective = Reference(x, sign, l2=np.array([l2]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            options = DescentOptions(solver="lbfgs", l2=l2, gradient_tolerance=_BEST)
            best = fit(x, sign, None, 20_000, options=options)
        self.best = float(self._objective.evaluate(best.w, best.b).cost[0])

    def __call__(self, answer: dict[str, Any]) -> dict[str, float]:
        w, b = np.array(answer["w"]).reshape(1, -1), np.array([answer["b"]], dtype=np.float64)
        found = self._objective.evaluate(w, b)
        return {"gradient": float(found.largest[0]), "cost": float(found.cost[0]) / self.best - 1.0}


def reached(found: dict[str, Any], goal: str) -> bool:
    """Whether what the judge found is as near as the goal wants; NaN is not."""
    return bool(found[goal] <= GOALS[goal])


def compete(
    questions: Sequence[Question], peers: bool, rounds: int, progress: Progress, data: Path | None = None
) -> dict[str, Any]:
    """Let all that are installed (or xlogreg alone) go to the optimum of each question; the results, as JSON."""
    contestants = [one for one in MINIMISERS if one.installed and (peers or one.needs == "numba")]
    if not contestants or contestants[0].family != OURS:
        raise InputError("Numba is not installed, so there is no fused kernel to compare with; install it.")
    packages = ("numpy", "numba", "scipy", "scikit-learn", "jax", "optax", "torch")
    return {
        "xlogreg": __version__,
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor_name(), **machine()},
        "packages": {name: version for name in packages if (version := version_of(name))},
        "not_installed": sorted({one.needs for one in MINIMISERS if not one.installed}) if peers else [],
        "rounds": rounds,
        "goals": GOALS,
        "questions": [_compete(question, contestants, rounds, progress, data) for question in questions],
    }


def _compete(
    question: Question, contestants: Sequence[Minimiser], rounds: int, progress: Progress, data: Path | None
) -> dict[str, Any]:
    x, y, question = load_question(question, data)
    progress(f"{question.origin}, C = {question.c:g}: the lowest cost")
    judge = Judge(x, y, question.l2)
    skipped: dict[str, str] = {}
    runs: dict[str, list[dict[str, Any]]] = {}
    with saved(x, y) as paths:
        setup = {**paths, "l2": question.l2}
        for one in contestants:
            if question.pictures > one.most_pictures:
                skipped[one.name] = f"more than {one.most_pictures:,} pictures take it too long"
                continue
            if runs and len(group_of(question.pictures, contestants[0], [one], skipped)[0]) == 1:
                continue
            progress(f"{question.origin}, C = {question.c:g}: {one.name}: answers")
            longest = _SLOW * runs[contestants[0].name][-1]["seconds"] if runs else math.inf
            runs[one.name], error = _alone(one, setup, judge, max(longest, _LONG))
            if error:
                skipped[one.name] = error
            if one is contestants[0] and not all(_first(runs[one.name], goal) for goal in GOALS):
                raise InputError(f"xlogreg itself did not arrive at the optimum of {question.origin}: {error}.")
        entries = [_entry(one, goal, runs.get(one.name, [])) for one in contestants for goal in GOALS]
        entries = [entry for entry in entries if entry]
        _take_turns(entries, question, contestants, setup, judge, rounds, skipped, progress)
    return {
        "pictures": question.pictures, "features": FEATURES, "C": question.c, "l2": question.l2,
        "origin": question.origin, "lowest_cost": judge.best, "pixel_bytes": x.nbytes, "entries": entries,
        "runs": runs, "skipped": skipped,
    }  # fmt: skip


def _alone(one: Minimiser, setup: dict[str, Any], judge: Judge, longest: float) -> tuple[list[dict[str, Any]], str]:
    """Its runs at one tolerance after the other until both goals are reached, and what went wrong."""
    runs: list[dict[str, Any]] = []
    with closing(Worker(one, _COMMAND)) as worker:
        answer = worker.ask({"setup": setup})
        for tolerance in TOLERANCES:
            if "error" not in answer:
                time.sleep(PAUSE)
                answer = worker.ask({"run": tolerance})
            if "error" in answer:
                return runs, answer["error"]
            kept = {key: answer[key] for key in ("seconds", "steps", "memory")}
            runs.append({"tolerance": tolerance, **kept, **judge(answer)})
            if all(_first(runs, goal) for goal in GOALS) or answer["seconds"] > longest:
                break
    return runs, ""


def _entry(one: Minimiser, goal: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is saved of a minimiser that reaches the goal; empty where it does not."""
    if not (run := _first(runs, goal)):
        return {}
    which = {"name": one.name, "family": one.family, "variant": one.variant, "threads": one.threads or os.cpu_count()}
    measured = {key: run[key] for key in ("tolerance", "steps", "gradient", "cost", "memory")}
    return {**which, "goal": goal, **measured, "first_seconds": run["seconds"], "seconds": []}


def _first(runs: list[dict[str, Any]], goal: str) -> dict[str, Any] | None:
    return next((run for run in runs if reached(run, goal)), None)


def _take_turns(
    entries: list[dict[str, Any]], question: Question, contestants: Sequence[Minimiser], setup: dict[str, Any],
    judge: Judge, rounds: int, skipped: dict[str, str], progress: Progress,
) -> None:  # fmt: skip
    """Fill in the seconds of the entries that are among the best of their families."""
    by_goal = {goal: [one for one in entries if one["goal"] == goal] for goal in GOALS}
    chosen: dict[str, list[dict[str, Any]]] = {}
    for among in by_goal.values():
        for entry in among:
            fastest = min(one["first_seconds"] for one in among if one["family"] == entry["family"])
            if entry["first_seconds"] <= _NEAR * fastest:
                chosen.setdefault(entry["name"], []).append(entry)
    ours, *waiting = (one for one in contestants if one.name in chosen)
    mine = {entry["goal"]: entry for entry in chosen[ours.name]}
    begun = False
    while waiting or not begun:
        begun = True
        # Those that fit into the memory together; ours is one of every group.
        group, waiting = group_of(question.pictures, ours, waiting, skipped)
        ratios: dict[tuple[str, str], list[float]] = {}
        with ExitStack() as stack:
            workers = [stack.enter_context(closing(Worker(one, _COMMAND))) for one in group]
            for worker in workers:
                worker.ask({"setup": setup})
            for number in range(rounds):
                progress(f"{question.origin}, C = {question.c:g}: round {number + 1} of {rounds}")
                seconds: dict[tuple[str, str], float] = {}
                # Another one goes first each time.
                for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                    for entry in chosen[worker.contestant.name]:
                        if number and entry["first_seconds"] > _SLOW * mine[entry["goal"]]["first_seconds"]:
                            continue
                        time.sleep(PAUSE)
                        answer = worker.ask({"run": entry["tolerance"]})
                        if "error" in answer:
                            skipped[entry["name"]] = answer["error"]
                        elif not reached(judge(answer), entry["goal"]):
                            skipped[entry["name"]] = "it did not arrive in every round"
                        else:
                            seconds[entry["name"], entry["goal"]] = answer["seconds"]
                            entry["seconds"].append(answer["seconds"])
                for (name, goal), taken in seconds.items():
                    # Neighbours in time share what the machine was doing: the median of the rounds' ratios.
                    if (ours.name, goal) in seconds:
                        ratios.setdefault((name, goal), []).append(taken / seconds[ours.name, goal])
        for entry in entries:
            if found := ratios.get((entry["name"], entry["goal"])):
                entry["median_seconds"] = float(np.median(entry["seconds"]))
                entry["ratio"] = float(np.median(found))
