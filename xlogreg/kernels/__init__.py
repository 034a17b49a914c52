"""Fast twins of `neuron.reference`, equal to the bit: which there are here, and why one cannot be used."""

import functools
import warnings
from importlib.util import find_spec
from typing import Any

from ..errors import InputError

Array = Any


# What the fused kernels can do beyond the tutorial's training, by array module: options of the descent.
CAPABLE_OF: dict[str, frozenset[str]] = {
    "numpy": frozenset({"l2", "momentum", "nesterov", "gradient_tolerance", "class_weight"}), "cupy": frozenset()
}  # fmt: skip


def has_kernels(xp: Any) -> bool:
    return xp.__name__ == "numpy" or hasattr(xp, "RawModule")


def fused(xp: Any) -> Any:
    """The class of the fused engine for arrays of this module."""
    if xp.__name__ == "numpy":
        from .cpu import FusedCPU

        return FusedCPU
    from .cuda import FusedCUDA

    return FusedCUDA


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
def warn_once(unable: str) -> None:
    warnings.warn(
        f"The fused kernel cannot be used: {unable}; training goes on with the reference, which gives the same bits "
        "more slowly.",
        RuntimeWarning,
        stacklevel=5,
    )
