"""The options that the commands share, with the help that newcomers read."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..images.kinds import DEFAULT, KINDS


class BalanceOption(StrEnum):
    first = "first"
    random = "random"
    none = "none"


class ImplementationOption(StrEnum):
    auto = "auto"
    reference = "reference"
    fused = "fused"


FeaturesOption = StrEnum("FeaturesOption", {name: name for name in KINDS})  # type: ignore[misc]
DEFAULT_FEATURES = FeaturesOption(DEFAULT)
_SEEN = [words for _, words in KINDS.values()]


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="birds (built in), cifar10 (see `xlogreg fetch`), a folder with one sub-folder of pictures per class, "
        "or a CIFAR-10 archive, folder or batch.",
    ),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="A CIFAR-10 archive or folder of your own, for `cifar10`.")
]
PositiveOption = Annotated[
    str | None,
    typer.Option(help="The class to recognise, by name or number. [default: bird; of a folder's two classes, one]"),
]
BalanceArgument = Annotated[
    BalanceOption | None,
    typer.Option(
        help="Pictures of the rest: as many, the first in the file (tutorial); as many, drawn by seed; all. "
        "[default: first; random for a folder]"
    ),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the shuffle and the draw.")]
TestSizeOption = Annotated[
    float | None,
    typer.Option(
        help="Pictures held back for testing: a number, or a share below 1. [default: 164 in 2064; a fifth of a folder]"
    ),
]
SizeOption = Annotated[
    str | None, typer.Option(help="Resize a folder's pictures to N x N, or HxW (height x width). [default: 32]")
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
FeaturesArgument = Annotated[
    FeaturesOption,
    typer.Option(help=f"What to look at: {', '.join(_SEEN[:-1])}, or {_SEEN[-1]}."),
]
IterationsOption = Annotated[int, typer.Option(help="Steps of gradient descent.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, gpu or gpu:N; all give the same bits.")]
ImplementationArgument = Annotated[ImplementationOption, typer.Option(help="How to compute; all give the same bits.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder for the results, new or empty. [default: runs/NAME-N]")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
ModelArgument = Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.")]

# Training beyond the tutorial's: train and sweep.
_PANEL = "Beyond the tutorial (all keep the same bits on every machine)"
L2Option = Annotated[
    float,
    typer.Option(
        "--l2", rich_help_panel=_PANEL,
        help="Penalty for large weights, (L2 / 2) times the sum of their squares: steadier on few pictures. Try 0.01.",
    ),
]  # fmt: skip
MomentumOption = Annotated[
    float,
    typer.Option(
        rich_help_panel=_PANEL,
        help="From 0 to below 1: keep this share of the last step's direction, to arrive sooner. Try 0.9.",
    ),
]
NesterovOption = Annotated[
    bool, typer.Option("--nesterov", rich_help_panel=_PANEL, help="Nesterov's form of the momentum, often steadier.")
]
StopGradientOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=_PANEL, show_default=False,
        help="Stop early once no part of the gradient is larger than this, 0.001 say. [default: never]",
    ),
]  # fmt: skip
StopCostOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=_PANEL, show_default=False,
        help="Stop early once an iteration changes the cost by no more than this, 1e-5 say. [default: never]",
    ),
]  # fmt: skip
ClassWeightOption = Annotated[
    str,
    typer.Option(
        rich_help_panel=_PANEL, metavar="none|balanced|A,B",
        help="What a picture counts: all alike; both classes alike, however many pictures they have; or A for one of "
        "the rest and B for one of the wanted class.",
    ),
]  # fmt: skip
ValidationOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", rich_help_panel=_PANEL, show_default=False,
        help="Hold out this share of the training pictures, 0.2 say, and report cost and accuracy on them every 100 "
        "iterations; see --patience. [default: none]",
    ),
]  # fmt: skip
StartOption = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL", rich_help_panel=_PANEL, show_default=False,
        help="Go on from this run folder or model file (its weights; momentum starts afresh). [default: zeros]",
    ),
]  # fmt: skip
PatienceOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", rich_help_panel=_PANEL, show_default=False,
        help="Early stopping: end after N checks (one every 100 iterations) without a lower cost on the pictures of "
        "--validation, and keep the model of the lowest. Try 3. [default: never]",
    ),
]  # fmt: skip
