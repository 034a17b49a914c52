"""Gradient descent from start to end: in which blocks, who is told, when each model ends, what is returned."""

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import namespace, to_host
from ..errors import DivergenceError
from ..neuron.exact import LARGEST_WEIGHT
from ..neuron.objective import Gradient
from ..neuron.options import DescentOptions
from ..system.checks import array_of
from ..system.text import short_repr
from .advice import Adviser, unconverged
from .resume import (
    COST,
    DIVERGED,
    GRADIENT,
    ITERATIONS,
    STUCK,
    VALIDATION,
    Checkpointer,
    Frame,
    Part,
    Progress,
    can_go_on,
)
from .solver import Solver, State

Array = Any

# Called after each block with the number of iterations done so far and the block's costs, (iterations, models still
# in training).
Observer = Callable[[int, np.ndarray], None]

# Called with the numbers of some models and a state whose rows are theirs; may give the numbers of those that are to
# stop: see `descend`.
Monitor = Callable[[list[int], State], Collection[int] | None]

# Observers hear, and Ctrl-C works, about this often (seconds).
_BLOCK_SECONDS = 0.1
_GROWTH = 8


@dataclass(frozen=True, eq=False)
class Descent:
    """What gradient descent gives for M models.

    histories : for each model the cost of each of its iterations, (iterations,) float64, on the host
    reasons : for each model why it ended: "iterations" (all that were asked for), "gradient" or "cost" (small enough),
        "validation" (the monitor stopped it), "diverged", "stuck" (the solver finds no lower cost)
    errors : for each model the DivergenceError that says where, or None
    w, b : (M, K d) and (M,), or (M, K) with K > 1 classes, on the training device; of a diverged model those whose cost
        is not finite
    gradient : each model's last iteration's; NaN where it diverged, or was taken up after its last iteration
    seconds : wall time of the iterations, compilation not counted
    implementation : name of the objective that did the work
    notes : for each model the sentence that says that its cost rose, or that it did not arrive, and what to do, or
        nothing
    """

    histories: list[np.ndarray]
    reasons: list[str]
    errors: list[DivergenceError | None]
    w: Array
    b: Array
    gradient: Gradient
    seconds: float
    implementation: str
    notes: list[str] = field(default_factory=list)

    __repr__ = short_repr

    @property
    def history(self) -> np.ndarray:
        """The histories side by side, (iterations, M); NaN after the end of a model that ended before another."""
        if len(self.histories) == 1:
            return self.histories[0][:, None]
        table = np.full((max(map(len, self.histories)), len(self.histories)), np.nan)
        for model, history in enumerate(self.histories):
            table[: len(history), model] = history
        return table


def descend(
    solver: Solver,
    iterations: int,
    observer: Observer | None = None,
    *,
    monitor: Monitor | None = None,
    monitor_every: int = 100,
    checkpointer: Checkpointer | None = None,
    progress: Progress | None = None,
    adviser: Adviser | None = None,
) -> Descent:
    """Run up to `iterations` of the solver, in blocks short enough for progress and Ctrl-C. Blocks change no bit.

    A model ends by itself: when it meets a tolerance of the options, or diverges. The others go on. Where that happens
    inside a block, the block is taken back and run to that very iteration, so that each model has the parameters and
    the bits of its own training that was given so many iterations.

    Parameters
    ----------
    solver, iterations, observer : what to run, how often, whom to tell the costs
    monitor : called with (models, state) before the first iteration, after every `monitor_every` iterations and when
        models end (not those that diverge): `models` are their numbers, the rows of `state` are theirs. Those whose
        numbers it gives stop there.
    checkpointer : is shown where the training stands before every block
    progress : where to go on from, as a checkpointer was shown it; what follows has the bits of a training never
        stopped
    adviser : what to say of costs that rise

    Raises
    ------
    DivergenceError
        The only model there is diverged: a cost is not finite, or some |z| exceeded 1e6; names the iteration and the
        rate. Of several models, those that diverge are dropped and noted in the result.
    InputError
        The progress is not one of this training.
    """
    with solver.objective.alone():
        solver.prepare()
    training = _Training(solver, iterations, adviser or Adviser(), monitor, monitor_every)
    if progress is not None:
        training.go_on_from(progress)
    elif monitor is not None:
        monitor(training.models, solver.state())
    block = 1
    while training.models:
        block = training.shortened(block, None if checkpointer is None else checkpointer.every)
        if checkpointer is not None and can_go_on(state := solver.state()):
            # A step beyond what numbers hold ends in the next iteration, and is nothing to go on from.
            checkpointer.shown(training.progress(state))
        costs, ended, seconds = training.run(block)
        if observer is not None and len(costs):
            observer(training.done, costs)
        training.end(ended, len(costs) > 0)
        # Grow towards the wanted time a block, not at once, so that no single quick measurement makes a long block; but
        # soon, because on a GPU a block takes as long as many iterations, however few it has.
        block = max(1, min(_GROWTH * block, int(block * _BLOCK_SECONDS / max(seconds, 1e-9))))
    return training.result()


