"""What a training that goes on from another model is tested on: not on what that model learned from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..system.text import given
from .evaluate import data_of, results_of

if TYPE_CHECKING:
    from ..data.task import Task
    from ..models.classifier import Classifier

# What says, of the same pictures, which of them are to test on.
_SPLIT = ("seed", "balance", "test_size")


def check_split(
    path: Path, start: "Classifier", asked: tuple[str, Path | None], whole: "Task", task: "Task"
) -> None:
    """Refuses to test on pictures that the model to start from was trained on, as its run folder has it.

    Where that cannot be known, or is of another class, a note says so.

    Parameters
    ----------
    path, start : the model of --start
    asked : DATA and --data of the new training
    whole, task : what it trains and tests on, before and after validation pictures were held out

    Raises
    ------
    InputError
        It was trained on another split of the same pictures, or they have changed since.
    """
    from ..data.task import hold_out
    from ..images.features import sha256_of
    from . import console

    results = results_of(path, start)
    if not results or not data_of(path, start, results, *asked)[2]:
        console.note(
            f"Whether the model to start from has learned from pictures to test on is not known (it was trained on "
            f"{start.trained_on})."
        )
        return
    if "test_size" not in whole.options:  # the data have test pictures of their own
        return
    before: dict[str, Any] = results["task"]
    other = [name for name in _SPLIT if before.get(name) != whole.options[name]]
    if before.get("positive") != whole.options["positive"] and (other or before.get("balance") != "none"):
        console.note("Pictures to test on may be among those that the model to start from has learned from.")
        return
    if other:
        wanted = " ".join(f"--{name.replace('_', '-')} {given(before.get(name)).strip(chr(39))}" for name in other)
        raise InputError(
            "The model to start from was trained on another split of these pictures, so it knows some of those to test "
            f"on; split them as it did ({wanted}), or train from zeros."
        )
    recorded, held = results.get("features"), before.get("validation")
    then = whole if held is None else hold_out([whole], held)[0]
    sha256 = sha256_of(*(start.features.rows(x) for x in (then.x_train, then.x_test)))
    if isinstance(recorded, dict) and recorded.get("sha256") not in (None, "", sha256):
        raise InputError(
            f"The pictures of {whole.source} are no longer those that the model to start from was trained on (added, "
            "changed or taken away, or decoded otherwise here), so it may know the ones to test on; train from zeros."
        )
    now: Any = task.options.get("validation", 0)
    if now > (held or 0):
        console.note("The model to start from has learned from pictures that are held out for validation.")
