"""`xlogreg reproduce`: the tutorial's experiment, beside its published result."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..options import DeviceOption, ImplementationArgument, ImplementationOption, JsonOption, OutOption
from .shared import asked_data, chosen_device, print_json, sample_picture, stop_signals, training_folder


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
    began = time.perf_counter()
    from .. import console, plots, tutorial
    from ..data.birds import load_birds
    from ..data.task import make_task
    from ..files import make_folder
    from ..gallery import own_tiles
    from ..images import read_picture, resize
    from ..run_folder import new_run_folder, write_json, write_run
    from ..training import train

    stages: dict[str, float] = {}

    def done(stage: str) -> None:
        """What has passed since the last call, or the start, was this stage."""
        stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - began - sum(stages.values())

    done("program")
    chosen = chosen_device(device)
    done("device")
    own = read_picture(picture or sample_picture())
    task = make_task(load_birds(), "bird")
    folder = new_run_folder("reproduce", out=out)
    done("data")
    with (
        training_folder(folder),
        stop_signals(),
        console.training_progress(tutorial.ITERATIONS, "training 4 rates") as observer,
    ):
        trainings = train(
            task, tutorial.LEARNING_RATES, tutorial.ITERATIONS,
            device=chosen, implementation=implementation.value, observer=observer,
        )  # fmt: skip
    main_run = trainings[tutorial.LEARNING_RATES.index(tutorial.LEARNING_RATE)]
    stages["device"] += main_run.preparing_seconds
    stages["training"] = main_run.seconds
    done("evaluation")
    others = [training for training in trainings if training is not main_run]
    comparison = tutorial.compare(trainings)

    classifier = main_run.classifier
    resized = resize(own, classifier.size[:2])
    probability = float(classifier.probability(resized[None])[0])
    label = classifier.class_names[int(probability >= 0.5)]
    sentence = (
        f"{(picture or sample_picture()).name}: {label} (probability of {classifier.class_names[1]} {probability:.4f})"
    )

    done("evaluation")
    asked = asked_data("birds", None)
    for training in others:
        sub = make_folder(folder / f"rate-{training.classifier.learning_rate:g}")
        with console.working(f"writing {sub}"):
            write_run(sub, training, asked=asked)
    plots.plot_cost_histories(folder / "learning_rates.png", others, "Cost at three learning rates")
    plots.plot_own_picture(folder / "own_picture.png", own, resized, sentence)
    write_json(folder / "comparison.json", {**asdict(comparison), "reproduced": comparison.reproduced})
    with console.working("drawing pictures and report"):
        write_run(folder, main_run, plots.plot_run, own_tiles(own, resized, probability), asked=asked)
    done("pictures and report")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    write_json(folder / "results.json", {**results, "stages": stages})

    if as_json:
        print_json({
            "reproduced": comparison.reproduced,
            "largest_cost_difference": comparison.largest_difference,
            "cost_history": main_run.cost_history,
            "accuracies": {f"{t.classifier.learning_rate:g}": [t.train_accuracy, t.test_accuracy] for t in trainings},
            "history_sha256": {f"{t.classifier.learning_rate:g}": t.history_sha256 for t in trainings},
            "own_picture": {"label": label, "probability": probability},
            "seconds": main_run.seconds,
            "stages": stages,
            "device": main_run.device,
            "implementation": main_run.implementation,
            "folder": str(folder),
        })  # fmt: skip
    else:
        console.show_reproduction(trainings, comparison)
        console.out.print(f"own picture {sentence}", markup=False)
        console.show_stages(stages)
        console.show_files(folder, {
            "report.html": "everything on one page",
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
