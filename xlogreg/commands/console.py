"""What the command line shows: progress while training, tables of results; words go to stdout, progress to stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from .. import kernels
from ..data.folders import Reading
from ..data.task import Task
from ..models.evaluation import MEASURES, Evaluation
from ..proof import tutorial
from ..proof.doctor import Examination
from ..runs.training import Training
from ..runs.validation import Validation
from ..solvers.descent import Observer
from ..system import run_files
from ..system.text import listed, plain

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# Without a terminal, a line of progress is printed about this often (seconds).
_PLAIN_SECONDS = 5.0
# A bar that has no thread is drawn about this often (seconds), and only where so many pictures are predicted.
_BAR_SECONDS = 0.2
_MANY = 200
# So many unreadable pictures are named.
_NAMED = 100


class _Told:
    """An observer of a training that shows, by `show`, how far it is: iterations done, the lowest of the models' costs,
    and in words that on the pictures held out."""

    def __init__(self, show: Callable[[int, float, str], None]) -> None:
        self._show = show
        self._at, self._lowest, self._held_out = -1, 0.0, ""

    def __call__(self, done: int, costs: np.ndarray) -> None:
        self._show(done, float(costs[-1].min()), self._held_out)

    def validated(self, record: Validation) -> None:
        """One more check, of one of the models."""
        if record.iteration > self._at or record.cost < self._lowest:
            self._at, self._lowest = record.iteration, record.cost
            self._held_out = f", validation {record.cost:.6f}"


@contextmanager
def training_progress(iterations: int, what: str) -> Iterator[Observer]:
    """A progress bar on a terminal, a plain line every few seconds elsewhere; yields the observer that feeds it."""
    if err.is_terminal:
        # Of all these only the bar gives way where the terminal is narrow.
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("cost {task.fields[cost]}"), TimeRemainingColumn(table_column=Column(no_wrap=True)),
        )  # fmt: skip
        with Progress(*columns, console=err, transient=True) as bar:
            # Until the first iterations are done, the kernel is compiled, or loaded as it was compiled before.
            first = "loading the kernel" if kernels.is_compiled() else kernels.compiling()
            task = bar.add_task(first, total=iterations, cost="...")
            yield _Told(
                lambda done, cost, held_out: bar.update(
                    task, completed=done, cost=f"{cost:.6f}{held_out}", description=what
                )
            )
    else:
        if not kernels.is_compiled():
            err.print(kernels.compiling())
        next_line = time.monotonic() + _PLAIN_SECONDS

        def tell(done: int, cost: float, held_out: str) -> None:
            nonlocal next_line
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + _PLAIN_SECONDS
                err.print(f"{what}: iteration {done} of {iterations}, cost {cost:.6f}{held_out}", markup=False)

        yield _Told(tell)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says on a terminal what is being done while it is."""
    spinner = "dots" if err.encoding.startswith("utf") else "line"
    with err.status(what, spinner=spinner) if err.is_terminal else nullcontext():
        yield


