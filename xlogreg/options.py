"""The options that the commands share, with the help that newcomers read."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class BalanceOption(StrEnum):
    first = "first"
    random = "random"
    none = "none"


class ImplementationOption(StrEnum):
    auto = "auto"
    reference = "reference"
    fused = "fused"


class FeaturesOption(StrEnum):
    pixels = "pixels"
    grey = "grey"
    hog = "hog"


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
    typer.Option(help="What to look at: the pixels, their grey values, or histograms of oriented gradients."),
]
IterationsOption = Annotated[int, typer.Option(help="Steps of gradient descent.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, gpu or gpu:N; all give the same bits.")]
ImplementationArgument = Annotated[ImplementationOption, typer.Option(help="How to compute; all give the same bits.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder for the results, new or empty. [default: runs/NAME-N]")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
ModelArgument = Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.")]
