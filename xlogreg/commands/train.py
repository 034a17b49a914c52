"""`xlogreg train`: one class against the rest."""

import contextlib
import functools
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DeviceError, DivergenceError, FileError, InputError, XlogregError
from ..system import run_file_names
from ..system.text import shown
from .options import RATE, TRAIN, JsonOption, OutOption, plan_kind, takes
from .prepare import prepared, rates_of
from .shared import (
    asked_data,
    ignore_stop_signals,
    print_json,
    relocated,
    step_of,
    stop_signals,
    training_folder,
)

if TYPE_CHECKING:
    from ..runs.plan import Plan


# What each option of a plan must be there, and what it was where a plan is from before it.
_KINDS = {name: plan_kind(annotation) for name, (annotation, _) in TRAIN.items()}
_DEFAULTS = {name: default for name, (_, default) in TRAIN.items()} | {"learning_rate": RATE}
# These change no bit; a training may be taken up on another machine.
_CHANGEABLE = {"device", "implementation", "data", "no_cache"}
# How own folders and cifar10 are trained where none of these options says how, and with too few pictures to choose.
_SAYS_HOW = {"solver", "l2", "momentum", "nesterov", "learning_rate", "start"}
_TO_THE_OPTIMUM: dict[str, Any] = {"solver": "lbfgs", "l2": "auto"}
_L2_OF_FEW = 0.01


