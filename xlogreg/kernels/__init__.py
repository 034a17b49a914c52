"""The implementations of gradient descent: the reference and its fused twins, which give the same bits faster."""

import functools
import warnings
from importlib.util import find_spec
from typing import Any

from ..backend import namespace
from ..engine import FEATURES, DescentOptions, Engine
from ..errors import InputError
from ..reference import Reference

Array = Any

IMPLEMENTATIONS = ("auto", "reference", "fused")


# What the fused CPU kernel can do beyond the tutorial's training: names of `FEATURES`. For what it lacks `auto` takes
# the reference.
FUSED_SUPPORTS: frozenset[str] = frozenset(FEATURES)


def engine_for(
    implementation: str,
    rows: Array,
    sign: Array,
    w: Array,
    b: Array,
    rates: Array,
    chunk: int | None = None,
    *,
    weights: Array | None = None,
    options: DescentOptions | None = None,
) -> Engine:
    """The engine of that name, ready to run; `auto` takes the fastest that can do the work.

    `auto` falls back to the reference where the fused kernel cannot run (float features, another array module, an
    option that it lacks, Numba missing or broken); only for the last it warns, once. Arguments as those of `Reference`.

    Raises
    ------
    InputError
        There is no such implementation, or it was asked for by name and cannot do this work.
    """
    if implementation not in IMPLEMENTATIONS:
        raise InputError(f"There is no implementation {implementation!r}; choose {', '.join(IMPLEMENTATIONS)}.")
    xp = namespace(rows)
    options = options or DescentOptions()
    needs = options.needs(weights is not None)
    lacks = needs - FUSED_SUPPORTS
    unable = ""
    if rows.dtype != xp.uint8:
        unable = f"it takes uint8 pixels, not {rows.dtype} features"
    elif xp.__name__ != "numpy":
        unable = f"it takes NumPy arrays, not {xp.__name__} arrays"
    elif lacks:
        unable = f"it has no {' and no '.join(words for name, words in FEATURES.items() if name in lacks)} yet"
    elif implementation != "reference":
        unable = why_no_fused()
        if unable and implementation == "auto":
            _warn_once(unable)
    if implementation == "reference" or (implementation == "auto" and (unable or chunk is not None)):
        return Reference(rows, sign, w, b, rates, chunk, weights=weights, options=options)
    if unable:
        raise InputError(
            f"The fused kernel cannot be used: {unable}; choose reference or auto, which give the same bits."
        )
    if chunk is not None:
        raise InputError("The fused kernel chooses its own chunks; leave chunk out, or choose the reference.")
    from .cpu import FusedCPU

    engine: Engine = FusedCPU(rows, sign, w, b, rates, weights=weights, options=options)
    try:
        engine.prepare()
    except Exception as error:  # whatever Numba, LLVM or a full cache folder raise when the kernel is compiled
        unable = f"it does not compile here ({(str(error).splitlines() or [''])[0] or type(error).__name__})"
        if implementation == "auto":
            _warn_once(unable)
            return Reference(rows, sign, w, b, rates, weights=weights, options=options)
        raise InputError(
            f"The fused kernel cannot be used: {unable}; choose reference or auto, which give the same bits."
        ) from error
    return engine


def available(kind: str, needs: frozenset[str] = frozenset()) -> list[str]:
    """The implementations that work on this machine for a device of this kind (cpu or gpu) and can do what is needed.

    `needs` are names of `xlogreg.engine.FEATURES`, as `DescentOptions.needs` gives them.
    """
    return ["reference", "fused"] if kind == "cpu" and needs <= FUSED_SUPPORTS and not why_no_fused() else ["reference"]


def notes() -> list[str]:
    """Why an implementation is not available, one sentence each."""
    unable = why_no_fused()
    return (
        [f"The fused kernel cannot be used: {unable}; the reference gives the same bits more slowly."] if unable else []
    )


@functools.cache
def why_no_fused() -> str:
    """Why the fused CPU kernel cannot run on this machine; empty if it can."""
    if find_spec("numba") is None:
        return "Numba is not installed"
    try:
        import numba

        if numba.config.DISABLE_JIT:
            return "NUMBA_DISABLE_JIT is set"
        from . import cpu  # noqa: F401
    except Exception as error:  # a Numba that does not fit NumPy or the processor raises all kinds of errors at import
        return f"Numba does not work here ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return ""


def is_compiled() -> bool:
    """Whether the fused kernel was compiled before and is kept, as far as can be seen (True where it cannot run)."""
    if why_no_fused():
        return True
    from .cpu import compiled_before

    return compiled_before()


@functools.cache
def _warn_once(unable: str) -> None:
    warnings.warn(
        f"The fused kernel cannot be used: {unable}; training goes on with the reference, which gives the same bits "
        "more slowly.",
        RuntimeWarning,
        stacklevel=5,
    )
