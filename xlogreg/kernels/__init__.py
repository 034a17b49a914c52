"""The implementations of gradient descent: the reference and its fused twins, which give the same bits faster."""

from typing import Any

from ..descent import Engine
from ..errors import InputError
from ..reference import Reference

Array = Any

IMPLEMENTATIONS = ("auto", "reference")


def available(kind: str) -> list[str]:
    """The implementations that work on this machine for a device of this kind (cpu or gpu), fastest last."""
    return ["reference"]


def notes() -> list[str]:
    """Why an implementation is not available, one sentence each."""
    return []


def engine_for(
    implementation: str, rows: Array, sign: Array, w: Array, b: Array, rates: Array, chunk: int | None = None
) -> Engine:
    """The engine of that name, ready to run; `auto` takes the fastest that can do the work."""
    if implementation not in IMPLEMENTATIONS:
        raise InputError(f"There is no implementation {implementation!r}; choose {', '.join(IMPLEMENTATIONS)}.")
    return Reference(rows, sign, w, b, rates, chunk)
