"""`xlogreg sweep`: several learning rates and classes in one pass."""

from typing import Annotated

import typer

from ..errors import InputError
from ..options import (
    BalanceOption,
    DataOption,
    DeviceOption,
    FeaturesArgument,
    FeaturesOption,
    ImplementationArgument,
    ImplementationOption,
    IterationsOption,
    JsonOption,
    MaxUnreadableOption,
    NoCacheOption,
    OutOption,
    SeedOption,
    SizeOption,
    SourceArgument,
    TestSizeOption,
)
from .shared import FolderReading, check_options, chosen_device, feature_rows, print_json, tasks_of, training_folder


def sweep(
    source: SourceArgument = "birds",
    learning_rate: Annotated[
        list[float] | None, typer.Option(help="Repeat for each rate. [default: 0.01 0.005 0.001 0.0001]")
    ] = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for several classes, each against the rest of all pictures. [default: as in train]"),
    ] = None,
    iterations: IterationsOption = 2000,
    balance: Annotated[
        BalanceOption | None, typer.Option(help="As in train, for one class. [default: as in train]")
    ] = None,
    seed: SeedOption = 0,
    test_size: TestSizeOption = None,
    features: FeaturesArgument = FeaturesOption.pixels,
    size: SizeOption = None,
    max_unreadable: MaxUnreadableOption = None,
    no_cache: NoCacheOption = False,
    data: DataOption = None,
    device: DeviceOption = "auto",
    implementation: ImplementationArgument = ImplementationOption.auto,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train several learning rates, and several classes, in one pass over the pictures and compare them.

    Each model has the same bits as if it were trained alone (several classes: `train --balance none`).
    """
    from .. import console, plots
    from ..data.sources import run_name
    from ..features import Features
    from ..files import make_folder
    from ..training import new_run_folder, results, train_together, write_json, write_run

    rates, positives = learning_rate or [0.01, 0.005, 0.001, 0.0001], positive or []
    check_options(rates, iterations)
    for given, kind in ((rates, "learning rate"), (positives, "class")):
        if len(set(given)) < len(given):
            raise InputError(f"A {kind} is given twice in {', '.join(map(str, given))}; give each once.")
    chosen = chosen_device(device)
    tasks = tasks_of(source, data, positives, balance, seed, test_size, FolderReading(size, max_unreadable, no_cache))
    chosen_features = Features(features.value)
    rows = feature_rows(tasks[0], chosen_features)
    folder = new_run_folder(f"sweep-{run_name(source)}", out=out)
    what = f"training {len(tasks) * len(rates)} models"
    with training_folder(folder), console.training_progress(iterations, what) as observer:
        trainings = train_together(
            tasks, rates, iterations, device=chosen, implementation=implementation.value, observer=observer,
            features=chosen_features, rows=rows,
        )  # fmt: skip
    names = {}
    for training in trainings:
        rate = training.classifier.learning_rate
        prefix = f"{training.task.positive}-" if len(tasks) > 1 else ""
        sub = make_folder(folder / f"{prefix}rate-{rate!r}")
        names[sub.name] = f"the run of {training.task.positive} at {rate:g}"
        write_run(sub, training, plots.plot_run)
    plots.plot_cost_histories(folder / "learning_rates.png", trainings, "Cost by learning rate")
    summary = {"runs": [results(training) for training in trainings], "folder": str(folder)}
    write_json(folder / "sweep.json", summary)
    if as_json:
        print_json(summary)
    else:
        console.show_sweep(trainings)
        console.show_files(folder, {
            "learning_rates.png": "the cost histories in one picture", "sweep.json": "all results", **names,
        })  # fmt: skip
