"""`xlogreg sweep`: several learning rates, penalties and classes in one pass."""

import os
from typing import Any

import typer

from ..errors import InputError
from ..system import run_file_names
from .options import PENALTIES, RATE, RATES, SWEEP, JsonOption, OutOption, takes
from .prepare import prepared, rates_of
from .shared import asked_data, print_json, step_of, stop_signals, training_folder


@takes(SWEEP)
def sweep(
    asked: dict[str, Any],
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train several learning rates, or penalties (--l2), and several classes, in one pass over the pictures and compare
    them.

    Each model has the same bits as if it were trained alone (several classes: `train --balance none`). Where a learning
    rate is too large, that model is left out, the others are kept and the exit code is 2.
    """
    from ..data.sources import run_name
    from ..neuron.arguments import checked_penalties
    from ..runs import plots
    from ..runs.report import write_report
    from ..runs.run_folder import command_line, new_run_folder, results, write_json, write_run
    from ..runs.training import train_together
    from ..system.files import make_folder
    from . import bars, console

    penalties, positives = asked["l2"] or [], asked["positive"] or []
    rates = rates_of(asked, *(RATES if len(penalties) < 2 else (RATE,)))
    if not penalties:
        penalties = [0.0] if rates else list(PENALTIES)
    source, data, iterations = asked["source"], asked["data"], asked["iterations"]
    for given, kind in ((rates or [], "learning rate"), (penalties, "penalty"), (positives, "class")):
        if len(set(given)) < len(given):
            raise InputError(f"A {kind} is given twice in {', '.join(map(str, given))}; give each once.")
    checked_penalties(penalties)
    tasks, keywords = prepared({**asked, "l2": penalties[0]}, rates, positives, out)
    folder = new_run_folder(f"sweep-{run_name(source)}", out=out)
    what = f"training {len(tasks) * len(rates or [None]) * len(penalties)} models"
    progress = bars.training_progress(iterations, what, step_of(asked))
    with training_folder(folder), stop_signals(), progress as observer:
        diverged: list[Any] = []
        trainings = train_together(
            tasks, rates, iterations, l2=penalties, observer=observer, diverged=diverged, **keywords
        )
        if not trainings:
            # Nothing is kept, and the folder goes.
            _complain(diverged, len(tasks) > 1)
            raise typer.Exit(2)
    names = {}
    for training in trainings:
        rate, penalty = training.classifier.learning_rate, training.options.l2
        prefix = _prefix(training.task, tasks) if len(tasks) > 1 else ""
        parts, said = ([f"rate-{rate!r}"], [f"{rate:g}"]) if rate is not None else ([], [])
        if rate is None or len(penalties) > 1:
            parts, said = [*parts, f"l2-{penalty!r}"], [*said, f"L2 {penalty:g}"]
        sub = make_folder(folder / (prefix + "-".join(parts)))
        names[sub.name] = f"the run of {training.task.positive} at {', '.join(said)}"
        # The page of each has its pictures; drawing them a second time, as files, would take longer than training.
        with bars.working(f"writing {names[sub.name]}"):
            write_run(sub, training, asked=asked_data(source, data))
    curves, title = run_file_names.LEARNING_RATES, "Cost by learning rate"
    if len(penalties) > 1 or not rates:
        curves, title = run_file_names.COST_HISTORY, "Cost by L2"
    plots.plot_cost_histories(folder / curves, trainings, title)
    summary = {
        "runs": [results(training) for training in trainings],
        "diverged": [
            {
                "positive": task.positive, "learning_rate": error.learning_rate if rates else None,
                "iteration": error.iteration,
            }
            for task, error in diverged
        ],
        "folder": str(folder),
    }
    write_json(folder / run_file_names.SWEEP, {**summary, "command": command_line()})
    write_report(folder)
    if as_json:
        print_json(summary)
    else:
        console.show_sweep(trainings)
        console.show_files(folder, {
            run_file_names.PAGE: "the runs compared, on one page",
            curves: "the cost histories in one picture",
            run_file_names.SWEEP: "all results", **names,
        })  # fmt: skip
    console.show_notes(trainings)
    if diverged:
        _complain(diverged, len(tasks) > 1)
        raise typer.Exit(2)


def _complain(diverged: list[Any], several: bool) -> None:
    from . import console

    for task, error in diverged:
        console.complain(f"{task.positive}: {error}" if several else str(error))


def _prefix(task: Any, tasks: list[Any]) -> str:
    # Names of folders have up to 255 bytes, and a class may be called by as long a one.
    if len(os.fsencode(task.positive)) <= 200:
        return f"{task.positive}-"
    return f"{task.positive[:40]}-{tasks.index(task) + 1}-"
