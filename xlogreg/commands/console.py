"""What the command line says: tables of results on stdout, errors and notes on stderr."""

import functools
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.folders import Reading
from ..data.task import Task
from ..models.evaluation import MEASURES, Evaluation
from ..neuron.options import SOLVERS
from ..proof import tutorial
from ..proof.doctor import Examination
from ..runs.training import Training
from ..system import run_file_names
from ..system.text import listed, plain

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# So many unreadable pictures are named.
_NAMED = 100


def show_reading(reading: Reading) -> None:
    """What was found in a folder of pictures, in a line, and what to know about it."""
    cached = f" ({reading.cached:,} decoded before)" if reading.cached else ""
    others = f"; {reading.ignored:,} other files passed over" if reading.ignored else ""
    err.print(f"{reading.pictures:,} pictures of {len(reading.classes)} classes{cached}{others}", markup=False)
    if reading.empty:
        note(f"No pictures in {listed(reading.empty)}, which makes no class.")
    if reading.unreadable:
        bad, n = reading.unreadable, reading.pictures + len(reading.unreadable)
        note(f"{len(bad):,} of {n:,} pictures cannot be read and were left out.")
        for item in bad[:_NAMED]:
            note(item.message)
        if len(bad) > _NAMED:
            note(f"{len(bad) - _NAMED:,} more cannot be read.")
    if reading.twice:
        note(f"{reading.twice:,} pictures are copies; one to test on may be among those to train on.")
    if reading.note:
        note(reading.note)


