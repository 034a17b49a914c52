"""What is wrong with a command as it was typed, in one sentence; what other programs call our options."""

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from ..system.text import brief, listed, shown

# Typer carries a Click of its own, or uses the installed one; this is the base of what it raises.
UsageErrors: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

# What other programs call it: ours, an option or what to type instead. Only those that the command has are suggested.
_OURS = {
    "--learning-rate": "lr learn-rate learningrate rate alpha eta eta0 step step-size stepsize learning-rate-init",
    "--iterations": "epoch epochs iter iters iteration n-iter niter num-iter num-iters max-iter maxiter steps n-steps "
    "num-steps max-steps num-epochs n-epochs max-epochs num-iterations n-iterations max-iterations it "
    "number-of-iterations n-estimators",
    "--seed": "random-state random-seed rng rng-seed",
    "--device gpu": "gpu gpus cuda use-gpu use-cuda gpu-id",
    "--device cpu": "cpu no-cuda no-gpu use-cpu",
    "--positive": "class classes label labels target target-class positive-class category",
    "--out": "output out-dir outdir output-dir o save save-dir save-to dest logdir log-dir",
    "--test-size": "test test-split test-share test-fraction holdout hold-out test-ratio",
    "--validation": "val val-size val-split val-share val-fraction valid validation-split validation-size "
    "validation-fraction validation-share",
    "--patience": "early-stopping early-stop early-stopping-rounds n-iter-no-change",
    "--stop-gradient": "tol tolerance gtol gradient-tolerance",
    "--stop-cost": "ftol cost-tolerance min-delta",
    "--l2": "weight-decay wd regularization regularisation reg reg-lambda lambda penalty ridge",
    "--l2, which is 1 / (C times the number of training pictures)": "C c inverse-regularization",
    "--momentum": "beta beta1 mu",
    "--solver": "optimizer optimiser algorithm method",
    "--solver lbfgs": "lbfgs l-bfgs bfgs newton-cg quasi-newton",
    "--size": "image-size img-size imgsz input-size resize picture-size",
    "--start": "init warm-start pretrained fine-tune finetune weights from-model model",
    "--resume": "continue restart go-on resume-from",
    "--implementation": "backend engine kernel impl",
    "--threads": "jobs n-jobs j workers num-workers n-threads num-threads",
    "--force": "overwrite f y yes",
    "--json": "format-json as-json",
    "--no-cache": "nocache",
    "--learning-rate, once each": "rates lrs learning-rates",
    "--positive, once each": "positives",
    "--data": "archive data-file",
    "DATA itself, without an option": "dataset data-dir data-path train-dir train-data input i folder dir path",
    "MODEL itself, without an option": "run checkpoint-path",
}
# What there is not, and why.
_NONE = {
    "every iteration is over all pictures, so there are no batches": "batch batch-size batchsize bs minibatch "
    "mini-batch minibatch-size shuffle",
    "--solver lbfgs goes to the optimum by itself; the other solver is gd, gradient descent with one learning rate, "
    "which --momentum and --nesterov make arrive sooner": "adam sgd scheduler lr-scheduler lr-decay decay warmup",
    "there is no penalty but --l2": "l1 l1-ratio elastic-net dropout",
    "all sums are exact, in one precision": "precision dtype fp16 bf16 fp32 fp64 amp half float32 float64",
    "all processors are used, and every number of threads gives the same bits": "threads jobs n-jobs j workers "
    "num-workers n-threads num-threads",
    "how far it is shows on standard error; 2>/dev/null hides it": "verbose v quiet q silent progress no-progress "
    "log-level debug",
    "pictures are taken as they are": "augment augmentation flip normalize normalise standardize",
    "a picture is of the class from a probability of 0.5 on; --csv gives the probabilities": "threshold cutoff",
    "it works on the processor alone": "device gpu gpus cuda use-gpu use-cuda gpu-id",
    "options are given one by one; a run's results.json has those of its training": "config cfg config-file",
}
_USUAL = {name: ours for ours, names in _OURS.items() for name in names.split()}
_MISSING = {name: why for why, names in _NONE.items() for name in names.split()}


