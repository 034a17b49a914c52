"""NumPy or CuPy: which array module an array belongs to, which device to train on, and the way there and back.

The only module that imports cupy, and only when a GPU is asked for or looked for.
"""

import contextlib
import functools
import importlib
import inspect
import os
import re
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from .errors import DeviceError
from .system.checks import one_of, unmasked
from .system.files import own_temporary_folder
from .system.machine import processor_name
from .system.text import given

Array = Any
P = ParamSpec("P")
R = TypeVar("R")

_INSTALL_ADVICE = (
    "install CuPy for your CUDA version (pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]'), "
    "or train with --device cpu, which gives the same bits"
)


def namespace(*arrays: Array) -> Any:
    """The array module (numpy, cupy) that all `arrays` belong to.

    Raises
    ------
    DeviceError
        Arrays of different modules were mixed: nothing is ever copied between devices behind your back.
    """
    # All-NumPy is by far the most frequent case, and this runs in the innermost functions.
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    modules = {id(module): module for module in map(_module_of, arrays)}
    if len(modules) > 1:
        names = " and ".join(sorted(module.__name__ for module in modules.values()))
        raise DeviceError(
            f"Arrays of {names} are mixed; move them all to one device first (xlogreg.arrays: to_device, to_host)."
        )
    return next(iter(modules.values()))


def _module_of(array: Array) -> Any:
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    if type(array).__module__.partition(".")[0] == "cupy":
        return importlib.import_module("cupy")
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    raise DeviceError(f"Expected a NumPy or CuPy array, not {type(array).__name__}; convert it with numpy.asarray.")