def show_training(training: Training, folder: Path) -> None:
    """The result of one training and where it is kept."""
    choice = training.choice
    task, rate, done = training.task, training.classifier.learning_rate, len(training.history)
    _pairs(
        *_about(task),
        ("features", f"{training.classifier.features.name}, {len(training.classifier.w):,} a picture"),
        ("learning rate", "" if rate is None else f"{rate:g}, {done} iterations{_stop(training)}"),
        ("solver", f"{SOLVERS['lbfgs']}, {_arrival(training)}" if rate is None else ""),
        ("options", describe(training)),
        ("L2", "" if choice is None else f"{choice.l2:g}, {choice.in_words()} ({choice.seconds:.2f} s)"),
        ("cost", f"{training.history[0]:.6f} -> {training.final_cost:.6f}"),
        ("train accuracy", f"{training.train_accuracy:.2f} %"),
        ("validation", _validation(training)),
        ("test accuracy", f"{training.test_accuracy:.2f} %"),
        ("time", timing(training)),
        ("digest", training.history_sha256),
        ("kept in", str(folder)),
        ("report", str(folder / run_file_names.PAGE)),
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
    """What to know about trainings whose cost rose, or that did not arrive, also beside JSON."""
    several = len({training.task.positive for training in trainings}) > 1
    penalties = len({training.options.l2 for training in trainings}) > 1
    rates = len({training.classifier.learning_rate for training in trainings}) > 1
    for training in trainings:
        if training.note:
            of = [training.task.positive] * several
            of += [f"rate {rate:g}" for rate in [training.classifier.learning_rate] if rates and penalties and rate]
            of += [f"L2 {training.options.l2:g}"] * penalties
            note(f"{', '.join(of)}: {training.note}" if of else training.note)
    if any(map(_is_nowhere, trainings)):
        note("Every training picture is told right and there is no penalty, so there is no optimum: the cost falls for "
             "ever, and only the tolerance says where it ended; give an --l2, 0.001 say.")  # fmt: skip


def _is_nowhere(training: Training) -> bool:
    """Whether L-BFGS says that it arrived where there is nowhere to arrive: larger weights always cost less."""
    options = training.options
    return (
        options.solver == "lbfgs" and not options.l2 and training.stopped_by == "gradient"
        and training.train_accuracy == 100.0
    )  # fmt: skip


def describe(training: Training) -> str:
    """What of the training goes beyond the tutorial's, in words; nothing if nothing does."""
    # The solver has a line of its own.
    start, parts = training.start, [words for words in training.options.in_words() if words != SOLVERS["lbfgs"]]
    if training.choice is not None:
        parts.remove(f"L2 {training.choice.l2:g}")  # which has a line of its own, too
    if training.patience is not None:
        parts.append(f"early stopping after {training.patience} checks without a lower validation cost")
    if start is not None:
        parts.append(f"start from a model of {start['class_names'][1]}, {start['iterations']} iterations")
    return ", ".join(parts)


def _stop(training: Training) -> str:
    why = {
        "gradient": "the gradient was small enough", "cost": "the cost hardly changed any more",
        "validation": "the validation cost no longer fell", "interrupted": "it was ended there",
    }.get(training.stopped_by)  # fmt: skip
    return f" of {training.max_iterations}: {why}" if why else ""


def _arrival(training: Training) -> str:
    """How L-BFGS ended."""
    done = f"{len(training.history)} evaluations"
    if training.stopped_by == "gradient":
        return f"arrived: no part of the gradient above {training.options.gradient_tolerance:g} after {done}"
    if training.stopped_by in ("iterations", "stuck"):
        return f"did not arrive in {done}"
    return f"{done}{_stop(training)}"


def _validation(training: Training) -> str:
    best = training.best
    if best is None:
        return ""
    last, keeps_best = training.validation[-1], training.patience is not None
    said = best if keeps_best else last
    assert training.task.y_validation is not None
    pictures = len(training.task.y_validation)
    steps = "iterations" if training.options.solver == "gd" else "evaluations"
    text = f"{said.accuracy:.2f} %, cost {said.cost:.6f} on {pictures} pictures held out"
    if keeps_best:
        return f"{text}, the lowest: the model after {best.iteration} {steps} is kept"
    return text if best is last else f"{text}; lowest cost {best.cost:.6f} after {best.iteration} {steps}"


def timing(training: Training) -> str:
    """Seconds, milliseconds an iteration, and what did the work."""
    each = training.seconds / len(training.history) * 1e3
    together = f", {training.models} models together" if training.models > 1 else ""
    by = f"{training.implementation} on {training.device}{together}"
    step = "an iteration" if training.options.solver == "gd" else "an evaluation"
    return f"{training.seconds:.2f} s, {each:.3f} ms {step} ({by})"


def show_sweep(trainings: list[Training]) -> None:
    """What was trained on, and one line a class, learning rate and L2."""
    tasks = {training.task.positive: training.task for training in trainings}
    _pairs(*_about(*tasks.values()))
    out.print()
    # Columns that are only there where they say something; the digest makes room for them.
    rates = trainings[0].classifier.learning_rate is not None
    penalties = not rates or len({training.options.l2 for training in trainings}) > 1
    stopped = not rates or any(training.stopped_by in ("gradient", "cost", "validation") for training in trainings)
    validated = any(training.validation for training in trainings)
    extra = [*(["steps" if rates else "evaluations"] if stopped else []), *(["valid. %"] if validated else [])]
    by = [*(["rate"] if rates else []), *(["L2"] if penalties else [])]
    table = _table("class", *by, "final cost", "train %", "test %", *extra, "digest")
    for training in trainings:
        rate = training.classifier.learning_rate
        numbers = [*([rate] if rate is not None else []), *([training.options.l2] if penalties else [])]
        more = [str(len(training.history))] if stopped else []
        # That of the model that is kept.
        shown = training.best if training.patience is not None else training.validation[-1] if validated else None
        more += [f"{shown.accuracy:.2f}"] if shown is not None else []
        table.add_row(
            _plain(training.task.positive), *(f"{number:g}" for number in numbers), f"{training.final_cost:.6f}",
            f"{training.train_accuracy:.2f}", f"{training.test_accuracy:.2f}", *more,
            training.history_sha256[: 8 if extra else 16],
        )  # fmt: skip
    out.print(table)
    # They share the time, and those that end later have more iterations.
    out.print(timing(max(trainings, key=lambda training: len(training.history))), markup=False)


def show_reproduction(trainings: list[Training], comparison: tutorial.Comparison) -> None:
    """The published table beside the obtained one, and whether they agree."""
    main = trainings[tutorial.LEARNING_RATES.index(tutorial.LEARNING_RATE)]
    table = _table("iteration", "published cost", "obtained cost", "difference")
    for i, (published, obtained, difference) in enumerate(
        zip(tutorial.COST_HISTORY, main.cost_history, comparison.cost_differences, strict=True)
    ):
        table.add_row(str(100 * i), repr(published), repr(obtained), _difference(difference))
    out.print(table)
    out.print()
    table = _table("learning rate", "accuracy, %", "published", "obtained", "difference")
    for training in trainings:
        rate = training.classifier.learning_rate or 0.0
        obtained_here = (training.train_accuracy, training.test_accuracy)
        for part, published, obtained in zip(("train", "test"), tutorial.ACCURACIES[rate], obtained_here, strict=True):
            off = _difference(obtained - published)
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


def _difference(value: float) -> str:
    return f"{value:+.1e}" if value else "0"


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
    out.print("\n100 iterations of the tutorial's run, and evaluations of L-BFGS on its pictures:")
    table = _table("solver", "device", "implementation", "ms each", "digest", "")
    for proof in report.proofs:
        verdict = "[green]golden[/]" if proof.golden else "[bold red]DIFFERENT[/]"
        table.add_row(
            proof.solver, _plain(proof.device), _plain(proof.implementation), f"{proof.milliseconds_per_iteration:.3f}",
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
    """Names and values that are not empty, one a line however long: a digest or a path that is broken cannot be
    copied."""
    width = max((len(name) for name, value in rows if value), default=0)
    for name, value in rows:
        if value:
            out.print(f"[dim]{_plain(name.ljust(width))}[/]   {_plain(value)}")


def _plain(text: Any) -> str:
    # Names of files and classes may hold brackets, which rich would read as markup, and line ends.
    # Escaped before it is laid out, so that columns stay where they are.
    return escape(plain(text).encode(out.encoding, "backslashreplace").decode(out.encoding))


def complain(message: str, kind: str = "Error") -> None:
    """One sentence to stderr."""
    if sys.stdout is not None:  # closed by who started this
        sys.stdout.flush()
    err.print("[bold red]Error:[/]" if kind == "Error" else f"[yellow]{kind}:[/]", _plain(message))


note = functools.partial(complain, kind="Note")
