"""A stand-in for CuPy that runs on NumPy and is as strict as a GPU: nothing crosses to the host by accident.

* `numpy.asarray` of a strict array raises, as it does for CuPy; only `.get()` goes to the host.
* Arithmetic with NumPy arrays raises TypeError; only strict arrays and Python numbers may take part.
* bool(), int() and float() of an array work, as they do in CuPy, but each is a synchronisation, and is counted.
* Only the functions that the core may use exist; all of them are in CuPy under the same name.
"""

import sys
import types
from typing import Any

import numpy as np

int32, int64, uint8, float32, float64, nan = np.int32, np.int64, np.uint8, np.float32, np.float64, np.nan

synchronisations = 0


def _synchronise() -> None:
    global synchronisations
    synchronisations += 1


def _raw(value: Any) -> Any:
    if isinstance(value, StrictArray):
        return value._values
    if isinstance(value, (bool, int, float)) and not isinstance(value, np.generic):
        return value
    raise TypeError(f"Unsupported type {type(value)} in an operation on device arrays")


def _wrap(values: Any) -> "StrictArray":
    return StrictArray(np.asarray(values))


class StrictArray:
    """Looks like a CuPy array."""

    __array_ufunc__ = None  # NumPy arrays must not take part from the left either

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        # On the current GPU, where a test gives this module a `cuda`.
        cuda = getattr(sys.modules[__name__], "cuda", None)
        self._on = 0 if cuda is None else cuda.Device().id

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return sys.modules[__name__]

    def get(self) -> np.ndarray:
        _synchronise()
        return self._values.copy()

    def _number(self) -> Any:
        _synchronise()
        return self._values

    def __bool__(self) -> bool:
        return bool(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        raise TypeError("iterating over a device array copies its elements one by one")

    shape = property(lambda self: self._values.shape)
    ndim = property(lambda self: self._values.ndim)
    dtype = property(lambda self: self._values.dtype)
    flags = property(lambda self: self._values.flags)
    # Only where a test gives this module a `cuda`.
    device = property(lambda self: sys.modules[__name__].cuda.Device(self._on))
    data = property(lambda self: types.SimpleNamespace(ptr=self._values.ctypes.data))
    T = property(lambda self: _wrap(self._values.T))

    def __getitem__(self, key: Any) -> "StrictArray":
        return _wrap(self._values[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[key] = _raw(value)

    def astype(self, dtype: Any, copy: bool = True) -> "StrictArray":
        return _wrap(self._values.astype(dtype, copy=copy))

    def sum(self, axis: int | None = None, dtype: Any = None) -> "StrictArray":
        return _wrap(self._values.sum(axis=axis, dtype=dtype))

    def all(self) -> "StrictArray":
        return _wrap(self._values.all())

    def fill(self, value: float) -> None:
        self._values.fill(value)

    def reshape(self, *shape: int) -> "StrictArray":
        return _wrap(self._values.reshape(*shape))


def _add_operators() -> None:
    names = (
        "add",
        "sub",
        "mul",
        "truediv",
        "matmul",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "and",
        "or",
        "rshift",
        "lshift",
    )
    for name in names:
        for method in (f"__{name}__", f"__r{name}__", f"__i{name}__"):
            if not hasattr(np.ndarray, method):
                continue

            def operator(self: StrictArray, other: Any, method: str = method) -> Any:
                result = getattr(self._values, method)(_raw(other))
                if method.startswith("__i"):
                    return self
                return _wrap(result)

            setattr(StrictArray, method, operator)
    for name in ("neg", "abs", "invert"):
        method = f"__{name}__"
        setattr(StrictArray, method, lambda self, method=method: _wrap(getattr(self._values, method)()))


_add_operators()


def asarray(values: Any, dtype: Any = None) -> StrictArray:
    if isinstance(values, StrictArray):
        return values if dtype is None else values.astype(dtype, copy=False)
    return _wrap(np.asarray(values, dtype=dtype))


def array(values: Any, dtype: Any = None) -> StrictArray:
    return _wrap(np.array(values._values if isinstance(values, StrictArray) else values, dtype=dtype))


def _function(name: str) -> Any:
    numpy_function = getattr(np, name)

    def function(*arguments: Any, **options: Any) -> StrictArray:
        return _wrap(numpy_function(*map(_raw, arguments), **options))

    function.__name__ = name
    return function


abs, maximum, max, min, rint, where, ldexp, isfinite, ascontiguousarray, exp, log = map(
    _function, ("abs", "maximum", "max", "min", "rint", "where", "ldexp", "isfinite", "ascontiguousarray", "exp", "log")
)


def frexp(values: StrictArray) -> tuple[StrictArray, StrictArray]:
    mantissa, exponent = np.frexp(_raw(values))
    return _wrap(mantissa), _wrap(exponent)


def stack(arrays: list[StrictArray], axis: int = 0) -> StrictArray:
    return _wrap(np.stack([_raw(array) for array in arrays], axis=axis))


def argmax(x: StrictArray, axis: int) -> StrictArray:
    return _wrap(np.argmax(_raw(x), axis=axis))


def concatenate(arrays: list[StrictArray], axis: int = 0) -> StrictArray:
    return _wrap(np.concatenate([_raw(array) for array in arrays], axis=axis))


def broadcast_to(values: StrictArray, shape: tuple[int, ...]) -> StrictArray:
    return _wrap(np.broadcast_to(_raw(values), shape))


def zeros(shape: Any, dtype: Any) -> StrictArray:
    return _wrap(np.zeros(shape, dtype=dtype))


def ones(shape: Any, dtype: Any) -> StrictArray:
    return _wrap(np.ones(shape, dtype=dtype))


def empty(shape: Any, dtype: Any) -> StrictArray:
    # A device's fresh memory holds anything; NaN shows whoever reads it before writing.
    return _wrap(np.full(shape, np.nan if np.issubdtype(dtype, np.floating) else 0, dtype=dtype))


def full(shape: Any, value: float, dtype: Any) -> StrictArray:
    return _wrap(np.full(shape, value, dtype=dtype))
