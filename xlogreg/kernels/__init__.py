"""Fast twins of `neuron.reference`, equal to the bit: which there are here, which one a training takes, and why one
cannot be used."""

import functools
import logging
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..arrays import namespace
from ..errors import DeviceError, InputError
from ..neuron.objective import Objective
from ..neuron.options import CAPABILITIES
from ..neuron.reference import Reference
from ..system.checks import one_of
from ..system.text import given

Array = Any

_log = logging.getLogger("xlogreg")

IMPLEMENTATIONS = ("auto", "reference", "fused")
# The fused kernels by array module: where they are, and what they can do beyond the tutorial's training, names of
# `CAPABILITIES`.
_FUSED = {"numpy": ("cpu", "FusedCPU"), "cupy": ("cuda", "FusedCUDA")}
CAPABLE_OF: dict[str, frozenset[str]] = {
    "numpy": frozenset({"l2", "momentum", "nesterov", "gradient_tolerance", "class_weight", "classes"}),
    "cupy": frozenset(),
}  # fmt: skip


def objective_for(
    implementation: str,
    rows: Array,
    sign: Array,
    *,
    sample_weight: Array | None = None,
    l2: Array | None = None,
    classes: int = 1,
    needs: frozenset[str] = frozenset(),
    chunk: int | None = None,
) -> Objective:
    """The objective of that implementation, ready to be evaluated; `auto` takes the fastest that can do the work.

    NumPy arrays of pixels take the fused CPU kernel, CuPy arrays the fused CUDA kernels. `auto` falls back to the
    reference where the fused kernel cannot run (float features, another array module, an option that it lacks, Numba
    missing or broken, a GPU that is too old or does not take the kernels); only where it should have run, it warns,
    once.

    Parameters
    ----------
    rows, sign, sample_weight, l2, classes, chunk : as in `Reference`
    needs : names of `CAPABILITIES`, as `DescentOptions.needs` gives them

    Raises
    ------
    InputError
        There is no such implementation, or it was asked for by name and cannot do this work.
    DeviceError
        The GPU's memory does not hold what the fused kernels need.
    """
    if not one_of(implementation, IMPLEMENTATIONS):
        raise InputError(f"There is no implementation {given(implementation)}; choose {', '.join(IMPLEMENTATIONS)}.")
    xp = namespace(rows)
    needs = needs | {"classes"} if classes > 1 else needs
    lacks = needs - CAPABLE_OF.get(xp.__name__, frozenset())
    unable = ""
    if rows.dtype != xp.uint8:
        unable = f"it takes uint8 pixels, not {rows.dtype} features"
    elif not has_kernels(xp):
        unable = f"it takes NumPy or CuPy arrays, not {xp.__name__} arrays"
    elif lacks:
        unable = f"it has no {' and no '.join(words for name, words in CAPABILITIES.items() if name in lacks)} yet"
    elif implementation != "reference":
        unable = why_no_fused(xp)
        if unable and implementation == "auto":
            _warn_once(unable)
    arguments: dict[str, Any] = {"sample_weight": sample_weight, "l2": l2, "classes": classes}
    if implementation == "reference" or (implementation == "auto" and (unable or chunk is not None)):
        return Reference(rows, sign, chunk=chunk, **arguments)
    if unable:
        raise InputError(_cannot(unable))
    if chunk is not None:
        raise InputError("The fused kernel chooses its own chunks; leave chunk out, or choose the reference.")
    try:
        if xp.__name__ == "numpy" and not is_compiled():
            # Heard by default; the command line, which has words of its own for it, turns it off.
            _log.warning("xlogreg is %s: some twenty seconds", compiling())
        objective: Objective = _fused(xp)(rows, sign, **arguments)
        with objective.alone():
            objective.prepare()
    except (DeviceError, MemoryError):
        raise
    except Exception as error:  # whatever compilers, drivers or a full cache folder raise when a kernel is compiled
        unable = f"it does not compile or start here ({(str(error).splitlines() or [''])[0] or type(error).__name__})"
        if implementation == "auto":
            _warn_once(unable)
            return Reference(rows, sign, **arguments)
        raise InputError(_cannot(unable)) from error
    return objective


def _cannot(unable: str) -> str:
    return f"The fused kernel cannot be used: {unable}; choose reference or auto, which give the same bits."


def has_kernels(xp: Any) -> bool:
    return xp.__name__ == "numpy" or hasattr(xp, "RawModule")


def _fused(xp: Any) -> Any:
    """The class of the fused objective for arrays of this module; a stand-in for CuPy has CuPy's."""
    module, name = _FUSED.get(xp.__name__, _FUSED["cupy"])
    return getattr(import_module(f".{module}", __name__), name)


def available(kind: str, xp: Any = None, needs: frozenset[str] = frozenset()) -> list[str]:
    """The implementations that work for a device of this kind and can do what is needed.

    kind : cpu, or the current gpu, whose array module is `xp`
    needs : names of `xlogreg.neuron.options.CAPABILITIES`, as `DescentOptions.needs` gives them
    """
    if kind == "gpu" and (xp is None or not has_kernels(xp)):
        return ["reference"]
    lacks = needs - CAPABLE_OF["numpy" if kind == "cpu" else "cupy"]
    return ["reference"] if lacks or why_no_fused(xp) else ["reference", "fused"]


def notes(xp: Any = None) -> list[str]:
    """Why an implementation is not available, one sentence each; on the current GPU, if its array module is given."""
    unable = why_no_fused(xp)
    return (
        [f"The fused kernel cannot be used: {unable}; the reference gives the same bits more slowly."] if unable else []
    )


def why_no_fused(xp: Any = None) -> str:
    """Why the fused kernel cannot run on the CPU, or the current GPU, whose array module is `xp`; empty if it can."""
    if xp is None or xp.__name__ == "numpy":
        return _why_no_numba()
    from .cuda import why_not

    return why_not(xp)


@functools.cache
def _why_no_numba() -> str:
    if find_spec("numba") is None:
        return "Numba is not installed"
    try:
        with warnings.catch_warnings(record=True) as said:
            import numba
        for warning in said:
            # Of variables that it does not understand; with all of a traceback.
            warnings.warn((str(warning.message).splitlines() or [""])[0], warning.category, stacklevel=2)
        if numba.config.DISABLE_JIT:
            return "NUMBA_DISABLE_JIT is set"
        from . import cpu  # noqa: F401
    except InputError:  # of a kernel that was asked for by name
        raise
    except Exception as error:  # a Numba that does not fit NumPy or the processor raises all kinds of errors at import
        return f"Numba does not work here ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return ""


def is_compiled() -> bool:
    """Whether the fused kernel was compiled before and is kept, as far as can be seen (True where it cannot run)."""
    if why_no_fused():
        return True
    from .cpu import compiled_before

    return compiled_before()


def compiling() -> str:
    """What happens where it `is_compiled` not, in words."""
    from .cpu import kept_for_later

    again = "this once" if kept_for_later() else "as in every process: there is no folder to keep it in"
    return f"compiling the kernel, {again}"


@functools.cache
def _warn_once(unable: str) -> None:
    warnings.warn(
        f"The fused kernel cannot be used: {unable}; training goes on with the reference, which gives the same bits "
        "more slowly.",
        RuntimeWarning,
        stacklevel=5,
    )