def sentence(error: Any, commands: Sequence[str]) -> str:
    """What is wrong, where, and what to do; nothing where it has been said.

    commands : the names of all
    """
    context = getattr(error, "ctx", None)
    command = getattr(getattr(context, "command", None), "name", None)
    if command not in commands:
        command = next((word for word in sys.argv[1:] if word in commands), None)
    help_for = f"see `xlogreg {command} --help`" if command else "see `xlogreg --help`"
    kind, message = type(error).__name__, str(getattr(error, "message", error) or "")
    parameter = getattr(error, "param", None)
    if kind == "NoArgsIsHelpError":
        return ""  # the help was printed
    if kind == "NoSuchOption":
        known = [name for one in context.command.params for name in one.opts] if context else []
        return _no_such_option(error.option_name, command, known, help_for)
    if kind == "MissingParameter":
        return f"{command or 'xlogreg'} needs {_name(parameter)}, which is missing; {help_for}."
    if parameter is not None or kind == "BadParameter":
        return f"{_bad_value(_name(parameter, error), message)}; {help_for}."
    if found := re.match(r"No such command '(.*?)'\.", message, re.DOTALL):
        near = difflib.get_close_matches(found[1], commands, n=1)
        suggestion = f" Did you mean {near[0]}?" if near else ""
        return f"There is no command {shown(brief(found[1]))}; choose from {', '.join(commands)}.{suggestion}"
    if found := re.match(r"Got unexpected extra arguments? ?(?:\(s\) )?\((.*)\)$", message, re.DOTALL):
        return f"{command or 'xlogreg'} was given more than it takes: {brief(found[1])}; {help_for}."
    if found := re.match(r"Option '(.*?)' (?:requires|does not take) (?:an argument|a value)", message):
        return f"{found[1]} {'takes no' if 'does not' in message else 'needs a'} value; {help_for}."
    return f"{' '.join(message.split()).rstrip('.')}; {help_for}."


def _no_such_option(option: str, command: str | None, known: Sequence[str], help_for: str) -> str:
    name = option.lstrip("-").replace("_", "-")
    plain = name if name in _USUAL or name in _MISSING else name.lower()
    there = f"{command or 'xlogreg'} has no option {shown(brief(option))}"
    ours = _USUAL.get(plain, "")
    takes_words = {"DATA": ("train", "sweep", "evaluate"), "MODEL": ("predict", "evaluate", "export")}
    first = re.split("[ ,]", ours)[0]
    if ours and (first in known or command in takes_words.get(first, ())):
        return f"{there}: {'give' if first in takes_words else 'it is'} {ours}."
    if plain in _MISSING:
        return f"{there}: {_MISSING[plain]}."
    near = difflib.get_close_matches(f"--{name.lower()}", [one for one in known if one.startswith("--")], n=1)
    return f"{there}{f'; did you mean {near[0]}?' if near else f'; {help_for}.'}"


def _name(parameter: Any, error: Any = None) -> str:
    """An option's long name, or an argument's as the help has it."""
    options = [name for name in getattr(parameter, "opts", ()) if name.startswith("-")]
    if options:
        return max(options, key=len)
    metavar = getattr(parameter, "metavar", None) or getattr(parameter, "name", None)
    hint = getattr(error, "param_hint", None)
    return str(metavar or hint or "a value").upper().strip("'\"")


def _bad_value(name: str, message: str) -> str:
    """`name` and what it must be, from the words of Click or of pydantic for it."""
    values = [following for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True) if word == name]
    values += [word.partition("=")[2] for word in sys.argv if word.startswith(f"{name}=")]

    def but(fits: Callable[[str], object]) -> str:
        for value in values:
            try:
                fits(value)
            except (ValueError, KeyError):
                return f", not {brief(value)!r}"
        return ""

    if message.startswith("must be "):
        return f"{name} {message}"
    if choices := re.search(r"is not (?:one of )?('.*?)\.?$", message, re.DOTALL):
        names = re.findall(r"'(.*?)'", choices[1])
        return f"{name} must be {'one of ' * (len(names) > 1)}{listed(names)}{but(dict.fromkeys(names).__getitem__)}"
    if re.search("integer", message):
        if any(re.fullmatch(r"[-+]?\d{1000,}", value) for value in values):
            return f"{name} has more digits than any number that is of use"
        return f"{name} must be a whole number{but(int)}"
    if re.search("valid (number|float)|floating point", message):
        return f"{name} must be a number{but(float)}"
    if found := re.search(r"(?:greater than or equal to|x>=) ?(-?\d+)", message):
        return f"{name} must be at least {found[1]}"
    if re.search("boolean", message):
        return f"{name} is on or off, and takes no value"
    return f"{name} cannot be used ({' '.join(message.split()).rstrip('.')})"
