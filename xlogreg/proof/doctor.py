"""The machine as xlogreg sees it, and the proof on it that every implementation gives the same bits."""

import os
import platform
import warnings
from dataclasses import dataclass, field

import numpy as np

from .. import kernels
from ..arrays import Device, choose_device, count_gpus
from ..data.birds import load_birds
from ..data.task import as_columns, make_task
from ..errors import ConvergenceWarning, DeviceError, XlogregError
from ..logistic import descend_many
from ..neuron.options import SOLVERS, DescentOptions
from ..solvers.descent import history_sha256
from ..system.machine import processor_name
from ..system.version import __version__
from . import tutorial

# Long enough for every part of the arithmetic to take part, short enough to be over in a second.
ITERATIONS = 100
# The same of L-BFGS, on the same pictures: its evaluations, its options, and their digest.
EVALUATIONS = 40
LBFGS = DescentOptions(solver="lbfgs", l2=0.01)
GOLDEN_LBFGS_SHA256 = "b33f58912e89c2cee37eb36585ee95c6a8985e4b5b9ff6c4032f6967f57ae25b"


@dataclass(frozen=True)
class Proof:
    """One short training: on what, by which implementation, its digest (or why there is none), its speed, and by which
    solver."""

    device: str
    implementation: str
    digest: str
    golden: bool
    milliseconds_per_iteration: float
    problem: str = ""
    solver: str = "gd"


@dataclass(frozen=True)
class Examination:
    """What `xlogreg doctor` found."""

    xlogreg: str
    python: str
    platform: str
    processor: str
    processors: int
    blas: str
    gpus: list[str]
    notes: list[str] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether every implementation on every device gave the golden digest of each solver."""
        return bool(self.proofs) and all(proof.golden for proof in self.proofs)


def examine() -> Examination:
    """Look at the machine and train shortly on every device by every implementation that works there."""
    gpus, notes, broken = _gpus()
    task = make_task(load_birds(), "bird")
    x, y = as_columns(task.x_train, task.y_train)
    proofs = []
    for device in [choose_device("cpu"), *gpus]:
        with device.current():
            proofs += [_prove(device, name, x, y) for name in kernels.available(device.kind, device.xp)]
            needs = LBFGS.needs()
            proofs += [_prove(device, name, x, y, LBFGS) for name in kernels.available(device.kind, device.xp, needs)]
            notes += kernels.notes(device.xp)
    proofs += broken
    # Another division of the work, as other machines would divide it.
    for options in (None, LBFGS):
        proofs.append(_prove(choose_device("cpu"), "reference", x[:, ::-1], y[:, ::-1], options, chunk=97))
    proofs.sort(key=lambda proof: list(SOLVERS).index(proof.solver))
    return Examination(
        xlogreg=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        processor=processor_name(),
        processors=os.cpu_count() or 1,
        blas=_blas(),
        gpus=[str(gpu) for gpu in gpus],
        notes=notes,
        proofs=proofs,
    )


def _gpus() -> tuple[list[Device], list[str], list[Proof]]:
    """The GPUs that work, why there is none, and the proofs that fail for those that do not work."""
    found: list[Device] = []
    broken: list[Proof] = []
    try:
        count = count_gpus()
    except DeviceError as error:
        return found, [str(error)], broken
    for number in range(count):
        try:
            found.append(choose_device(f"gpu:{number}"))
        except DeviceError as error:
            broken.append(Proof(f"gpu:{number}", "none", "", False, 0.0, str(error)))
    return found, [] if count else ["This machine has no GPU that CuPy finds."], broken


def _prove(
    device: Device, implementation: str, x: np.ndarray, y: np.ndarray, options: DescentOptions | None = None,
    chunk: int | None = None,
) -> Proof:  # fmt: skip
    name = implementation if chunk is None else f"{implementation}, reordered"
    where = "cpu" if device.kind == "cpu" else f"gpu:{device.number}"
    descends = options is None
    solver = "gd" if options is None else options.solver
    rates, iterations = ([tutorial.LEARNING_RATE], ITERATIONS) if descends else (None, EVALUATIONS)
    golden = tutorial.GOLDEN_SHA256_100 if descends else GOLDEN_LBFGS_SHA256
    try:
        with device.current(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it is short
            result = descend_many(
                device.to_device(x), device.to_device(y), rates, iterations,
                implementation=implementation, chunk=chunk, options=options,
            )  # fmt: skip
    except XlogregError as error:
        return Proof(where, name, "", False, 0.0, str(error), solver)
    except Exception as error:  # a broken driver or library raises anything; the report must still come out whole
        return Proof(where, name, "", False, 0.0, f"{type(error).__name__}: {error}".splitlines()[0], solver)
    digest = history_sha256(result.history[:, 0])
    return Proof(where, name, digest, digest == golden, result.seconds / len(result.history) * 1e3, solver=solver)


def _blas() -> str:
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (TypeError, KeyError):  # NumPy before 1.26 only prints it
        return "unknown"
