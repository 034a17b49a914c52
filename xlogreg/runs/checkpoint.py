"""Checkpoints: where a training stands, kept in its run folder so that it can go on after whatever stopped it.

Two files take turns, so that the last good one is there while the next is written; each is written whole or not at
all, holds a digest of its content, and is only data (safetensors: numbers and text). `latest` takes the newer of those
that are complete and belong to the same training.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Device, to_host
from ..errors import FileError, InputError
from ..neuron.arguments import MAX_ITERATIONS
from ..neuron.objective import Gradient
from ..solvers.resume import COST, DIVERGED, GRADIENT, STUCK, VALIDATION, Frame, Part, Progress
from ..solvers.solver import State
from ..system import run_file_names
from ..system.checks import finite_number, is_whole
from ..system.files import leftovers, read_regular, reason, write_whole
from ..system.records import any_of, fields, many, number, row, text, whole
from ..system.text import given, plain

FORMAT = "xlogreg checkpoint 1"
# Weights, velocities and histories of any training that fits into memory; larger is no checkpoint.
_MAX_BYTES = 1 << 36
# Beside the numbers of a progress: its description, and what the caller keeps every so many iterations.
_MAX_DESCRIPTION, _EVERY = 1 << 16, 100
# Characters of what is wrong with one.
_SHOWN = 200
_DESCRIPTION = fields({
    "format": text, "fingerprint": text, "iterations": whole(0, MAX_ITERATIONS), "seconds": number(0.0),
    "models": many(whole(0)), "parts": fields({}), "extra": fields({}),
})  # fmt: skip
# What is kept of a state, and of a model that has ended.
_OF_PART = ("w", "b", "dw", "db", "cost")
_PART = row(whole(0, MAX_ITERATIONS), any_of(GRADIENT, COST, VALIDATION, DIVERGED, STUCK))


@dataclass
class Checkpoint:
    """One checkpoint.

    progress : where the training stands
    fingerprint : of the data and the plan of the training; another training's checkpoint is of no use
    extra : what the caller keeps beside, in plain types; of its values some may be arrays
    """

    progress: Progress
    fingerprint: str
    extra: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """Keeps checkpoints of one training in its folder while it runs; a `xlogreg.solvers.resume.Checkpointer`.

    Parameters
    ----------
    folder : the run folder
    seconds : time between two checkpoints; more are written when the training is interrupted
    resume : whether to go on from what is there
    complain : is told, once, when a checkpoint cannot be written, and the training goes on; and at an interruption
        when where it stood cannot be kept
    every : a checkpoint after every so many iterations, beside those by time
    tell : is told where a training that is resumed goes on, once it is known that it can
    finish : make do with the iterations that were done, and train no more
    before : the numbers of iterations that the training was to have before it was given more: the checkpoints of then
        are as good
    """

    def __init__(
        self,
        folder: Path,
        seconds: float = 10.0,
        resume: bool = False,
        complain: Callable[[str], None] = lambda message: None,
        *,
        every: int | None = None,
        tell: Callable[[str], None] = lambda message: None,
        finish: bool = False,
        before: Sequence[int] = (),
    ) -> None:
        check_intervals(seconds, every)
        self.folder, self.seconds, self.every, self.resume = folder, seconds, every, resume
        self.complain, self.tell = complain, tell
        self.finish, self.before = finish, tuple(before)
        # Whether it is known which training this is.
        self.begun = False
        self._fingerprint = ""
        self._extra: Callable[[int], dict[str, Any]] = lambda iterations: {}
        self._number = 0
        self._last: Progress | None = None
        self._next = 0.0
        self._saved: int | None = None
        self._complained = False

    def begin(
        self,
        fingerprints: Sequence[str],
        extra: Callable[[int], dict[str, Any]],
        frame: Frame | None = None,
        check: Callable[[Checkpoint], None] = lambda checkpoint: None,
        iterations: int | None = None,
    ) -> Checkpoint | None:
        """Say which training this is and what is kept beside it; returns where to go on from, if anywhere.

        fingerprints : the training's, and then those that it had with the iterations `before`
        extra : gives what belongs to the first so many iterations, in plain types and arrays
        frame, check : what every checkpoint of this training must fit, and what looks at the rest of it
        iterations : how many the training is to have

        Raises
        ------
        InputError
            It has more already.
        FileError
            There are checkpoints that cannot be used, or there is none of a training that is to be finished.
        """
        self._fingerprint, self._extra = fingerprints[0], extra
        self._next = time.monotonic() + self.seconds
        found = latest(self.folder, fingerprints, frame, check) if self.resume else None
        if self.finish and (found is None or not found[0].progress.state.iterations):
            raise FileError(f"In {self.folder} no iterations are kept to make results from; go on without --finish.")
        self.begun = True
        if found is None:
            if self.resume:
                self.tell("There is no checkpoint yet; training begins at the beginning.")
            return None
        checkpoint, self._number = found
        self._saved = checkpoint.progress.state.iterations
        if not self.finish and iterations is not None and self._saved > iterations:
            raise InputError(f"The training has {self._saved:,} iterations already; give it more.")
        self.tell(f"{'Ending at' if self.finish else 'Going on from'} iteration {self._saved}.")
        return checkpoint

    def shown(self, progress: Progress) -> None:
        """Before every block of the training."""
        self._last = progress
        done = progress.state.iterations
        due = self.every is not None and done > 0 and done % self.every == 0
        if due or time.monotonic() >= self._next:
            self._save("Training goes on without a new checkpoint.", once=True)

    def stopped(self) -> int:
        """The training ended before its time: keep where it stood; returns the iterations that are kept."""
        self._save("What came after the last checkpoint is lost.")
        return self._saved or 0

    def ended(self) -> None:
        """The training is complete: its last checkpoint stays, for the iterations that it may be given later."""
        self._save("The training cannot be given more iterations later.")
        remove(self.folder, but=run_file_names.CHECKPOINTS[(self._number - 1) % 2])

    def _save(self, otherwise: str, once: bool = False) -> None:
        """Keep where it stands, if it is not kept yet; complain, at most `once`, where that cannot be done."""
        if self._last is None or self._last.state.iterations == self._saved:
            return
        done = self._last.state.iterations
        try:
            save(self.folder, Checkpoint(self._last, self._fingerprint, self._extra(done)), self._number)
        except FileError as error:
            if not (once and self._complained):
                self.complain(f"{error} {otherwise}")
            self._complained |= once
        else:
            self._number += 1
            self._saved = done
        self._next = time.monotonic() + self.seconds


def check_intervals(seconds: float, every: int | None = None) -> None:
    """Whether checkpoints may be so far apart, in seconds and in iterations.

    Raises
    ------
    InputError
        They may not.
    """
    number = finite_number(seconds)
    if number is None or number < 0:
        raise InputError(f"The seconds between checkpoints must be 0 or more, not {given(seconds)}; 10, say.")
    if every is not None and not (is_whole(every) and every > 0):
        raise InputError(f"The iterations between checkpoints must be a whole number above 0, not {given(every)}.")


def save(folder: Path, checkpoint: Checkpoint, number: int) -> None:
    """Write the checkpoint into the file whose turn it is: `number` counts them.

    Raises
    ------
    FileError
        It cannot be written; the one before is still there.
    """
    from safetensors.numpy import save as serialise

    progress = checkpoint.progress
    arrays = {name: values for name, values in checkpoint.extra.items() if isinstance(values, np.ndarray)}
    found: dict[str, Any] = {"costs": progress.costs} | {f"extra.{name}": values for name, values in arrays.items()}
    state = {"w": progress.state.w, "b": progress.state.b, **progress.state.memory}
    found |= {f"state.{name}": values for name, values in state.items()}
    for model, part in progress.parts.items():
        values_of = {"w": part.w, "b": part.b, **vars(part.gradient)}
        found |= {f"part.{model}.{name}": values_of[name] for name in _OF_PART}
    tensors = {name: np.ascontiguousarray(to_host(values)) for name, values in found.items()}
    description = {
        "format": FORMAT,
        "fingerprint": checkpoint.fingerprint,
        "iterations": progress.state.iterations,
        "seconds": progress.seconds,
        "models": progress.models,
        "parts": {str(model): [part.iterations, part.reason] for model, part in progress.parts.items()},
        "extra": {name: value for name, value in checkpoint.extra.items() if name not in arrays},
    }
    text = json.dumps(description, sort_keys=True)
    digest = _digest(text, tensors)
    path = folder / run_file_names.CHECKPOINTS[number % 2]
    write_whole(path, serialise(tensors, {"xlogreg": text, "sha256": digest}))


def latest(
    folder: Path,
    fingerprints: Sequence[str],
    frame: Frame | None = None,
    check: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> tuple[Checkpoint, int] | None:
    """The newest good checkpoint of this training in the folder and the number of the next; None if there is none.

    fingerprints : that the training has
    frame, check : of the training, which a good checkpoint fits: anybody can write one with a digest that is right

    Raises
    ------
    FileError
        There are checkpoints, and none of them is whole and of this training.
    """
    found: list[tuple[int, int, Checkpoint]] = []
    problems = []
    for turn, name in enumerate(run_file_names.CHECKPOINTS):
        path = folder / name
        try:
            if not os.path.lexists(path):
                continue
            checkpoint = _parse(read_regular(path, _MAX_BYTES if frame is None else _most_bytes(frame)))
            if checkpoint.fingerprint not in fingerprints:
                problems.append(f"{name} belongs to a training with other pictures or options, or to another version")
                continue
            if frame is not None:
                frame.check(checkpoint.progress)
            check(checkpoint)
            found.append((checkpoint.progress.state.iterations, turn, checkpoint))
        except OSError as error:
            problems.append(f"{name} cannot be read: {reason(error)}")
        except Exception as error:  # whatever damage makes of it, the other file may be good
            problems.append(f"{name} is damaged ({plain(error)[:_SHOWN].rstrip('.') or type(error).__name__})")
    if found:
        _, turn, checkpoint = max(found, key=lambda entry: entry[:2])
        return checkpoint, turn + 1
    if problems:
        raise FileError(
            f"No checkpoint in {folder} can be used: {'; '.join(problems)}. Delete them there to start from the "
            "beginning, or train into a new folder."
        )
    return None


def _most_bytes(frame: Frame) -> int:
    """So large may a checkpoint of this training be: the numbers of its progress, the models that are kept as they were
    at their best, and the description."""
    records = frame.models * (frame.iterations // _EVERY + 8)
    return 8 * (frame.numbers + frame.models * frame.classes * (frame.features + 1)) + _MAX_DESCRIPTION + 256 * records


def remove(folder: Path, *, but: str = "") -> None:
    """Take the checkpoints of a finished training away, but one, and what killed processes left of files they were
    writing."""
    others = (folder / name for name in run_file_names.CHECKPOINTS if name != but)
    for path in [*others, *leftovers(folder, run_file_names.OF_A_TRAINING)]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def stamp(path: Path) -> int:
    """When a file was written, in nanoseconds; -1 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def on_device(progress: Progress, device: Device) -> Progress:
    """The same, with its arrays where the training is."""

    move = device.to_device
    parts = {
        model: replace(
            part, w=move(part.w), b=move(part.b), gradient=Gradient(*map(move, vars(part.gradient).values()))
        )
        for model, part in progress.parts.items()
    }
    state = progress.state
    memory = {name: move(values) for name, values in state.memory.items()}
    return replace(progress, state=State(state.iterations, move(state.w), move(state.b), memory), parts=parts)


def _digest(text: str, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].shape}{tensors[name].dtype.str}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _parse(content: bytes) -> Checkpoint:
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError("it is cut short")
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    tensors = {name: values.copy() for name, values in load(content).items()}
    if header["sha256"] != _digest(header["xlogreg"], tensors):
        raise ValueError("its digest does not fit its content")
    description = _DESCRIPTION(json.loads(header["xlogreg"]))
    if description["format"] != FORMAT:
        raise ValueError(f"it has the format {description['format']!r}")
    parts = {}
    for model, part in description["parts"].items():
        iterations, why = _PART(part)
        w, b, dw, db, cost = (tensors[f"part.{model}.{name}"] for name in _OF_PART)
        parts[int(model)] = Part(w, b, Gradient(dw, db, cost), iterations, why)
    arrays = {name.removeprefix("state."): values for name, values in tensors.items() if name.startswith("state.")}
    state = State(description["iterations"], arrays.pop("w"), arrays.pop("b"), arrays)
    progress = Progress(tensors["costs"], description["models"], state, parts, description["seconds"])
    arrays = {name.removeprefix("extra."): values for name, values in tensors.items() if name.startswith("extra.")}
    return Checkpoint(progress, description["fingerprint"], {**description["extra"], **arrays})