class _Training:
    """The models that are still in training, what they and the others have given, and how a block is run."""

    def __init__(
        self, solver: Solver, iterations: int, adviser: Adviser, monitor: Monitor | None, monitor_every: int
    ) -> None:
        self.solver, self.iterations, self.adviser = solver, iterations, adviser
        self.monitor, self.monitor_every = monitor, monitor_every
        self.rates = to_host(solver.rates)
        self.models = list(range(len(self.rates)))
        # Zeros after the end of a model that ends early: a checkpoint keeps them, and nothing else of the memory's.
        self.costs = np.zeros((len(self.models), iterations), dtype=np.float64)
        self.parts: dict[int, Part] = {}
        self.done, self.seconds = 0, 0.0

    def progress(self, state: State) -> Progress:
        return Progress(self.costs[:, : self.done], list(self.models), state, dict(self.parts), self.seconds)

    def go_on_from(self, progress: Progress) -> None:
        """Take it up, after a look at all of it."""
        frame = Frame(
            len(self.models), self.solver.objective.rows.shape[1], self.iterations, self.solver.options,
            self.solver.classes,
        )  # fmt: skip
        frame.check(progress)
        self.done, self.seconds, self.parts = progress.state.iterations, progress.seconds, dict(progress.parts)
        self.costs[:, : self.done] = progress.costs
        if len(progress.models) < len(self.models):
            self.models = list(progress.models)
            self.solver.keep(self.models)
        self.solver.restore(progress.state)
        if self.done == self.iterations:
            # Taken up where it ends: there is nothing to do but to tell what was given.
            self.end(dict.fromkeys(range(len(self.models)), ITERATIONS), regular=False)

    def shortened(self, block: int, every: int | None) -> int:
        """The block, not beyond the last iteration, the monitor's next turn and the next multiple of `every`."""
        regular = [every, self.monitor_every if self.monitor is not None else None]
        return min(block, self.iterations - self.done, *(one - self.done % one for one in regular if one))

    def run(self, block: int) -> tuple[np.ndarray, dict[int, str], float]:
        """Advance by a block, or to where the first model ends in it: the costs, which rows end there and why, and the
        seconds of the whole block."""
        solver, options = self.solver, self.solver.options
        before = solver.state() if options.stops or len(self.rates) > 1 else None
        costs, seconds = self._timed(block)
        block = len(costs)
        last = self.costs[self.models, self.done - 1] if self.done else None
        ends = _ends(costs, last, solver.largest, solver.stuck, options)
        for j, (at, reason) in ends.items():
            if reason == DIVERGED and len(self.rates) == 1:
                raise self._divergence(self.models[j], self.done + at)
        steps = min((at for at, _ in ends.values()), default=len(costs))
        if steps < len(costs):
            # Some model ended inside the block: all go back and come to that iteration.
            assert before is not None
            solver.restore(before)
            costs = self._timed(steps)[0] if steps else costs[:0]
        self.costs[self.models, self.done : self.done + steps] = costs.T
        self.done += steps
        ended = {j: reason for j, (at, reason) in ends.items() if at == steps}
        if self.done == self.iterations:
            ended = dict.fromkeys(range(len(self.models)), ITERATIONS) | ended
        return costs, ended, seconds

    def _timed(self, iterations: int) -> tuple[np.ndarray, float]:
        with self.solver.objective.alone():
            start = time.perf_counter()
            costs = self.solver.run(iterations)
            seconds = time.perf_counter() - start
        self.seconds += seconds
        return costs, seconds

    def end(self, ended: dict[int, str], regular: bool) -> None:
        """These rows end here, and those that the monitor stops; regular : whether this may be one of its turns."""
        for j in ended:
            # A last step alone that was too large: there is no further cost to show it, and none to compute from it.
            if not bool((abs(self.solver.w[j]) < LARGEST_WEIGHT).all()):
                if len(self.rates) == 1:
                    raise self._divergence(0, self.done)
                ended[j] = DIVERGED
        if self.monitor is not None:
            turn = self.done % self.monitor_every == 0
            stopped = self._tell(ended, regular and turn) if regular or not turn else ()
            ended |= {
                j: VALIDATION
                for j, model in enumerate(self.models)
                if model in stopped and ended.get(j) in (None, ITERATIONS)
            }
        for j, reason in ended.items():
            self.parts[self.models[j]] = _part(self.solver, j, self.done, reason)
        if ended:
            staying = [j for j in range(len(self.models)) if j not in ended]
            self.models = [self.models[j] for j in staying]
            if self.models:
                self.solver.keep(staying)

    def _tell(self, ended: dict[int, str], all_of_them: bool) -> Collection[int]:
        """Show the monitor all models, or those that end; never those that diverged. The numbers of those it stops."""
        assert self.monitor is not None
        rows = [j for j in range(len(self.models)) if (all_of_them or j in ended) and ended.get(j) != DIVERGED]
        if not rows:
            return ()
        return self.monitor([self.models[j] for j in rows], self.solver.state().of(rows)) or ()

    def _divergence(self, model: int, iteration: int) -> DivergenceError:
        return self.adviser.divergence(model, iteration, float(self.rates[model]), self.solver.descends)

    def result(self) -> Descent:
        ordered = [self.parts[model] for model in range(len(self.rates))]
        histories = [self.costs[model, : part.iterations] for model, part in enumerate(ordered)]
        gradients = [part.gradient for part in ordered]
        errors: list[DivergenceError | None] = [None] * len(ordered)
        notes = [""] * len(ordered)
        for model, part in enumerate(ordered):
            if part.reason == DIVERGED:
                errors[model] = self._divergence(model, part.iterations)
            elif self.solver.descends:
                notes[model] = self.adviser.note(model, histories[model], float(self.rates[model]))
            elif part.reason in (ITERATIONS, STUCK):
                notes[model] = unconverged(part, self.solver.options.gradient_tolerance)
        return Descent(
            histories=histories,
            reasons=[part.reason for part in ordered],
            errors=errors,
            w=_stacked([part.w for part in ordered]),
            b=_stacked([part.b for part in ordered]),
            gradient=Gradient(*(_stacked([getattr(one, name) for one in gradients]) for name in ("dw", "db", "cost"))),
            seconds=self.seconds,
            implementation=self.solver.objective.name,
            notes=notes,
        )