@contextmanager
def download_progress() -> Iterator[Callable[[int, int, str], None]]:
    """A download bar on a terminal, a plain line every few seconds elsewhere; yields (done, total, note) -> None."""
    last_note = ""
    if err.is_terminal:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=err
        ) as bar:
            task = bar.add_task("fetching", total=None)

            def advance(done: int, total: int, note: str) -> None:
                bar.update(task, completed=done, total=total or None, description=note or "fetching")

            yield advance
    else:
        next_line = 0.0

        def tell(done: int, total: int, note: str) -> None:
            nonlocal next_line, last_note
            if note != last_note or time.monotonic() >= next_line:
                last_note, next_line = note, time.monotonic() + _PLAIN_SECONDS
                err.print(f"{note or 'fetching'}: {done / 1e6:.1f} of {total / 1e6:.1f} MB", markup=False)

        yield tell


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a plain line every few seconds elsewhere; yields (done, total) -> None."""
    if err.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        next_line = time.monotonic() + _PLAIN_SECONDS

        def tell(done: int, total: int) -> None:
            nonlocal next_line
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + _PLAIN_SECONDS
                err.print(f"{what}: {done:,} of {total:,}", markup=False)

        yield tell


@contextmanager
def predicting(total: Callable[[], int | None]) -> Iterator[Callable[[int], None]]:
    """A bar with the rate and the time left on a terminal, nothing elsewhere; yields what is told of pictures done.

    It has no thread of its own: a process that has none can be copied, which predicting many pictures is quicker by.
    Lines that go to the same terminal come above it.

    total : counts all pictures, None where that is not known; it is asked on a terminal only
    """
    count = total() if err.is_terminal else 0
    if count is not None and count < _MANY:
        yield lambda more: None
        return
    columns = (
        TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    same = sys.stdout is not None and sys.stdout.isatty()
    with Progress(*columns, console=err, transient=True, auto_refresh=False, redirect_stdout=same) as bar:
        task = bar.add_task("", total=count, rate="")
        begun = shown = time.monotonic()

        def advance(more: int) -> None:
            nonlocal shown
            now = time.monotonic()
            bar.advance(task, more)
            if now - shown >= _BAR_SECONDS:
                shown = now
                rate = bar.tasks[0].completed / (now - begun)
                bar.update(task, rate=f"{rate:,.0f} a second", refresh=True)

        yield advance


def show_reading(reading: Reading) -> None:
    """What was found in a folder of pictures, in a line, and what to know about it."""
    cached = f" ({reading.cached:,} decoded before)" if reading.cached else ""
    others = f"; {reading.ignored:,} other files passed over" if reading.ignored else ""
    err.print(
        f"{reading.pictures:,} pictures of {len(reading.classes)} classes{cached}{others}",
        markup=False,
    )
    if reading.empty:
        complain(f"No pictures in {listed(reading.empty)}, which makes no class.", "Note")
    if reading.unreadable:
        bad, n = reading.unreadable, reading.pictures + len(reading.unreadable)
        complain(f"{len(bad):,} of {n:,} pictures cannot be read and were left out.", "Note")
        for item in bad[:_NAMED]:
            complain(item.message, "Note")
        if len(bad) > _NAMED:
            complain(f"{len(bad) - _NAMED:,} more cannot be read.", "Note")
    if reading.twice:
        complain(f"{reading.twice:,} pictures are copies; one to test on may be among those to train on.", "Note")
    if reading.note:
        complain(reading.note, "Note")


def show_training(training: Training, folder: Path) -> None:
    """The result of one training and where it is kept."""
    task, rate = training.task, training.classifier.learning_rate
    _pairs(
        *_about(task),
        ("features", f"{training.classifier.features.name}, {len(training.classifier.w):,} a picture"),
        ("learning rate", f"{rate:g}, {len(training.history)} iterations{_stop(training)}"),
        *([("options", described)] if (described := describe(training)) else []),
        ("cost", f"{training.history[0]:.6f} -> {training.history[-1]:.6f}"),
        ("train accuracy", f"{training.train_accuracy:.2f} %"),
        *([("validation", _validation(training))] if training.validation else []),
        ("test accuracy", f"{training.test_accuracy:.2f} %"),
        ("time", timing(training)),
        ("digest", training.history_sha256),
        ("kept in", str(folder)),
        ("report", str(folder / run_files.PAGE)),
    )


def _about(task: Task, *others: Task) -> tuple[tuple[str, str], tuple[str, str]]:
    against = task.negative or "the rest"
    wanted = task.positive
    if others:
        against, wanted = "the rest", f"{listed([one.positive for one in (task, *others)])}, each"
    split = f"{len(task.y_train)} to train, " * bool(len(task.y_train)) + f"{len(task.y_test)} to test"
    left_out = f" ({task.left_out}; --balance none takes all)" * bool(task.left_out)
    return ("data", task.source), ("task", f"{wanted} against {against}: {split}{left_out}")


def show_notes(trainings: list[Training]) -> None:
    """What to know about trainings whose cost rose, also beside JSON."""
    several = len({training.task.positive for training in trainings}) > 1
    for training in trainings:
        if training.note:
            complain(f"{training.task.positive}: {training.note}" if several else training.note, "Note")


def describe(training: Training) -> str:
    """What of the training goes beyond the tutorial's, in words; nothing if nothing does."""
    start, parts = training.start, training.options.in_words()
    if training.patience is not None:
        parts.append(f"early stopping after {training.patience} checks without a lower validation cost")
    if start is not None:
        parts.append(f"start from a model of {start['class_names'][1]}, {start['iterations']} iterations")
    return ", ".join(parts)


