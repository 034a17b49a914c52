"""`xlogreg benchmark`: the speed of training on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..system.text import brief, given
from .options import JsonOption
from .shared import print_json


def benchmark(
    peers: Annotated[
        bool, typer.Option("--peers", help="Compare with JAX, PyTorch, scikit-learn, as far as installed.")
    ] = False,
    optimum: Annotated[
        bool, typer.Option("--optimum", help="Measure the time to the optimum (L-BFGS) instead; 1900, 10000, 50000.")
    ] = False,
    pictures: Annotated[
        list[int] | None, typer.Option(help="Only these sizes: 1900, 10000, 50000, 200000. Repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; the median is reported.")] = 7,
    device: Annotated[
        str, typer.Option(help="cpu, or gpu or gpu:N: the peers that run there, all in one table. One, not both.")
    ] = "cpu",
    data: Annotated[
        Path | None,
        typer.Option(help="With --optimum: CIFAR-10's archive or folder. [default: the fetched one, else synthetic]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for peers.json, peers.md and peers.png, or optimum.json ..")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the speed of training on this machine, beside peers, with every answer checked first."""
    from ..arrays import choose_device
    from ..benchmarking.contestants import contestants_on
    from ..benchmarking.problems import SIZES, SIZES_ON_GPU
    from ..benchmarking.report import markdown, write_report
    from ..benchmarking.rounds import compete, joined
    from . import console

    if optimum:
        return _optimum(peers, pictures, rounds, device, data, out, as_json)
    if data is not None:
        raise InputError("--data goes with --optimum; the other benchmark has its own pictures.")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "gpu") or (number and not (kind == "gpu" and number.isdecimal() and len(number) < 10)):
        raise InputError(f"There is no device {brief(device)!r} to measure; choose cpu, gpu or gpu:N.")
    if number:
        _let_all_see_only(int(number))
    device = kind
    choose_device(device)
    known = {problem.pictures: problem for problem in (SIZES_ON_GPU if device == "gpu" else SIZES)}
    _check_sizes(pictures, list(known))
    problems = [known[size] for size in pictures or (known if peers else [1900, 10_000])]
    names = None if peers else [contestant.name for contestant in contestants_on(device) if contestant.ours]
    results: dict[str, Any] = {}
    for problem in problems:
        found = compete([problem], names, rounds, lambda step: console.err.print(step, markup=False), device)
        results = joined(results, found)
        if out is not None:
            # After each size: what comes next may take too long for whoever waits.
            write_report(out, results)
    _tell(results, markdown, as_json)


def _optimum(
    peers: bool,
    pictures: list[int] | None,
    rounds: int,
    device: str,
    data: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from ..benchmarking.optimum import QUESTIONS, compete
    from ..benchmarking.optimum_report import markdown, write_report
    from . import console

    if device != "cpu":
        raise InputError("The time to the optimum is measured on the cpu only, so far; leave --device out.")
    known = list(dict.fromkeys(question.pictures for question in QUESTIONS))
    _check_sizes(pictures, known)
    results: dict[str, Any] = {}
    for question in QUESTIONS:
        if question.pictures in (pictures or (known if peers else known[:2])):
            found = compete([question], peers, rounds, lambda step: console.err.print(step, markup=False), data)
            results = {**found, "questions": [*results.get("questions", []), *found["questions"]]}
            if out is not None:
                # After each question: what comes next may take too long for whoever waits.
                write_report(out, results)
    _tell(results, markdown, as_json)


def _check_sizes(pictures: list[int] | None, known: list[int]) -> None:
    for size in pictures or []:
        if size not in known:
            raise InputError(
                f"There is no benchmark of {given(size)} pictures; choose from {', '.join(map(str, known))}."
            )


def _tell(results: dict[str, Any], markdown: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    if as_json:
        print_json(results)
    else:
        print(markdown(results), end="")


def _let_all_see_only(number: int) -> None:
    """Have all libraries, in the contestants' processes too, take this GPU for the only one; before CUDA starts."""
    import os

    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = seen[number] if number < len(seen) and seen[0] else str(number)
