"""`xlogreg train`: one class against the rest."""

from typing import Annotated

import typer

from ..options import (
    BalanceArgument,
    ClassWeightOption,
    DataOption,
    DeviceOption,
    FeaturesArgument,
    FeaturesOption,
    ImplementationArgument,
    ImplementationOption,
    IterationsOption,
    JsonOption,
    L2Option,
    MaxUnreadableOption,
    MomentumOption,
    NesterovOption,
    NoCacheOption,
    OutOption,
    PositiveOption,
    SeedOption,
    SizeOption,
    SourceArgument,
    StartOption,
    StopCostOption,
    StopGradientOption,
    TestSizeOption,
    ValidationOption,
)
from .shared import (
    FolderReading,
    check_options,
    chosen_device,
    descent_options,
    feature_rows,
    one_task,
    print_json,
    training_folder,
)


def train(
    source: SourceArgument = "birds",
    positive: PositiveOption = None,
    learning_rate: Annotated[float, typer.Option(help="Step size of gradient descent.")] = 0.005,
    iterations: IterationsOption = 2000,
    balance: BalanceArgument = None,
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
    """Train one class against the rest and keep model, history and pictures in a run folder."""
    from .. import console, plots
    from ..classifier import Classifier
    from ..data.sources import run_name
    from ..data.task import hold_out
    from ..features import Features
    from ..training import new_run_folder, results, write_run
    from ..training import train as train_task

    check_options([learning_rate], iterations)
    options = descent_options(l2, momentum, nesterov, stop_gradient, stop_cost, class_weight)
    chosen = chosen_device(device)
    first = None if start is None else Classifier.load(start)
    reading = FolderReading(size, max_unreadable, no_cache)
    task = one_task(source, data, positive, balance, seed, test_size, reading)
    if validation is not None:
        (task,) = hold_out([task], validation)
    chosen_features = Features(features.value)
    rows = feature_rows(task, chosen_features)
    folder = new_run_folder(run_name(source), out=out)
    with training_folder(folder), console.training_progress(iterations, "training") as observer:
        (training,) = train_task(
            task, [learning_rate], iterations, device=chosen, implementation=implementation.value, observer=observer,
            options=options, start=first,
            features=chosen_features, rows=rows,
        )  # fmt: skip
    write_run(folder, training, plots.plot_run)
    if as_json:
        print_json({**results(training), "folder": str(folder)})
    else:
        console.show_training(training, folder)