def _stop(training: Training) -> str:
    why = {
        "gradient": "the gradient was small enough", "cost": "the cost hardly changed any more",
        "validation": "the validation cost no longer fell", "interrupted": "it was ended there",
    }  # fmt: skip
    if training.stopped_by not in why:
        return ""
    return f" of {training.max_iterations}: {why[training.stopped_by]}"


def _validation(training: Training) -> str:
    last, best = training.validation[-1], training.best
    pictures = 0 if training.task.y_validation is None else len(training.task.y_validation)
    assert best is not None
    lowest = "" if best is last else f"; lowest cost {best.cost:.6f} after {best.iteration} iterations"
    if training.patience is not None:
        return (
            f"{best.accuracy:.2f} %, cost {best.cost:.6f} on {pictures} pictures held out, the lowest: the model after "
            f"{best.iteration} iterations is kept"
        )
    return f"{last.accuracy:.2f} %, cost {last.cost:.6f} on {pictures} pictures held out{lowest}"


def timing(training: Training) -> str:
    """Seconds, milliseconds an iteration, and what did the work."""
    each = training.seconds / len(training.history) * 1e3
    together = f", {training.models} models together" if training.models > 1 else ""
    by = f"{training.implementation} on {training.device}{together}"
    return f"{training.seconds:.2f} s, {each:.3f} ms an iteration ({by})"


def show_sweep(trainings: list[Training]) -> None:
    """What was trained on, and one line a class and learning rate."""
    tasks = {training.task.positive: training.task for training in trainings}
    _pairs(*_about(*tasks.values()))
    out.print()
    # Columns that are only there where they say something; the digest makes room for them.
    stopped = any(training.stopped_by in ("gradient", "cost", "validation") for training in trainings)
    validated = any(training.validation for training in trainings)
    extra = [*(["steps"] if stopped else []), *(["valid. %"] if validated else [])]
    table = _table("class", "rate", "final cost", "train %", "test %", *extra, "digest")
    for training in trainings:
        more = [str(len(training.history))] if stopped else []
        # That of the model that is kept.
        shown = training.best if training.patience is not None else training.validation[-1] if validated else None
        more += [f"{shown.accuracy:.2f}"] if shown is not None else []
        table.add_row(
            _plain(training.task.positive), f"{training.classifier.learning_rate:g}", f"{training.history[-1]:.6f}",
            f"{training.train_accuracy:.2f}", f"{training.test_accuracy:.2f}", *more,
            training.history_sha256[: 8 if extra else 16],
        )  # fmt: skip
    out.print(table)
    out.print(timing(trainings[0]), markup=False)


def show_reproduction(trainings: list[Training], comparison: tutorial.Comparison) -> None:
    """The published table beside the obtained one, and whether they agree."""
    main = trainings[tutorial.LEARNING_RATES.index(tutorial.LEARNING_RATE)]
    table = _table("iteration", "published cost", "obtained cost", "difference")
    for i, (published, obtained, difference) in enumerate(
        zip(tutorial.COST_HISTORY, main.cost_history, comparison.cost_differences, strict=True)
    ):
        table.add_row(str(100 * i), repr(published), repr(obtained), f"{difference:+.1e}" if difference else "0")
    out.print(table)
    out.print()
    table = _table("learning rate", "accuracy, %", "published", "obtained", "difference")
    for training in trainings:
        rate = training.classifier.learning_rate
        obtained_here = (training.train_accuracy, training.test_accuracy)
        for part, published, obtained in zip(("train", "test"), tutorial.ACCURACIES[rate], obtained_here, strict=True):
            off = f"{obtained - published:+.1e}" if obtained != published else "0"
            table.add_row(f"{rate:g}" if part == "train" else "", part, repr(published), repr(obtained), off)
    out.print(table)
    out.print()
    index = tutorial.TEST_PICTURE
    names = main.task.class_names
    true, predicted = names[int(main.task.y_test[index])], names[int(main.prediction_test[index])]
    checks = (
        (f"largest cost difference {comparison.largest_difference:.1e}, at most {tutorial.COST_TOLERANCE:g} allowed",
         comparison.largest_difference <= tutorial.COST_TOLERANCE),
        ("all eight accuracies have the published digits", comparison.accuracies_equal),
        (f"test picture {index} is a {true} and predicted {predicted}", comparison.test_picture_right),
        ("every cost of the 2000 has the golden bits, by their digest", comparison.digest_equal),
    )  # fmt: skip
    for text, fine in checks:
        out.print("[green]yes[/]" if fine else "[bold red]NO [/]", _plain(text))
    out.print(f"    {main.history_sha256}")
    out.print(timing(main), markup=False)


