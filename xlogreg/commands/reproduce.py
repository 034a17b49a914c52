"""`xlogreg reproduce`: the tutorial's experiment, beside its published result."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..system import run_file_names
from .options import DeviceOption, ImplementationArgument, ImplementationOption, JsonOption, OutOption
from .shared import asked_data, chosen_device, print_json, stop_signals, training_folder


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
    import skimage

    from ..data.birds import load_birds
    from ..data.task import make_task
    from ..images.decoding import read_picture
    from ..images.resizing import resize
    from ..proof import tutorial
    from ..runs import plots
    from ..runs.gallery import own_tiles
    from ..runs.run_folder import new_run_folder, write_json, write_run
    from ..runs.training import train
    from ..system.files import make_folder
    from . import bars, console

    stages: dict[str, float] = {}

    def done(stage: str) -> None:
        """What has passed since the last call, or the start, was this stage."""
        stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - began - sum(stages.values())

    done("program")
    chosen = chosen_device(device)
    done("device")
    picture = picture or Path(skimage.__file__).parent / "data" / "chelsea.png"
    own = read_picture(picture)
    task = make_task(load_birds(), "bird")
    folder = new_run_folder("reproduce", out=out)
    done("data")
    with (
        training_folder(folder),
        stop_signals(),
        bars.training_progress(tutorial.ITERATIONS, "training 4 rates") as observer,
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
    sentence = f"{picture.name}: {label} (probability of {classifier.class_names[1]} {probability:.4f})"

    done("evaluation")
    asked = asked_data("birds", None)
    for training in others:
        sub = make_folder(folder / f"rate-{training.classifier.learning_rate:g}")
        with bars.working(f"writing {sub}"):
            write_run(sub, training, asked=asked)
    plots.plot_cost_histories(folder / run_file_names.LEARNING_RATES, others, "Cost at three learning rates")
    plots.plot_own_picture(folder / run_file_names.OWN_PICTURE, own, resized, sentence)
    write_json(folder / run_file_names.COMPARISON, {**asdict(comparison), "reproduced": comparison.reproduced})
    with bars.working("drawing pictures and report"):
        write_run(folder, main_run, plots.plot_run, own_tiles(own, resized, probability), asked=asked)
    done("pictures and report")
    results = json.loads((folder / run_file_names.RESULTS).read_text(encoding="utf-8"))
    write_json(folder / run_file_names.RESULTS, {**results, "stages": stages})

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
            run_file_names.PAGE: "everything on one page",
            run_file_names.EXAMPLES: "five training pictures with their labels",
            run_file_names.COST_HISTORY: "the cost while training",
            run_file_names.LEARNING_RATES: "the cost at three learning rates",
            run_file_names.TEST_PICTURE: "test picture 10, true and predicted",
            run_file_names.OWN_PICTURE: "the own picture before and after the resize",
            run_file_names.RESULTS: "everything obtained, the machine and the options",
            run_file_names.HISTORY: "the cost of every iteration",
            run_file_names.MODEL: f"the trained model: xlogreg predict {folder} PICTURE",
        })  # fmt: skip
    if not comparison.reproduced:
        raise typer.Exit(1)
