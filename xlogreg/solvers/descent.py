"""Gradient descent from start to end: in which blocks, who is told, when each model ends, what is returned."""

import hashlib
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..arrays import namespace, to_host
from ..errors import DivergenceError, InputError
from ..neuron.exact import LARGEST_WEIGHT
from ..neuron.options import DescentOptions
from ..neuron.state import Engine, Gradient, State, alone, check_array
from ..system.checks import array_of
from ..system.text import short_repr
from .advice import Adviser

Array = Any

# Called after each block with the number of iterations done so far and the block's costs, (iterations, models still
# in training).
Observer = Callable[[int, np.ndarray], None]

# Called with the numbers of some models and a state whose rows are theirs; may give the numbers of those that are to
# stop: see `descend`.
Visitor = Callable[[list[int], State], Collection[int] | None]

# Observers hear, and Ctrl-C works, about this often (seconds).
_BLOCK_SECONDS = 0.1
_GROWTH = 8

# Why a model's training ended, the words of `Descent.reasons`.
ITERATIONS, GRADIENT, COST, VALIDATION, DIVERGED = "iterations", "gradient", "cost", "validation", "diverged"


@dataclass(frozen=True, eq=False)
class Descent:
    """What gradient descent gives for M models.

    histories : for each model the cost of each of its iterations, (iterations,) float64, on the host
    reasons : for each model why it ended: "iterations" (all that were asked for), "gradient" or "cost" (small enough),
        "validation" (the visitor stopped it), "diverged"
    errors : for each model the DivergenceError that says where, or None
    w, b : (M, d) and (M,) on the training device; of a diverged model those whose cost is not finite
    gradient : each model's last iteration's; NaN where it diverged, or was taken up after its last iteration
    seconds : wall time of the iterations, compilation not counted
    implementation : name of the engine that did the work
    notes : for each model the sentence that says that its cost rose and what to do, or nothing
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
    engine: Engine,
    iterations: int,
    observer: Observer | None = None,
    *,
    options: DescentOptions | None = None,
    visitor: Visitor | None = None,
    visit_every: int = 100,
    keeper: "Keeper | None" = None,
    progress: "Progress | None" = None,
    adviser: Adviser | None = None,
) -> Descent:
    """Run up to `iterations` steps of the engine, in blocks short enough for progress and Ctrl-C. Blocks change no bit.

    A model ends by itself: when it meets a tolerance of the options, or diverges. The others go on. Where that happens
    inside a block, the block is taken back and run to that very iteration, so that each model has the parameters and
    the bits of its own training that was given so many iterations.

    Parameters
    ----------
    engine, iterations, observer : what to run, how often, whom to tell the costs
    options : of which the tolerances are read here
    visitor : called with (models, state) before the first iteration, after every `visit_every` iterations and when
        models end (not those that diverge): `models` are their numbers, the rows of `state` are theirs. Those whose
        numbers it gives stop there.
    keeper : is shown where the training stands before every block, and told when an exception (Ctrl-C, say) ends it
    progress : where to go on from, as a keeper was shown it; what follows has the bits of a training never stopped
    adviser : what to say of costs that rise

    Raises
    ------
    DivergenceError
        The only model there is diverged: a cost is not finite, or some |z| exceeded 1e6; names the iteration and the
        rate. Of several models, those that diverge are dropped and noted in the result.
    InputError
        The progress is not one of this training.
    """
    options, adviser = options or DescentOptions(), adviser or Adviser()
    if progress is not None:
        models_in_all, features = engine.w.shape
        Frame(models_in_all, features, iterations, options).check(progress)
    with alone(engine):
        engine.prepare()
    rates = to_host(engine.rates)
    models = list(range(len(rates)))
    # Zeros after the end of a model that ends early: a checkpoint keeps them, and nothing else of the memory's.
    costs_of = np.zeros((len(models), iterations), dtype=np.float64)
    parts: dict[int, Part] = {}
    done, block, seconds = 0, 1, 0.0
    if progress is not None:
        done, seconds, parts = progress.state.iterations, progress.seconds, dict(progress.parts)
        costs_of[:, :done] = progress.costs
        if len(progress.models) < len(models):
            models = list(progress.models)
            engine.keep(models)
        if models:
            engine.restore(progress.state)
    elif visitor is not None:
        visitor(models, engine.state())
    if done == iterations and models:
        # Taken up where it ends: there is nothing to do but to tell what was given.
        ended = dict.fromkeys(range(len(models)), ITERATIONS)
        _check_weights(engine, ended, rates, done, adviser)
        if visitor is not None and done % visit_every:
            _visit(visitor, engine, models, ended, False)
        parts |= {models[j]: _part(engine, j, done, reason) for j, reason in ended.items()}
        models = []
    while models:
        block = min(block, iterations - done)
        if visitor is not None:
            block = min(block, visit_every - done % visit_every)
        if keeper is not None and keeper.every is not None:
            block = min(block, keeper.every - done % keeper.every)
        before = engine.state() if options.stops or len(rates) > 1 or keeper is not None else None
        if keeper is not None:
            assert before is not None
            # A step beyond what numbers hold ends in the next iteration, and is nothing to go on from.
            if _can_go_on(before):
                keeper.shown(Progress(costs_of[:, :done], list(models), before, dict(parts), seconds))
        with alone(engine):
            start = time.perf_counter()
            costs = engine.run(block)
            elapsed = time.perf_counter() - start
        seconds += elapsed
        last = costs_of[models, done - 1] if done else None
        ends = _ends(costs, last, engine.slopes, options)
        for j, (steps, reason) in ends.items():
            if reason == DIVERGED and len(rates) == 1:
                raise adviser.divergence(models[j], done + steps, float(rates[models[j]]))
        steps = min((steps for steps, _ in ends.values()), default=block)
        if steps < block:
            # Some model ended inside the block: all go back and come to that iteration.
            assert before is not None
            engine.restore(before)
            with alone(engine):
                start = time.perf_counter()
                costs = engine.run(steps) if steps else costs[:0]
                seconds += time.perf_counter() - start
        costs_of[models, done : done + steps] = costs.T
        done += steps
        ended = {j: reason for j, (at, reason) in ends.items() if at == steps}
        if done == iterations:
            ended = {j: ended.get(j, ITERATIONS) for j in range(len(models))}
        _check_weights(engine, ended, rates, done, adviser)
        if observer is not None and steps:
            observer(done, costs)
        if visitor is not None:
            stopped = _visit(visitor, engine, models, ended, done % visit_every == 0 and steps > 0)
            ended |= {j: VALIDATION for j, model in enumerate(models) if model in stopped and _goes_on(ended.get(j))}
        for j, reason in ended.items():
            parts[models[j]] = _part(engine, j, done, reason)
        if ended:
            staying = [j for j in range(len(models)) if j not in ended]
            models = [models[j] for j in staying]
            if models:
                engine.keep(staying)
        # Grow towards the wanted time a block, not at once, so that no single quick measurement makes a long block; but
        # soon, because on a GPU a block takes as long as many iterations, however few it has.
        block = max(1, min(_GROWTH * block, int(block * _BLOCK_SECONDS / max(elapsed, 1e-9))))
    ordered = [parts[model] for model in range(len(rates))]
    histories = [costs_of[model, : part.iterations] for model, part in enumerate(ordered)]
    return Descent(
        histories=histories,
        reasons=[part.reason for part in ordered],
        errors=[
            adviser.divergence(model, part.iterations, float(rates[model])) if part.reason == DIVERGED else None
            for model, part in enumerate(ordered)
        ],
        w=_stacked([part.w for part in ordered]),
        b=_stacked([part.b for part in ordered]),
        gradient=Gradient(*(
            _stacked([getattr(part.gradient, name) for part in ordered]) for name in ("dw", "db", "cost")
        )),
        seconds=seconds,
        implementation=engine.name,
        notes=[
            "" if part.reason == DIVERGED else adviser.note(model, histories[model], float(rates[model]))
            for model, part in enumerate(ordered)
        ],
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a training stands: all that its remaining iterations depend on, and what it has given so far.

    costs : (M, iterations) float64, on the host, of all models; of those that ended before, zeros after their end
    models : the numbers of those still in training, ascending; the rows of `state` are theirs
    parts : what the others gave
    seconds : wall time so far
    """

    costs: np.ndarray
    models: list[int]
    state: State
    parts: "dict[int, Part]"
    seconds: float

    __repr__ = short_repr