def show_stages(stages: dict[str, float]) -> None:
    """How long each stage took, and which part of the whole that is."""
    total = sum(stages.values())
    parts = (f"{name} {seconds:.2f} s ({seconds / total:.0%})" for name, seconds in stages.items())
    out.print(f"{total:.2f} s in all: {', '.join(parts)}", markup=False)


def show_evaluation(task: Task, parts: dict[str, Evaluation], class_names: tuple[str, str]) -> None:
    """All measures and the confusion matrix of each part, and why a measure has no value."""
    _pairs(*_about(task))
    out.print()
    # What a measure means is left out where it would break into many lines.
    wide = out.width >= 120
    table = _table("measure", *(f"{part}, {evaluation.pictures}" for part, evaluation in parts.items()), "")
    for measure in MEASURES:
        values = [getattr(evaluation, measure.key) for evaluation in parts.values()]
        texts = ["-" if v is None else f"{v:.2f} %" if measure.unit else f"{v:.4f}" for v in values]
        table.add_row(measure.name, *texts, f"[dim]{measure.meaning}[/]" if wide else "")
    out.print(table)
    for part, evaluation in parts.items():
        for key, why in evaluation.undefined.items():
            out.print(f"{part}: {key.replace('_', ' ')} is undefined: {why}", markup=False)
    out.print()
    table = _table("pictures", "accuracy", "true class", *(f"predicted {_plain(name)}" for name in class_names))
    for part, evaluation in parts.items():
        for true, counts in enumerate(evaluation.confusion):
            first = (f"{part}: {evaluation.pictures}", f"{evaluation.accuracy:.2f} %") if true == 0 else ("", "")
            table.add_row(*first, _plain(class_names[true]), *map(str, counts))
    out.print(table)


def show_examination(report: Examination) -> None:
    """The machine, and one line for each implementation with its digest."""
    _pairs(
        ("xlogreg", f"{report.xlogreg} on Python {report.python}, {report.platform}"),
        ("processor", f"{report.processor}, {report.processors} cores"),
        ("BLAS", report.blas),
        ("GPU", "; ".join(report.gpus) or "none"),
    )
    for note in report.notes:
        out.print(f"[yellow]note[/] {_plain(note)}")
    out.print("\n100 iterations of the tutorial's run:")
    table = _table("device", "implementation", "ms an iteration", "digest", "")
    for proof in report.proofs:
        verdict = "[green]golden[/]" if proof.golden else "[bold red]DIFFERENT[/]"
        table.add_row(
            _plain(proof.device), _plain(proof.implementation), f"{proof.milliseconds_per_iteration:.3f}",
            proof.digest[:16] or _plain(proof.problem), verdict,
        )  # fmt: skip
    out.print(table)
    out.print("[green]All bits are equal.[/]" if report.healthy else "[bold red]The bits are NOT all equal.[/]")


def show_files(folder: Path, names: dict[str, str]) -> None:
    """A run folder's files and what each is."""
    out.print(f"\nIn {folder}:", markup=False)
    _pairs(*((name, meaning) for name, meaning in names.items() if (folder / name).exists()))


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")


def _pairs(*rows: tuple[str, str]) -> None:
    """Names and values, one a line however long: a digest or a path that is broken cannot be copied."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        out.print(f"[dim]{_plain(name.ljust(width))}[/]   {_plain(value)}")


def _plain(text: Any) -> str:
    # Names of files and classes may hold brackets, which rich would read as markup, and line ends.
    from rich.markup import escape

    # Escaped before it is laid out, so that columns stay where they are.
    return escape(plain(text).encode(out.encoding, "backslashreplace").decode(out.encoding))


def complain(message: str, kind: str = "Error") -> None:
    """One sentence to stderr."""
    if sys.stdout is not None:  # closed by who started this
        sys.stdout.flush()
    err.print(f"[bold red]{kind}:[/]" if kind == "Error" else f"[yellow]{kind}:[/]", _plain(message))