def on_its_device(function: Callable[P, R]) -> Callable[P, R]:
    """Runs a function on the GPU that its arrays are on, whichever is current; what CUDA reports is a DeviceError.

    NumPy's masked arrays are refused, and its other kinds of arrays (matrices, say) are plain ones to the function.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        call = signature.bind(*args, **options)
        call.arguments = {name: unmasked(value, name) for name, value in call.arguments.items()}
        arrays: list[Any] = [value for value in call.arguments.values() if _is_on_a_gpu(value)]
        if not arrays:
            return function(*call.args, **call.kwargs)
        device = arrays[0].device
        for array in arrays:
            if array.device != device:
                raise DeviceError(
                    f"Arrays of gpu:{device.id} and gpu:{array.device.id} are mixed; move them all to one device first."
                )
        cuda = namespace(arrays[0]).cuda
        try:
            with device:
                return function(*call.args, **call.kwargs)
        except cuda.memory.OutOfMemoryError as error:
            raise DeviceError(
                f"The memory of gpu:{device.id} is full ({error}); train on fewer pictures, with fewer models at once "
                "or with --device cpu."
            ) from error
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            raise DeviceError(
                f"gpu:{device.id} stopped working ({error}); look at it with nvidia-smi, or train with --device cpu, "
                "which gives the same bits."
            ) from error

    return run


def _is_on_a_gpu(value: Any) -> bool:
    is_array = type(value).__module__.partition(".")[0] == "cupy" or hasattr(value, "__array_namespace__")
    return is_array and hasattr(getattr(value, "device", None), "__enter__") and hasattr(namespace(value), "cuda")


def to_host(array: Array) -> np.ndarray:
    """A NumPy array with the values of `array`; waits for the device."""
    if isinstance(array, np.ndarray):
        return array
    return array.get() if hasattr(array, "get") else np.asarray(array)


# What trainings need beside their pixels: sums, weights, chunks of the plain code.
_RESERVE = 2**31
_HOST_MEMORY = 1  # cudaMemoryTypeHost
_PORTABLE_AND_MAPPED = 1 | 2  # of cudaHostRegister
# Larger arrays go to a GPU in chunks of so many bytes.
_CHUNK = 2**25


def room_for(xp: Any, size: int) -> bool:
    """Whether so many bytes fit into the current GPU's memory and leave room for the rest of a training."""
    free = int(xp.cuda.Device().mem_info[0]) + int(xp.get_default_memory_pool().free_bytes())
    return size <= free - min(_RESERVE, free // 4)


def in_host_memory(array: Array) -> bool:
    """Whether a GPU's array is in the host's memory: see `Device.to_host_memory`."""
    return namespace(array).cuda.runtime.pointerGetAttributes(array.data.ptr).type == _HOST_MEMORY


@dataclass(frozen=True)
class Device:
    """A place to train.

    Attributes
    ----------
    kind : "cpu" or "gpu"
    name : what the machine calls it
    xp : the array module, numpy or cupy
    number : which GPU, None for the CPU
    note : why this device, if that is worth telling ("no GPU found: ...")
    """

    kind: str
    name: str
    xp: Any
    number: int | None = None
    note: str = ""

    def __str__(self) -> str:
        return f"gpu:{self.number} ({self.name})" if self.kind == "gpu" else f"cpu ({self.name})"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this the device that new arrays and kernels go to."""
        if self.kind == "gpu":
            with self.xp.cuda.Device(self.number):
                yield
        else:
            yield

    def to_device(self, array: np.ndarray) -> Array:
        """The NumPy array on this device: a copy, or the array itself.

        Pixels (uint8) that would nearly fill a GPU's memory stay in the host's, in page-locked memory, from where the
        GPU reads them whenever a kernel asks for them, as slowly as its connection is; to users it is the same array.

        Raises
        ------
        DeviceError
            There is no room in either memory.
        """
        if self.kind == "cpu":
            return array
        if array.flags.f_contiguous and not array.flags.c_contiguous:
            return self.to_device(array.T).T
        pixels = array.dtype == np.uint8
        with self.current():
            if not pixels or room_for(self.xp, array.nbytes):
                with contextlib.suppress(self.xp.cuda.memory.OutOfMemoryError):
                    return self._copied(array)
            if pixels:
                with contextlib.suppress(self.xp.cuda.runtime.CUDARuntimeError):
                    there = self.to_host_memory(array)
                    warnings.warn(
                        f"{self} has no room for {array.nbytes / 1e9:.1f} GB of pixels, so they stay in the host's "
                        "memory and it reads them from there in every iteration: slower, with the same bits.",
                        RuntimeWarning, stacklevel=2,
                    )  # fmt: skip
                    return there
        raise DeviceError(
            f"{array.nbytes / 1e9:.1f} GB do not fit into the memory of {self}, nor into the host's memory that it can "
            "read; train on fewer pictures or with --device cpu."
        )

    def _copied(self, array: np.ndarray) -> Array:
        """A copy in the GPU's memory. CuPy alone would first copy the whole of it to page-locked memory."""
        if array.nbytes > _CHUNK and array.flags.c_contiguous:
            with contextlib.suppress(self.xp.cuda.runtime.CUDARuntimeError):  # no page-locked memory: CuPy's own way
                return self._copied_in_chunks(array)
        return self.xp.asarray(array)

    def _copied_in_chunks(self, array: np.ndarray) -> Array:
        """Two buffers in turn: one is filled while the device takes the other."""
        cuda = self.xp.cuda
        copy = self.xp.empty(array.shape, dtype=array.dtype)
        source, target = array.reshape(-1), copy.reshape(-1)
        step = _CHUNK // array.itemsize
        stream = cuda.get_current_stream()
        buffers = [np.frombuffer(self._page_locked(_CHUNK), dtype=array.dtype) for _ in range(2)]
        taken = [cuda.Event() for _ in buffers]
        for i, start in enumerate(range(0, len(source), step)):
            part = source[start : start + step]
            buffer, event = buffers[i % 2][: len(part)], taken[i % 2]
            event.synchronize()
            buffer[:] = part
            target[start : start + len(part)].set(buffer, stream=stream)
            event.record(stream)
        stream.synchronize()
        return copy

    def _page_locked(self, size: int) -> Any:
        """Memory of the host that the device reads by itself; no pool holds it when nobody else does."""
        return self.xp.cuda.PinnedMemoryPointer(self.xp.cuda.PinnedMemory(size), 0)

    def to_host_memory(self, array: np.ndarray) -> Array:
        """An array of this GPU whose elements are in page-locked memory of the host.

        The array itself is page-locked where that is possible, and must stay as it is while it is used; else it is
        copied.
        """
        cuda = self.xp.cuda
        memory: Any = None
        # All 64-bit systems have one address space for both memories, but not all for memory that is locked later.
        if array.flags.c_contiguous and cuda.Device(self.number).attributes.get("CanUseHostPointerForRegisteredMem"):
            with contextlib.suppress(cuda.runtime.CUDARuntimeError):  # read-only, a file's, or locked before
                memory = _Locked(array, cuda)
        if memory is None:
            memory = self._page_locked(array.nbytes)
            np.frombuffer(memory, dtype=array.dtype, count=array.size).reshape(array.shape)[...] = array
        # The array keeps `memory` alive.
        pointer = cuda.MemoryPointer(cuda.UnownedMemory(memory.ptr, array.nbytes, memory, self.number), 0)
        return self.xp.ndarray(array.shape, dtype=array.dtype, memptr=pointer)

    def synchronise(self) -> None:
        """Wait until everything asked of this device is done; before and after anything is timed."""
        if self.kind == "gpu":
            self.xp.cuda.Device(self.number).synchronize()


class _Locked:
    """Keeps an array alive and page-locked."""

    def __init__(self, array: np.ndarray, cuda: Any) -> None:
        self.ptr = array.ctypes.data
        cuda.runtime.hostRegister(self.ptr, array.nbytes, _PORTABLE_AND_MAPPED)
        # At the end of the process the system does it.
        weakref.finalize(self, _unlock, array, cuda, cuda.Device()).atexit = False


def _unlock(array: np.ndarray, cuda: Any, device: Any) -> None:
    """When nothing on the GPU that reads the array is under way any more, whichever is current now."""
    with contextlib.suppress(cuda.runtime.CUDARuntimeError), device:
        cuda.runtime.deviceSynchronize()
    with contextlib.suppress(cuda.runtime.CUDARuntimeError):
        cuda.runtime.hostUnregister(array.ctypes.data)


def choose_device(wanted: str = "auto") -> Device:
    """The device for `auto`, `cpu`, `gpu` or `gpu:N`.

    `auto` takes the first GPU that works and falls back to the CPU, saying why in `Device.note`.

    Raises
    ------
    DeviceError
        The GPU that was asked for is missing, or the word is none of these.
    """
    if one_of(wanted, ("cpu", "auto")):
        return _cpu() if wanted == "cpu" else _first_that_works()
    if isinstance(wanted, str) and (match := re.fullmatch(r"gpu(?::(\d{1,9}))?", wanted, re.ASCII)):
        return _gpu(int(match[1] or 0))
    raise DeviceError(f"There is no device {given(wanted)}; choose auto, cpu, gpu or gpu:N (the N-th GPU, from 0).")


def _cpu(note: str = "") -> Device:
    return Device("cpu", processor_name() + ("; no GPU found" if note else ""), np, note=note)


def _first_that_works() -> Device:
    try:
        problems = []
        for number in range(count_gpus()):
            try:
                return _gpu(number)
            except DeviceError as error:
                problems.append(str(error))
    except DeviceError as error:
        problems = [str(error)]
    return _cpu(note=problems[0] if problems else "No GPU can be used: CuPy finds none.")


def count_gpus() -> int:
    """How many GPUs there are, working or not.

    Raises
    ------
    DeviceError
        CuPy is missing or does not load, or the driver does not answer.
    """
    cupy = _cupy()
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        raise _not_usable(error) from error


def _cupy() -> Any:
    try:
        # Some versions look for it when they are loaded, others when they compile.
        if "cupy" in sys.modules or find_spec("cupy") is not None:
            _find_a_kernel_cache()
        return importlib.import_module("cupy")
    except Exception as error:  # a broken CUDA installation raises all kinds of errors at import
        why = "CuPy is not installed" if isinstance(error, ModuleNotFoundError) else f"CuPy does not load ({error})"
        raise DeviceError(f"No GPU can be used: {why}; {_INSTALL_ADVICE}.") from error


def _not_usable(error: Exception) -> DeviceError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return DeviceError(f"No GPU can be used: CuPy reports {first_line!r}; {_INSTALL_ADVICE}.")


def _gpu(number: int) -> Device:
    count, cupy = count_gpus(), _cupy()
    if number >= count:
        raise DeviceError(f"There is no gpu:{number}: this machine has {count} GPU(s), numbered from 0.")
    try:
        # A driver that is too old shows itself in the first computation only.
        with cupy.cuda.Device(number):
            if int(cupy.arange(4).sum()) != 6:
                raise DeviceError(f"gpu:{number} computes wrong sums; check its driver.")
            name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
    except DeviceError:
        raise
    except Exception as error:
        raise _not_usable(error) from error
    return Device("gpu", name, cupy, number)


def _find_a_kernel_cache() -> None:
    """CuPy fails where it cannot keep compiled kernels; then they are kept among the temporary files."""
    if not os.environ.get("CUPY_CACHE_DIR"):
        os.environ.pop("CUPY_CACHE_DIR", None)  # an empty name is none to CuPy either, but it would use it
    # Without a home, the name keeps its ~.
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or os.path.expanduser("~/.cupy/kernel_cache"))
    # By these functions, which raise nothing where a folder above may not be searched.
    existing = next((path for path in (folder, *folder.parents) if os.path.exists(path)), folder)
    if folder.parts[:1] != ("~",) and os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK):
        return
    with contextlib.suppress(OSError):
        os.environ["CUPY_CACHE_DIR"] = own_temporary_folder()
        if "cupy" in sys.modules:
            # Somebody else loaded it, and it may have made up its mind about the folder.
            os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
