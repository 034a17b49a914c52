"""The files of a run folder: their names, in one table, and what they say of a training that was stopped."""

import shlex
from pathlib import Path

# From before the first iteration; taken away where the training can never be complete.
PLAN = "plan.json"
CHECKPOINTS = ("checkpoint-0.safetensors", "checkpoint-1.safetensors")
# A folder that has it is complete: it comes last.
RESULTS = "results.json"
MODEL = "model.safetensors"
HISTORY, PREDICTIONS = "history.csv", "predictions.csv"
PAGE = "report.html"
# The few pictures that the page shows, on one sheet, and what they are.
SHEET, SHEET_LIST = "pictures.png", "pictures.json"
EXAMPLES, COST_HISTORY, TEST_PICTURE = "examples.png", "cost_history.png", "test_picture.png"
CURVES, MOST_WRONG, MOST_CERTAIN, WEIGHTS = "evaluation.png", "most_wrong.png", "most_certain.png", "weights.png"
# All that a training writes; somebody else may be writing other files there.
OF_A_TRAINING = (
    PLAN, *CHECKPOINTS, RESULTS, MODEL, HISTORY, PREDICTIONS, PAGE, SHEET, SHEET_LIST, EXAMPLES, COST_HISTORY,
    TEST_PICTURE, CURVES, MOST_WRONG, MOST_CERTAIN, WEIGHTS,
)  # fmt: skip
# Of other commands.
SWEEP, EVALUATION, COMPARISON = "sweep.json", "evaluation.json", "comparison.json"
LEARNING_RATES, OWN_PICTURE = "learning_rates.png", "own_picture.png"


def resume_command(folder: Path) -> str:
    """What takes up the training in this folder, as it can be typed."""
    return f"xlogreg train --resume {shlex.quote(str(folder))}"


def unfinished(folder: Path) -> str:
    """A sentence that says how to go on, where the folder holds a training that was stopped; else nothing."""
    if not (folder / PLAN).is_file() or (folder / RESULTS).exists():
        return ""
    return f"The training in {folder} is not finished; go on with: {resume_command(folder)}"