@dataclass(frozen=True)
class Frame:
    """What is known of every progress of a training before it begins: M models of d features, up to so many
    iterations, and the options."""

    models: int
    features: int
    iterations: int
    options: DescentOptions

    @property
    def numbers(self) -> int:
        """So many numbers a progress has at most."""
        return self.models * (self.iterations + 3 * self.features + 5)

    def check(self, progress: "Progress") -> None:
        """Whether the progress can be one of this training, and each number in it one that training comes to.

        Raises
        ------
        InputError, DeviceError
            It is not: what is wrong, in words.
        """
        state, models, parts = progress.state, progress.models, progress.parts
        kinds = [(state, State), (models, list), (parts, dict), (progress.costs, np.ndarray), (progress.seconds, float)]
        whole = all(isinstance(value, kind) for value, kind in kinds)
        whole = whole and all(type(model) is int for model in (*models, *parts))
        if not whole or not all(
            isinstance(part, Part) and isinstance(part.gradient, Gradient) and isinstance(part.reason, str)
            for part in parts.values()
        ):
            raise InputError("A progress must have parts of the types that a keeper was shown.")
        done = _whole(state.iterations, 0, self.iterations, "The number of iterations done")
        if not 0.0 <= progress.seconds < math.inf:
            raise InputError("The seconds of a progress must be a finite number from 0 on.")
        if not models or models != sorted(models) or sorted([*models, *parts]) != list(range(self.models)):
            raise InputError(f"Each of {self.models} models must be in training or have ended, and one be in training.")
        costs = progress.costs
        check_array("The costs", costs, (self.models, done))
        shape: tuple[int, ...] = (len(models), self.features)
        momentum = self.options.momentum > 0
        for name, wanted in (("w", shape), ("b", shape[:1]), ("velocity", shape), ("bias_velocity", shape[:1])):
            array = getattr(state, name)
            if (array is not None) != (momentum or name in ("w", "b")):
                raise InputError(f"The state's {name} must be there with momentum, and only then.")
            if array is not None:
                check_array(f"The state's {name}", array, wanted)
        if not _can_go_on(state):
            raise InputError("The state has weights that are not finite, or beyond all that sums hold.")
        ends = {DIVERGED, VALIDATION, *(reason for reason, tolerance in (
            (GRADIENT, self.options.gradient_tolerance), (COST, self.options.cost_tolerance)
        ) if tolerance is not None)}  # fmt: skip
        lengths = dict.fromkeys(models, done)
        for model, part in parts.items():
            lengths[model] = _whole(part.iterations, 0, done, "The number of iterations of a model that has ended")
            if part.reason not in ends:
                raise InputError(f"No model of this training ends by {part.reason!r:.40}.")
            arrays = {"w": part.w, "b": part.b, **vars(part.gradient)}
            for name, array in arrays.items():
                row = (1, self.features) if name in ("w", "dw") else (1,)
                check_array(f"The {name} of a model that has ended", array, row)
                # NaN fails the comparison.
                below = LARGEST_WEIGHT if name == "w" else math.inf
                if part.reason != DIVERGED and not bool((abs(array) < below).all()):
                    raise InputError(
                        f"The {name} of a model that has ended is not finite, or beyond all that sums hold."
                    )
        for model, length in lengths.items():
            of_model = costs[model, :length]
            if not ((of_model >= 0.0) & (of_model < np.inf)).all():
                raise InputError("Not all costs are finite numbers from 0 on.")


