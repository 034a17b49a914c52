"""`xlogreg evaluate`: how good a trained model is."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..system import run_file_names
from .options import (
    BalanceArgument,
    BalanceOption,
    DataOption,
    JsonOption,
    MaxUnreadableOption,
    ModelArgument,
    NoCacheOption,
    TestSizeOption,
)
from .shared import FolderReading, check_folder, load_pictures, print_json, relocated, tasks_of

if TYPE_CHECKING:
    from ..models.classifier import Classifier
    from ..models.evaluation import Predictions


def evaluate(
    model: ModelArgument,
    source: Annotated[
        str | None,
        typer.Argument(metavar="DATA", show_default=False, help="Data as for train. [default: the run's own]"),
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The class to recognise. [default: the model's]")] = None,
    balance: BalanceArgument = None,
    seed: Annotated[
        int | None,
        typer.Option(show_default=False, help="Seed of the shuffle and the draw. [default: the run's, or 0]"),
    ] = None,
    test_size: TestSizeOption = None,
    max_unreadable: MaxUnreadableOption = None,
    no_cache: NoCacheOption = False,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures and the page, new or empty.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained model on training and test pictures: accuracy, recall, ROC, calibration and more.

    By default on its run's own, in the run's own split; all pictures of another folder are test pictures. With --out,
    also the most wrong and most certain pictures, the weights and a page of it all.
    """
    from ..data.sources import is_picture_folder
    from ..data.task import hold_out, only_test
    from ..models.classifier import Classifier
    from ..models.evaluation import predict_task
    from . import console

    classifier = Classifier.load(model)
    results = results_of(model, classifier)
    source, data, own = data_of(model, classifier, results, source, data)
    held_out = None
    as_the_run = own and (positive, balance, seed, test_size) == (None, None, None, None)
    if own:
        # What the run was, where nothing else is asked for.
        task_options = results["task"]
        seed = task_options.get("seed") if seed is None else seed
        balance = BalanceOption(task_options["balance"]) if balance is None else balance
        if test_size is None:
            test_size, held_out = task_options.get("test_size"), task_options.get("validation")
    # A folder's pictures are resized to what the model takes.
    height, width, _ = classifier.size
    size = f"{height}x{width}" if is_picture_folder(source) else None
    reading = FolderReading(size, max_unreadable, no_cache)
    positive = positive or classifier.class_names[1]
    if out is not None:
        check_folder(source, out)
    if is_picture_folder(source) and not own and test_size is None:
        # Pictures that the model has not seen, all of them.
        chosen: Any = "none" if balance is None else balance.value

        def make(pictures: Any, _: Any) -> Any:
            return only_test(pictures, positive, balance=chosen, seed=seed or 0)

        task = make(*load_pictures(source, data, reading, make))
    else:
        (task,) = tasks_of(source, data, [positive], balance, seed or 0, test_size, reading)
    if held_out is not None:
        (task,) = hold_out([task], held_out)
    predictions = predict_task(classifier, task)
    if own:
        _check_split(predictions, results, as_the_run)
    parts = predictions.evaluations
    folder = None
    if out is not None:
        from ..runs import plots
        from ..runs.run_folder import new_run_folder, write_evaluation

        folder = new_run_folder("evaluation", out=out)
        write_evaluation(folder, predictions, str(model), plots.plot_predictions)
    if as_json:
        found = {name: part.as_dict() for name, part in parts.items()}
        print_json({"model": str(model), "data": task.source, **found} | ({"folder": str(folder)} if folder else {}))
    else:
        console.show_evaluation(task, parts, classifier.class_names)
        if folder is not None:
            console.show_files(folder, {
                run_file_names.PAGE: "everything on one page",
                run_file_names.CURVES: "ROC curve, calibration, confusion matrix",
                run_file_names.MOST_WRONG: "the test pictures that are most wrong",
                run_file_names.MOST_CERTAIN: "the most certain ones",
                run_file_names.WEIGHTS: "what the neuron looks for", run_file_names.EVALUATION: "all measures",
                run_file_names.PREDICTIONS: "the probability of every picture",
            })  # fmt: skip


def _check_split(predictions: "Predictions", results: dict[str, Any], as_the_run: bool) -> None:
    """Refuses, or says, that the pictures to test on are not the run's, and may be among those it learned from."""
    from . import console

    recorded = (results.get("features") or {}).get("sha256")
    if not recorded or recorded == predictions.features_sha256:
        return
    if as_the_run:
        raise InputError(
            f"The pictures of {predictions.task.source} are no longer those that the model was trained and tested on "
            "(added, changed or taken away, or decoded otherwise here), so it may know the ones to test on; train "
            "again, name a folder of other pictures, or give --seed to split them anew all the same."
        )
    console.note("This is not the run's own split: pictures to test on may be among those it learned from.")


def results_of(model: Path, classifier: "Classifier") -> dict[str, Any]:
    """results.json beside the model, if it is of this very model; else nothing."""
    from ..runs.reading import read_results

    found = read_results(model if model.is_dir() else model.parent, classifier.history_sha256)
    return found if found is not None and found["task"].get("balance") in list(BalanceOption) else {}


def data_of(
    model: Path, classifier: "Classifier", results: dict[str, Any], source: str | None, data: Path | None
) -> tuple[str, Path | None, bool]:
    """DATA and --data, given or the run's own, and whether they are the run's own."""
    from ..data.sources import BUILT_IN, CIFAR10

    asked = results.get("asked") or {}
    of_run, started_in = asked.get("source"), asked.get("started_in") or ""
    here: Any = of_run if of_run in (None, BUILT_IN, CIFAR10) else relocated(of_run, started_in)
    if source is not None:
        return source, data, of_run is not None and (source == of_run or Path(source).resolve() == Path(here).resolve())
    name_them = f"name them: xlogreg evaluate {model} DATA."
    if of_run is None:
        raise InputError(
            run_file_names.unfinished(model)
            or f"It is not recorded which pictures {model} was trained on ({classifier.trained_on}); {name_them}"
        )
    if here not in (BUILT_IN, CIFAR10) and not os.path.exists(here):
        there = Path(started_in, here)
        raise InputError(f"The pictures that {model} was trained on are no longer in {there}; {name_them}")
    if data is None and asked.get("data") is not None:
        data = Path(relocated(asked["data"], started_in))
    return here, data, True
