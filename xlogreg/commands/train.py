"""`xlogreg train`: one class against the rest."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, XlogregError
from ..options import (
    BalanceArgument,
    BalanceOption,
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
    asked_data,
    check_options,
    chosen_device,
    descent_options,
    feature_rows,
    first_model,
    note_other_classes,
    one_task,
    print_json,
    stop_signals,
    training_folder,
)

if TYPE_CHECKING:
    from ..plan import Plan


def train(
    context: typer.Context,
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
    checkpoint: Annotated[
        float, typer.Option(metavar="SECONDS", help="Keep where the training stands about this often.")
    ] = 10.0,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            show_default=False,
            help="Take up a training that was stopped, in its run folder, with its own options: the result has the "
            "bits of a training never stopped.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train one class against the rest and keep model, history and pictures in a run folder.

    Ctrl-C stops it and keeps where it stood; `--resume RUN` goes on, also after a crash.
    """
    asked = {name: value for name, value in locals().items() if name in _KINDS or name == "out"}
    if resume is None:
        _train(asked, None, checkpoint, as_json)
        return
    from ..plan import Plan, read_plan

    given = [name for name in (*_KINDS, "out") if _was_given(context, name)]
    for name in given:
        if name not in _CHANGEABLE:
            words = "DATA" if name == "source" else f"--{name.replace('_', '-')}"
            raise InputError(
                f"A resumed training keeps its own options; leave {words} out, or train into a new folder."
            )
    plan = read_plan(resume, _KINDS)
    options = plan.options | {name: asked[name] for name in given}
    # Where the paths of the plan are relative, and this is another folder than then.
    for name in ("source", "data", "start"):
        path = options[name]
        there = Path(plan.started_in, path or "")
        if path is not None and not Path(path).exists() and there.exists():
            options[name] = type(path)(there)
    _train(options, resume, checkpoint, as_json, Plan(options, plan.started_in, plan.command))


# What the bits of a training depend on, and how to make each of plain JSON.
_KINDS: dict[str, Any] = {
    "source": str, "positive": str, "learning_rate": float, "iterations": int, "balance": BalanceOption, "seed": int,
    "test_size": float, "l2": float, "momentum": float, "nesterov": bool, "stop_gradient": float, "stop_cost": float,
    "class_weight": str, "validation": float, "start": Path, "features": FeaturesOption, "size": str,
    "max_unreadable": float, "no_cache": bool, "data": Path, "device": str, "implementation": ImplementationOption,
}  # fmt: skip
# These change no bit; a training may be taken up on another machine.
_CHANGEABLE = {"device", "implementation", "data", "no_cache"}


def _was_given(context: typer.Context, name: str) -> bool:
    # By name: Typer carries a Click of its own, or uses the installed one.
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def _train(asked: dict[str, Any], run: Path | None, seconds: float, as_json: bool, plan: "Plan | None" = None) -> None:
    """Train as asked, into a new folder or on in that of `run`, as its `plan` says."""
    from .. import checkpoint, console, plots
    from ..data.sources import run_name
    from ..data.task import hold_out
    from ..features import Features
    from ..plan import Plan, remove_plan, write_plan
    from ..run_folder import command_line, new_run_folder, results, write_run
    from ..training import train as train_task

    out, asked = asked.get("out"), {name: asked[name] for name in _KINDS}
    rate, iterations = asked["learning_rate"], asked["iterations"]
    check_options([rate], iterations)
    options = descent_options(*(
        asked[name] for name in ("l2", "momentum", "nesterov", "stop_gradient", "stop_cost", "class_weight")
    ))  # fmt: skip
    chosen = chosen_device(asked["device"])
    start = first_model(asked["start"])
    task = one_task(
        asked["source"], asked["data"], asked["positive"], asked["balance"], asked["seed"], asked["test_size"],
        FolderReading(asked["size"], asked["max_unreadable"], asked["no_cache"]),
    )  # fmt: skip
    if asked["validation"] is not None:
        (task,) = hold_out([task], asked["validation"])
    note_other_classes(start, task)
    features = Features(asked["features"].value)
    rows = feature_rows(task, features)
    folder = new_run_folder(run_name(asked["source"]), out=out) if run is None else run
    checkpoints = checkpoint.Checkpoints(
        folder, seconds, run is not None, lambda message: console.complain(message, "Note")
    )
    if plan is None:
        options_asked = {name: _plain(value) for name, value in asked.items()}
        plan = Plan(options_asked, str(Path.cwd()), command_line())
    with training_folder(folder), stop_signals():
        if run is None:
            write_plan(folder, plan)
        try:
            with console.training_progress(iterations, "training") as observer:
                (training,) = train_task(
                    task, [rate], iterations, device=chosen, implementation=asked["implementation"].value,
                    observer=observer, options=options, start=start, features=features, rows=rows,
                    checkpoints=checkpoints,
                )  # fmt: skip
            with console.working("drawing pictures and report"):
                write_run(
                    folder, training, plots.plot_run, command=plan.command,
                    asked=asked_data(asked["source"], asked["data"], plan.started_in),
                )  # fmt: skip
        except KeyboardInterrupt:
            done = checkpoints.stopped()
            console.complain(
                f"Stopped after {done} of {iterations} iterations. Go on with: xlogreg train --resume {folder}", "Note"
            )
            raise typer.Exit(130) from None
        except XlogregError:
            # It would end the same way again; checkpoints of a run that was resumed are its own.
            if run is None:
                checkpoint.remove(folder)
                remove_plan(folder)
            raise
    checkpoint.remove(folder)
    remove_plan(folder)
    if as_json:
        print_json({**results(training), "folder": str(folder)})
    else:
        console.show_training(training, folder)
