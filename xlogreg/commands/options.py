"""The options that the commands share, with the help that newcomers read; those of a training in one table."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from ..images.kinds import DEFAULT, KINDS
from ..neuron.options import DescentOptions
from ..system import records
from ..system.text import brief


class BalanceOption(StrEnum):
    first = "first"
    random = "random"
    none = "none"


class ImplementationOption(StrEnum):
    auto = "auto"
    reference = "reference"
    fused = "fused"


FeaturesOption = StrEnum("FeaturesOption", {name: name for name in KINDS})  # type: ignore[misc]
_SEEN = [words for _, words in KINDS.values()]


DataOption = Annotated[
    Path | None, typer.Option("--data", help="A CIFAR-10 archive or folder of your own, for `cifar10`.")
]
BalanceArgument = Annotated[
    BalanceOption | None,
    typer.Option(
        help="Pictures of the rest: as many, the first in the file (tutorial); as many, drawn by seed; all. "
        "[default: first; random for a folder]"
    ),
]
TestSizeOption = Annotated[
    float | None,
    typer.Option(
        help="Pictures held back for testing: a number, or a share below 1. [default: 164 in 2064; a fifth of a folder]"
    ),
]
MaxUnreadableOption = Annotated[
    float | None,
    typer.Option(
        help="Stop if more of a folder's pictures than this number, or share below 1, cannot be read. "
        "[default: 10, or 10 % if that is more]"
    ),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor keep a folder's decoded pictures in the cache folder.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, gpu or gpu:N; all give the same bits.")]
ImplementationArgument = Annotated[ImplementationOption, typer.Option(help="How to compute; all give the same bits.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder for the results, new or empty. [default: runs/NAME-N]")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
ModelArgument = Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.")]

# The tutorial's rate; and what a sweep tries where nothing else is asked for.
RATE = 0.005
RATES, PENALTIES = (0.01, 0.005, 0.001, 0.0001), (0.1, 0.01, 0.001, 0.0001)
# Beyond the tutorial's.
_beyond = functools.partial(
    typer.Option, show_default=False, rich_help_panel="Beyond the tutorial (all keep the same bits on every machine)"
)


def _listed(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


class _Train:
    """The options of a training: its type, how it is typed, the kind in a plan where that is not all of the type, and
    the default of each. One that is added here is an option of `train` and `sweep`, and in the plan."""

    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="birds (built in), cifar10 (see `xlogreg fetch`), a folder with one sub-folder of pictures per class, "
            "or a CIFAR-10 archive, folder or batch.",
        ),
    ] = "birds"
    positive: Annotated[
        str | None,
        typer.Option(help="The class to recognise, by name or number. [default: bird; of a folder's two classes, one]"),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(help=f"Step size of gradient descent. [default: {RATE:g}; none for --solver lbfgs]"),
    ] = None
    iterations: Annotated[
        int,
        typer.Option(help="Steps of gradient descent; of lbfgs evaluations of the cost, at most."),
        records.whole(1),
    ] = 2000
    balance: BalanceArgument = None
    seed: Annotated[int, typer.Option(help="Seed of the shuffle and the draw."), records.whole(0, 2**32 - 1)] = 0
    test_size: TestSizeOption = None
    descent: DescentOptions  # all of its options
    validation: Annotated[
        float | None,
        _beyond(
            metavar="SHARE",
            help="Hold out this share of the training pictures, 0.2 say, and report cost and accuracy on them every "
            "100 iterations; see --patience. [default: none]",
        ),
    ] = None
    patience: Annotated[
        int | None,
        _beyond(
            metavar="N",
            help="Early stopping: end after N checks (one every 100 iterations) without a lower cost on the pictures "
            "of --validation, and keep the model of the lowest. Try 3. [default: never]",
        ),
        records.whole(1),
    ] = None
    start: Annotated[
        Path | None,
        _beyond(
            metavar="MODEL",
            help="Go on from this run folder or model file (its weights; momentum starts afresh). [default: zeros]",
        ),
    ] = None
    features: Annotated[
        FeaturesOption,
        typer.Option(help=f"What to look at: {', '.join(_SEEN[:-1])}, or {_SEEN[-1]}."),
    ] = FeaturesOption(DEFAULT)
    size: Annotated[
        str | None, typer.Option(help="Resize a folder's pictures to N x N, or HxW (height x width). [default: 32]")
    ] = None
    max_unreadable: MaxUnreadableOption = None
    no_cache: NoCacheOption = False
    data: DataOption = None
    device: DeviceOption = "auto"
    implementation: ImplementationArgument = ImplementationOption.auto


class _Several:
    """What is another thing for several trainings."""

    learning_rate: Annotated[
        list[float] | None,
        typer.Option(
            help=f"Repeat for each rate. [default: {_listed(RATES)}; {RATE:g} with several --l2; none for "
            "--solver lbfgs]"
        ),
    ] = None
    positive: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for several classes, each against the rest of all pictures. [default: as in train]"),
    ] = None
    l2: Annotated[
        list[float] | None,
        _beyond(
            help="Repeat for each penalty for large weights, (L2 / 2) times the sum of their squares. [default: 0; "
            f"{_listed(PENALTIES)} for --solver lbfgs]",
        ),
    ] = None


class _OfOneClass:
    balance: Annotated[
        BalanceOption | None, typer.Option(help="As in train, for one class. [default: as in train]")
    ] = None


# Options by name: their annotations, as Typer takes them, and defaults.
Table = dict[str, tuple[Any, Any]]


def typed_name(field: dataclasses.Field[Any]) -> str:
    """What an option of the descent is called on the command line and in a plan."""
    return str(field.metadata["typed"] or field.name)


def _number_or_auto(typed: Any) -> "float | str":
    if typed == "auto":
        return "auto"
    try:
        return float(typed)
    except ValueError:
        raise typer.BadParameter(f"must be a number or auto, not {brief(typed)!r}") from None


def _penalty_in_a_plan(value: Any) -> "float | str":
    return "auto" if value == "auto" else records.number()(value)


def _of_descent() -> Table:
    table: Table = {}
    for field in dataclasses.fields(DescentOptions):
        name, kind, default, metavar = typed_name(field), field.type, field.default, field.metadata["metavar"]
        if name == "class_weight":
            kind, default, metavar = str, "none", "none|balanced|A,B"
        if name == "l2":
            kind = float  # or "auto"
        shown, also = default is not None, field.metadata["also"]
        flags = [f"--{name.replace('_', '-')}", *([also] if also else [])]
        parser = _number_or_auto if name == "l2" else None
        asked = _beyond(*flags, metavar=metavar, help=field.metadata["help"], show_default=shown, parser=parser)
        table[name] = Annotated[kind, asked, *([_penalty_in_a_plan] if parser else [])], default
    return table


def _table(declared: type) -> Table:
    table: Table = {}
    for name, annotation in get_type_hints(declared, include_extras=True).items():
        table |= _of_descent() if annotation is DescentOptions else {name: (annotation, getattr(declared, name))}
    return table


TRAIN = _table(_Train)
# In the order of the help, the rates and classes first.
SWEEP = _table(_Several) | TRAIN | _table(_Several) | _table(_OfOneClass)


def takes(table: Table) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Has a command take the options of a table where it has the parameter `asked`, which is given them by name."""

    def of(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**given: Any) -> None:
            command(asked={name: given.pop(name) for name in table}, **given)

        new = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
        parameters: list[inspect.Parameter] = []
        for one in inspect.signature(command).parameters.values():
            options = table if one.name == "asked" else {one.name: (one.annotation, one.default)}
            parameters += [new(name, annotation=kind, default=default) for name, (kind, default) in options.items()]
        # Typer looks at both.
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return of


_KINDS: dict[type, records.Kind] = {
    str: records.text, float: records.number(), bool: records.flag, Path: records.made(records.text, Path),
}  # fmt: skip


def plan_kind(annotation: Any) -> records.Kind:
    """What an option must be in a plan: of the kind that its annotation names, or anything of its type."""
    wanted, *said = get_args(annotation)
    several = get_args(wanted)  # such as `int | None`
    kind = several[0] if several else wanted
    named: list[Any] = [one for one in said if inspect.isfunction(one)]
    if not named:
        named = [records.made(records.any_of(*kind), kind) if issubclass(kind, StrEnum) else _KINDS[kind]]
    return records.optional(named[0]) if several else named[0]
