"""What all tests share: where the real data are, and which array modules the core is tested on."""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before NumPy is loaded: while other tests have the processors, threads of BLAS wait for each other, and a product
# takes 20 times as long. Tests of their number set it themselves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import strict
from helpers import Result, forget_old
from hypothesis import settings

from xlogreg.arrays import Device, choose_device
from xlogreg.commands import cli
from xlogreg.errors import DeviceError
from xlogreg.runs import plots

# Here and in what the tests start: to compile the package's text anew takes longer than many a test.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Deterministic, and never failing because a shared machine was slow.
settings.register_profile("xlogreg", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("xlogreg")
# A shell lets what it starts in the background ignore Ctrl-C, nohup the end of a terminal, and so would all that the
# tests start.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_sessionstart() -> None:
    forget_old()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with cifar-10-batches-py/ and eagle.jpeg."""
    folder = os.environ.get("XLOGREG_TEST_DATA")
    if not folder:
        pytest.skip("XLOGREG_TEST_DATA is not set: no original CIFAR-10 batches to test on")
    path = Path(folder).resolve()
    assert (path / "cifar-10-batches-py" / "data_batch_1").is_file(), f"no CIFAR-10 batches in {path}"
    return path


@pytest.fixture
def run(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run the command line in this process, in a fresh folder; `stdin` is its standard input.

    The pictures of a run are drawn only in tests that are marked `plots`.
    """
    if not request.node.get_closest_marker("plots"):
        request.getfixturevalue("no_plots")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLOGREG_DATA", str(tmp_path / "cache"))

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["xlogreg", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = 0
        try:
            cli.main()
        except SystemExit as caught:
            code = int(caught.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures of a run, which take longer than all the rest: for tests that do not look at them."""
    for name in ("plot_run", "plot_predictions", "plot_cost_histories", "plot_own_picture"):
        monkeypatch.setattr(plots, name, lambda *_: None)


def _gpu() -> Device:
    try:
        return choose_device("gpu")
    except DeviceError as error:
        # benchmarks/on_gpu.sh wants failures where everybody else wants to get on without a GPU.
        if os.environ.get("XLOGREG_NEED_GPU"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gpu() -> Device:
    """The first GPU; for tests that are marked as gpu."""
    return _gpu()


# Moves NumPy arrays to the array module under test.
ARRAY_MODULES: dict[str, Callable[[], Callable[[np.ndarray], Any]]] = {
    "numpy": lambda: lambda array: array,
    "strict": lambda: strict.asarray,
    "cupy": lambda: _gpu().xp.asarray,
}


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def to_xp(request: pytest.FixtureRequest) -> Callable[[np.ndarray], Any]:
    """A function that moves a NumPy array to the array module under test."""
    return ARRAY_MODULES[request.param]()