def _whole(value: Any, least: int, most: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{what} must be a whole number from {least} to {most}.")
    return value


def _is_finite(array: Array) -> bool:
    return bool(namespace(array).isfinite(array).all())


def _can_go_on(state: State) -> bool:
    """Whether its numbers are finite and fit the sums."""
    rest = (state.b, state.velocity, state.bias_velocity)
    # NaN fails the comparison.
    return bool((abs(state.w) < LARGEST_WEIGHT).all()) and all(_is_finite(array) for array in rest if array is not None)


class Keeper(Protocol):
    """Who keeps where a training stands: see `xlogreg.runs.checkpoint`.

    every : blocks end at the multiples of this number of iterations; None where it does not matter
    """

    every: int | None

    def shown(self, progress: Progress) -> None:
        """Before every block."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """What one model gave: its parameters (1, d) and (1,), its last gradient, its number of iterations, and why."""

    w: Array
    b: Array
    gradient: Gradient
    iterations: int
    reason: str

    __repr__ = short_repr


def _part(engine: Engine, j: int, done: int, reason: str) -> Part:
    rows = slice(j, j + 1)
    w, b, found = engine.w[rows], engine.b[rows], engine.gradient
    if reason == DIVERGED or found is None:
        xp = namespace(w)
        nothing = xp.full(b.shape, xp.nan, dtype=xp.float64)
        gradient = Gradient(xp.full(w.shape, xp.nan, dtype=xp.float64), nothing, nothing)
    else:
        gradient = Gradient(found.dw[rows], found.db[rows], found.cost[rows])
    return Part(w, b, gradient, done, reason)


def _stacked(rows: list[Array]) -> Array:
    return namespace(rows[0]).concatenate(rows)


def _ends(
    costs: np.ndarray, last: np.ndarray | None, slopes: np.ndarray | None, options: DescentOptions
) -> dict[int, tuple[int, str]]:
    """For each column of a block's costs that ends in it: how many iterations of the block it takes part in, and why.

    `last` are the costs before the block. A stop is after its iteration, a divergence before it.
    """
    with np.errstate(all="ignore"):
        found = {DIVERGED: ~np.isfinite(costs)}
        if options.gradient_tolerance is not None:
            assert slopes is not None
            found[GRADIENT] = slopes <= options.gradient_tolerance
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


def _goes_on(reason: str | None) -> bool:
    """Whether a model would, with more iterations."""
    return reason in (None, ITERATIONS)


def _check_weights(engine: Engine, ended: dict[int, str], rates: np.ndarray, done: int, adviser: Adviser) -> None:
    """Of models that end, those whose last step alone was too large diverged; there is no further cost to show it, and
    no cost to compute from it."""
    for j in ended:
        if not bool((abs(engine.w[j]) < LARGEST_WEIGHT).all()):
            if len(rates) == 1:
                raise adviser.divergence(0, done, float(rates[0]))
            ended[j] = DIVERGED


def _visit(
    visitor: Visitor, engine: Engine, models: list[int], ended: dict[int, str], regular: bool
) -> Collection[int]:
    """Tell the visitor about all models at a regular visit, else about those that end; never those that diverged. The
    numbers of those that it stops."""
    rows = [j for j in range(len(models)) if (regular or j in ended) and ended.get(j) != DIVERGED]
    if not rows:
        return ()
    state = engine.state()
    if len(rows) < len(models):
        arrays = (state.w, state.b, state.velocity, state.bias_velocity)
        state = State(state.iterations, *(None if array is None else array[rows] for array in arrays))
    return visitor([models[j] for j in rows], state) or ()


def history_sha256(history: np.ndarray | list[float]) -> str:
    """The digest of a training: SHA-256 over the little-endian float64 bytes of the cost of every iteration.

    Raises
    ------
    InputError
        The history is not made of numbers.
    """
    costs = array_of(history, "history", "the costs, which are numbers")
    return hashlib.sha256(np.ascontiguousarray(costs, dtype="<f8").tobytes()).hexdigest()
