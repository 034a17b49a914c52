"""`xlogreg train`: one class against the rest."""

from typing import Annotated

import typer

from ..options import (
    BalanceArgument,
    BalanceOption,
    ClassWeightOption,
    DataOption,
    DeviceOption,
    ImplementationArgument,
    ImplementationOption,
    IterationsOption,
    JsonOption,
    L2Option,
    MomentumOption,
    NesterovOption,
    OutOption,
    PositiveOption,
    SeedOption,
    SourceArgument,
    StartOption,
    StopCostOption,
    StopGradientOption,
    TestSizeOption,
    ValidationOption,
)
from .shared import check_options, chosen_device, descent_options, one_task, print_json, training_folder


def train(
    source: SourceArgument = "birds",
    positive: PositiveOption = "bird",
    learning_rate: Annotated[float, typer.Option(help="Step size of gradient descent.")] = 0.005,
    iterations: IterationsOption = 2000,
    balance: BalanceArgument = BalanceOption.first,
    seed: SeedOption = 0,
    test_size: TestSizeOption = None,
    l2: L2Option = 0.0,
    momentum: MomentumOption = 0.0,
    nesterov: NesterovOption = False,
    stop_gradient: StopGradientOption = None,
    stop_cost: StopCostOption = None,
    class_weight: ClassWeightOption = "none",
    validation: ValidationOption = None,
    start: StartOption = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    implementation: ImplementationArgument = ImplementationOption.auto,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one class against the rest and keep model, history and pictures in a run folder."""
    from .. import console, plots
    from ..classifier import Classifier
    from ..data.sources import run_name
    from ..data.task import hold_out
    from ..training import new_run_folder, results, write_run
    from ..training import train as train_task

    check_options([learning_rate], iterations)
    options = descent_options(l2, momentum, nesterov, stop_gradient, stop_cost, class_weight)
    chosen = chosen_device(device)
    first = None if start is None else Classifier.load(start)
    task = one_task(source, data, positive, balance, seed, test_size)
    if validation is not None:
        (task,) = hold_out([task], validation)
    folder = new_run_folder(run_name(source), out=out)
    with training_folder(folder), console.training_progress(iterations, "training") as observer:
        (training,) = train_task(
            task, [learning_rate], iterations, device=chosen, implementation=implementation.value, observer=observer,
            options=options, start=first,
        )  # fmt: skip
    write_run(folder, training, plots.plot_run)
    if as_json:
        print_json({**results(training), "folder": str(folder)})
    else:
        console.show_training(training, folder)
