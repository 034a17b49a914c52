"""`xlogreg train`: one class against the rest."""

from typing import Annotated

import typer

from ..options import (
    BalanceArgument,
    BalanceOption,
    DataOption,
    DeviceOption,
    ImplementationArgument,
    ImplementationOption,
    IterationsOption,
    JsonOption,
    OutOption,
    PositiveOption,
    SeedOption,
    SourceArgument,
    TestSizeOption,
)
from .shared import check_options, chosen_device, one_task, print_json, training_folder


def train(
    source: SourceArgument = "birds",
    positive: PositiveOption = "bird",
    learning_rate: Annotated[float, typer.Option(help="Step size of gradient descent.")] = 0.005,
    iterations: IterationsOption = 2000,
    balance: BalanceArgument = BalanceOption.first,
    seed: SeedOption = 0,
    test_size: TestSizeOption = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    implementation: ImplementationArgument = ImplementationOption.auto,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one class against the rest and keep model, history and pictures in a run folder."""
    from .. import console, plots
    from ..data.sources import run_name
    from ..training import new_run_folder, results, write_run
    from ..training import train as train_task

    check_options([learning_rate], iterations)
    chosen = chosen_device(device)
    task = one_task(source, data, positive, balance, seed, test_size)
    folder = new_run_folder(run_name(source), out=out)
    with training_folder(folder), console.training_progress(iterations, "training") as observer:
        (training,) = train_task(
            task, [learning_rate], iterations, device=chosen, implementation=implementation.value, observer=observer
        )
    write_run(folder, training, plots.plot_run)
    if as_json:
        print_json({**results(training), "folder": str(folder)})
    else:
        console.show_training(training, folder)
