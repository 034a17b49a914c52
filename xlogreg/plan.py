"""The plan of a training, kept in its folder from before the first iteration so that it can be taken up again."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FileError, InputError
from .files import reason, write_whole
from .records import Kind, Odd, any_of, as_it_is, fields, read_record, text, words

PLAN = "plan.json"
# A folder that has it is complete: it comes last.
RESULTS = "results.json"
_FORMAT = "xlogreg plan 2"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """The options of a training, the folder it was started in, and the command that started it."""

    options: dict[str, Any]
    started_in: str
    command: str


def write_plan(folder: Path, plan: Plan) -> None:
    """Keep a plan, its options in plain types."""
    content = {"format": _FORMAT, "started_in": plan.started_in, "command": plan.command, "options": plan.options}
    write_whole(folder / PLAN, json.dumps(content, indent=2) + "\n")


def read_plan(folder: Path, kinds: dict[str, Kind]) -> Plan:
    """The plan of the training in `folder`, its options of these kinds.

    Raises
    ------
    FileError, InputError
        There is no training to take up, or its plan is damaged.
    """
    path = folder / PLAN
    kind = fields({"format": any_of(_FORMAT), "started_in": text, "command": words, "options": as_it_is})
    try:
        content = read_record(path, _MAX_BYTES, kind)
        if set(content["options"]) != set(kinds):
            raise Odd("those of this xlogreg", "options")
        return Plan(fields(kinds)(content["options"]), content["started_in"], content["command"])
    except (FileNotFoundError, NotADirectoryError):
        raise FileError(
            f"There is no training to resume in {folder}; name the folder of one that was stopped."
        ) from None
    except OSError as error:
        raise FileError(f"Cannot read {path}: {reason(error)}; check the folder.") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no plan that this xlogreg can resume ({error}); train anew.") from error


def resume_command(folder: Path) -> str:
    """What takes up the training in this folder, as it can be typed."""
    return f"xlogreg train --resume {shlex.quote(str(folder))}"


def unfinished(folder: Path) -> str:
    """A sentence that says how to go on, where the folder holds a training that was stopped; else nothing."""
    if not (folder / PLAN).is_file() or (folder / RESULTS).exists():
        return ""
    return f"The training in {folder} is not finished; go on with: {resume_command(folder)}"


def remove_plan(folder: Path) -> None:
    """A training that is complete, or that can never be, needs no plan."""
    (folder / PLAN).unlink(missing_ok=True)
