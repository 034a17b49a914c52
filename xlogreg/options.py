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


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="birds (built in), cifar10 (see `xlogreg fetch`), or a CIFAR-10 archive, folder or batch.",
    ),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="A CIFAR-10 archive or folder of your own, for `cifar10`.")
]
PositiveOption = Annotated[str, typer.Option(help="The class to recognise, by name or number.")]
BalanceArgument = Annotated[
    BalanceOption,
    typer.Option(help="Pictures of the rest: as many, the first in the file (tutorial); as many, drawn by seed; all."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the shuffle and the draw.")]
TestSizeOption = Annotated[
    float | None,
    typer.Option(help="Pictures held back for testing: a number, or a share below 1. [default: 164 in 2064]"),
]
IterationsOption = Annotated[int, typer.Option(help="Steps of gradient descent.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, gpu or gpu:N; all give the same bits.")]
ImplementationArgument = Annotated[ImplementationOption, typer.Option(help="How to compute; all give the same bits.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder for the results, new or empty. [default: runs/NAME-N]")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
ModelArgument = Annotated[Path, typer.Argument(help="A run folder, or its model.safetensors.")]
