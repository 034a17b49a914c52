"""The plan of a training, kept in its folder from before the first iteration so that it can be taken up again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from ..system import run_file_names
from ..system.files import reason, write_whole
from ..system.records import Kind, any_of, as_it_is, fields, many, read_record, text, whole, words
from ..system.text import brief, listed

_FORMAT = "xlogreg plan 2"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """The options of a training, the folder it was started in, the command that repeats it, and the numbers of
    iterations that it was to have `before` it was given more."""

    options: dict[str, Any]
    started_in: str
    command: str
    before: tuple[int, ...] = ()

    def more(self, iterations: int) -> "Plan":
        """The plan of the same training with more iterations."""
        options, before = {**self.options, "iterations": iterations}, (*self.before, self.options["iterations"])
        return Plan(options, self.started_in, repeating(self.command, iterations), before)


def repeating(command: str, iterations: int) -> str:
    """The command that trains as this one does, but so many iterations: of an option given twice, the last."""
    return f"{command} --iterations {iterations}" if command else ""


def write_plan(folder: Path, plan: Plan) -> None:
    """Keep a plan, its options in plain types; paths become texts."""
    content: dict[str, Any] = {
        "format": _FORMAT, "started_in": plan.started_in, "command": plan.command, "options": plan.options,
    }  # fmt: skip
    if plan.before:
        content["before"] = list(plan.before)
    write_whole(folder / run_file_names.PLAN, json.dumps(content, indent=2, default=str) + "\n")


def read_plan(folder: Path, kinds: dict[str, Kind], defaults: dict[str, Any]) -> Plan:
    """The plan of the training in `folder`, its options of these kinds; those that came later have their defaults.

    Raises
    ------
    FileError, InputError
        There is no training to take up, or its plan is damaged.
    """
    path = folder / run_file_names.PLAN
    kinds_of_all = {"format": any_of(_FORMAT), "started_in": text, "command": words, "options": as_it_is}
    kind = fields({**kinds_of_all, "before": many(whole(1))}, needed=frozenset(kinds_of_all))
    try:
        content = read_record(path, _MAX_BYTES, kind)
        options = defaults | fields({})(content["options"])
        if unknown := sorted(set(options) - set(kinds)):
            raise InputError(
                f"{path} is no plan that this xlogreg can resume: it has options of a newer one "
                f"({listed([brief(name) for name in unknown], 3)}); resume it with that, or train anew."
            )
        before = tuple(content.get("before", ()))
        return Plan(fields(kinds)(options), content["started_in"], content["command"], before)
    except (FileNotFoundError, NotADirectoryError):
        raise FileError(
            f"There is no training to resume in {folder}; name the folder of one that was stopped."
        ) from None
    except OSError as error:
        raise FileError(f"Cannot read {path}: {reason(error)}; check the folder.") from error
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        why = str(error).rstrip(".")
        raise InputError(f"{path} is no plan that this xlogreg can resume ({why}); train anew.") from error


def remove_plan(folder: Path) -> None:
    """A training that can never be complete needs no plan."""
    (folder / run_file_names.PLAN).unlink(missing_ok=True)