@takes(TRAIN)
def train(
    context: typer.Context,
    asked: dict[str, Any],
    out: OutOption = None,
    checkpoint: Annotated[
        float, typer.Option(metavar="SECONDS", help="Keep where the training stands about this often.")
    ] = 10.0,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="Keep it also after every N iterations."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            show_default=False,
            help="Take up a training that was stopped, in its run folder, with its own options: the result has the "
            "bits of a training never stopped.",
        ),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="With --resume: make the run's results from where it was stopped, as they are."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one class against the rest and keep model, history and pictures in a run folder.

    Own folders and cifar10 are trained to the optimum, with --solver lbfgs --l2 auto, unless --solver, --l2,
    --momentum, --learning-rate or --start says how; all else as the tutorial does it.

    Ctrl-C stops it and keeps where it stood; `--resume RUN` goes on, also after a crash, and with --iterations gives a
    run more of them, finished or not; `--resume RUN --finish` ends it there.
    """
    from ..data.sources import is_picture_folder, is_whole_cifar10
    from ..runs.checkpoint import check_intervals

    intervals = checkpoint, checkpoint_every
    check_intervals(*intervals)
    given = {name: value for name, value in {**asked, "out": out}.items() if _was_given(context, name)}
    if resume is not None:
        _resume(resume, given, finish, intervals, as_json)
    elif finish:
        raise InputError("--finish ends a training that was stopped; name its folder with --resume.")
    else:
        source = asked["source"]
        best = not _SAYS_HOW & set(given) and (is_picture_folder(source) or is_whole_cifar10(source))
        _train(asked | _TO_THE_OPTIMUM if best else asked, None, intervals, as_json, out=out, by_default=best)


def _resume(run: Path, given: dict[str, Any], finish: bool, intervals: tuple[float, int | None], as_json: bool) -> None:
    """Take up the training in a run folder, with more iterations where they are `given`, or end it there."""
    from ..neuron.arguments import checked_iterations
    from ..system.lock import locked

    for name in given:
        if name not in {*_CHANGEABLE, "iterations"}:
            words = "DATA" if name == "source" else f"--{name.replace('_', '-')}"
            raise InputError(
                f"A resumed training keeps its own options; leave {words} out, or train into a new folder."
            )
    wanted = given.pop("iterations", None)
    if finish and wanted is not None:
        raise InputError("A training that is finished where it stands gets no more iterations; leave one of the two "
                         "options out, --finish or --iterations.")  # fmt: skip
    if wanted is not None:
        checked_iterations(wanted)
    if _goes_on(run, wanted):
        plan = _plan_in(run)
        # Before data are read, which takes long, and until all is written.
        with locked(run):
            # Else another process has ended it just now.
            if _goes_on(run, wanted):
                if wanted is not None and wanted != plan.options["iterations"]:
                    plan = plan.more(wanted)
                _train(_taken_up(plan, given), run, intervals, as_json, plan, finish)
                return
    _say_complete(run, as_json)


def _plan_in(run: Path) -> "Plan":
    """The plan of the training in a run folder; only L-BFGS has no learning rate."""
    from ..runs.plan import read_plan

    plan = read_plan(run, _KINDS, _DEFAULTS)
    if plan.options["learning_rate"] is None and plan.options["solver"] != "lbfgs":
        raise InputError(
            f"{run / run_file_names.PLAN} is no plan that this xlogreg can resume (learning_rate must be a number); "
            "train anew."
        )
    return plan


def _goes_on(run: Path, wanted: int | None) -> bool:
    """Whether there is something to do in this folder, for which so many iterations are wanted, or what is planned.

    Raises
    ------
    InputError, FileError
        It has more iterations than that, or what is needed to go on is not there any more.
    """
    from ..runs.gallery import read_json

    results = read_json(run / run_file_names.RESULTS)
    if results is None:
        return True
    done, planned, stopped = (
        results.get(name) if isinstance(results, dict) else None
        for name in ("iterations", "max_iterations", "stopped_by")
    )
    if not isinstance(done, int) or not isinstance(planned, int):
        return False
    if wanted is None:
        # One that was to have more iterations, and was stopped again.
        with contextlib.suppress(XlogregError):
            return int(_plan_in(run).options["iterations"]) > planned
        return False
    if stopped not in ("iterations", "interrupted"):
        return False
    if wanted <= done:
        raise InputError(f"The run {shown(run)} has {done:,} iterations already; give more with --iterations.")
    if not _keeps(run):
        raise FileError(
            f"The run {shown(run)} does not keep what more iterations need, {run_file_names.PLAN} and a checkpoint; "
            f"go on from its model in a new one, with --start {quote(str(run))}."
        )
    return True


def _keeps(run: Path) -> bool:
    """Whether a complete run has what more iterations need."""
    return (run / run_file_names.PLAN).is_file() and any((run / name).is_file() for name in run_file_names.CHECKPOINTS)


def _taken_up(plan: "Plan", given: dict[str, Any]) -> dict[str, Any]:
    """The options of a plan, and those given now, as they are to be understood here."""
    from ..data.sources import BUILT_IN, CIFAR10

    options = plan.options | given
    if given.get("data") is not None:
        # The record has paths from where the training was started, perhaps another folder than this one.
        options["data"] = given["data"].absolute()
    for name in ("source", "data", "start"):
        path = options[name]
        if path is not None and not (name == "source" and path in (BUILT_IN, CIFAR10)):
            options[name] = type(path)(relocated(path, plan.started_in))
    return options


def _say_complete(run: Path, as_json: bool) -> None:
    """Of a run that was to be resumed; it is cleared of what a process that was killed then may have left."""
    from ..runs.checkpoint import remove, stamp
    from ..runs.reading import read_results
    from ..system.lock import locked
    from . import console

    with contextlib.suppress(OSError), locked(run):
        remove(run, but=max(run_file_names.CHECKPOINTS, key=lambda name: stamp(run / name)))
    results = read_results(run) or {}
    done, planned, stopped = (results.get(name) for name in ("iterations", "max_iterations", "stopped_by"))
    by_itself = stopped not in ("iterations", "interrupted", None)
    how, more = "", f"to go on from its model, train with --start {quote(str(run))}"
    if by_itself:
        how = f": it stopped by itself ({stopped}) after {done} iterations, and more would change nothing"
        more += ", the same options and a smaller --tol" * (stopped == "gradient")
    elif stopped == "interrupted":
        how = f": it was ended after {done} of {planned} iterations"
    if not by_itself and _keeps(run):
        more = f"to go on, give it more with --iterations, or train from its model with --start {quote(str(run))}"
    console.note(f"The run {run} is complete{how}; {more}.")
    if as_json:
        print_json({**results, "folder": str(run)})


def _was_given(context: typer.Context, name: str) -> bool:
    # By name: Typer carries a Click of its own, or uses the installed one.
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _train(
    asked: dict[str, Any],
    run: Path | None,
    intervals: tuple[float, int | None],
    as_json: bool,
    plan: "Plan | None" = None,
    finish: bool = False,
    out: Path | None = None,
    by_default: bool = False,
) -> None:
    """Train as asked, into a new folder or on in that of `run`, as its `plan` says; or only `finish` it. `by_default`:
    whether nobody said that an L2 is to be chosen."""
    from ..data.sources import run_name
    from ..runs import checkpoint, plots
    from ..runs.plan import Plan, remove_plan, repeating, write_plan
    from ..runs.run_folder import command_line, new_run_folder, results, write_run
    from ..runs.training import train as train_task
    from ..solvers.cross_validation import fewest
    from ..system.lock import locked
    from . import bars, console

    rates, iterations = rates_of(asked, RATE), asked["iterations"]
    # As it was then, also where another xlogreg takes it up.
    asked = {**asked, "learning_rate": rates[0] if rates else None}
    positives = [] if asked["positive"] is None else [asked["positive"]]
    (task,), keywords = prepared(asked, rates, positives, out, new=run is None)
    if by_default and fewest(task.y_train, keywords["options"]) < 2:
        console.note(f"The training pictures are too few to choose an L2 by cross-validation; {_L2_OF_FEW:g} is taken.")
        asked["l2"], keywords["options"] = _L2_OF_FEW, replace(keywords["options"], l2=_L2_OF_FEW)
    if plan is None:
        plan = Plan(asked, str(Path.cwd()), command_line())
    # However soon it is killed, what there is of it can be taken up.
    folder = run or new_run_folder(run_name(asked["source"]), out=out, first=functools.partial(write_plan, plan=plan))
    seconds, every = intervals

    def going_on(words: str) -> None:
        # The plan with more iterations, before there are checkpoints of them; not of a training that cannot go on.
        if plan.before:
            write_plan(folder, plan)
        console.note(words)

    checkpoints = checkpoint.Checkpoints(
        folder, seconds, run is not None, console.note, every=every, tell=going_on, finish=finish, before=plan.before
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(training_folder(folder))
        if run is None:
            stack.enter_context(locked(folder))
        stack.enter_context(stop_signals())
        if run is None and out is not None:
            write_plan(folder, plan)
        trained = False
        try:
            with bars.training_progress(iterations, "training", step_of(asked)) as observer:
                (training,) = train_task(
                    task, rates, iterations, observer=observer, checkpoints=checkpoints, **keywords
                )
            trained = True
            with bars.working("drawing pictures and report"):
                command = repeating(plan.command, len(training.history)) if finish else plan.command
                write_run(
                    folder, training, plots.plot_run, command=command,
                    asked=asked_data(asked["source"], asked["data"], plan.started_in),
                )  # fmt: skip
        except KeyboardInterrupt:
            # People press Ctrl-C again where nothing seems to happen, and batch systems send more than one signal.
            ignore_stop_signals()
            done = checkpoints.stopped()
            where = "while its results were written" if trained else f"after {done} of {iterations} iterations"
            ending = " (to end it there, add --finish)" if done and not trained else ""
            console.note(f"Stopped {where}{ending}. Go on with: {run_file_names.resume_command(folder)}")
            raise typer.Exit(130) from None
        except (InputError, DivergenceError):
            # It would end the same way again; checkpoints of a run that was resumed are its own.
            if run is None:
                remove_plan(folder)
                checkpoint.remove(folder)
            raise
        except (FileError, DeviceError) as error:
            # A full disk or device: there may be room the next time, and hours of training are in the checkpoints.
            if not checkpoints.begun:
                raise
            raise type(error)(f"{error} Then go on with: {run_file_names.resume_command(folder)}") from error
        # Ctrl-C comes too late here.
        ignore_stop_signals()
        checkpoints.ended()
    if as_json:
        print_json({**results(training), "folder": str(folder)})
    else:
        console.show_training(training, folder)
    console.show_notes([training])