def _part(solver: Solver, j: int, done: int, reason: str) -> Part:
    rows = slice(j, j + 1)
    w, b, found = solver.w[rows], solver.b[rows], solver.gradient
    if reason == DIVERGED or found is None:
        xp = namespace(w)
        gradient = Gradient(*(xp.full(shape, xp.nan, dtype=xp.float64) for shape in (w.shape, b.shape, (1,))))
    else:
        gradient = Gradient(found.dw[rows], found.db[rows], found.cost[rows])
    return Part(w, b, gradient, done, reason)


def _stacked(rows: list[Array]) -> Array:
    return namespace(rows[0]).concatenate(rows)


def _ends(
    costs: np.ndarray,
    last: np.ndarray | None,
    largest: np.ndarray | None,
    stuck: np.ndarray | None,
    options: DescentOptions,
) -> dict[int, tuple[int, str]]:
    """For each column of a block's costs that ends in it: how many iterations of the block it takes part in, and why.

    `last` are the costs before the block. A stop is after its iteration, a divergence before it.
    """
    with np.errstate(all="ignore"):
        found = {DIVERGED: ~np.isfinite(costs)}
        if options.gradient_tolerance is not None:
            assert largest is not None
            found[GRADIENT] = largest <= options.gradient_tolerance
        if stuck is not None:
            found[STUCK] = stuck
        if options.cost_tolerance is not None:
            # The first iteration of all has none before it: NaN is not small.
            earlier = np.concatenate([np.full((1, costs.shape[1]), np.nan) if last is None else last[None], costs[:-1]])
            scale = np.maximum(np.maximum(np.abs(earlier), np.abs(costs)), 1.0)
            found[COST] = np.abs(earlier - costs) <= options.cost_tolerance * scale
    ends: dict[int, tuple[int, str]] = {}
    for j in range(costs.shape[1]):
        firsts = {reason: int(at[:, j].argmax()) for reason, at in found.items() if at[:, j].any()}
        if firsts:
            # In this order where several come at once: min keeps the first of equals.
            reason = min(firsts, key=firsts.__getitem__)
            ends[j] = (firsts[reason] + (reason != DIVERGED), reason)
    return ends


def history_sha256(history: np.ndarray | list[float]) -> str:
    """The digest of a training: SHA-256 over the little-endian float64 bytes of the cost of every iteration.

    Raises
    ------
    InputError
        The history is not made of numbers.
    """
    costs = array_of(history, "history", "the costs, which are numbers")
    return hashlib.sha256(np.ascontiguousarray(costs, dtype="<f8").tobytes()).hexdigest()
