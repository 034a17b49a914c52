"""A stand-in for CuPy whose raw kernels run: the CUDA source, compiled as C++ with `emulator.h`, on this processor.

`module` is what the fused CUDA objective takes for cupy: the strict stand-in with devices, kernels and launches added.
A test sets the device's size, the order of the threads and the free memory.
"""

import ctypes
import functools
import mmap
import os
import platform
import shutil
import subprocess
import types
from pathlib import Path
from typing import Any

import numpy as np
import strict
from helpers import made_once

COMPILER = shutil.which(os.environ.get("CXX", "g++")) or ""
POINTER = ctypes.c_void_p
KERNELS = ("descend_in_tiles", "descend_in_one_read")

# A small device; `seed` is the order in which threads take turns.
state = types.SimpleNamespace(
    processors=4,
    shared=40_000,
    seed=0,
    launches=0,
    cooperative=True,
    capability="90",
    occupancy=1,
    free=2**40,
    current=0,
)

_ENTRY = """
static void** arguments;
#define GIVE(T, i) *(T*)arguments[i]
template <int N> static void call() {
    (N ? descend_in_one_read : descend_in_tiles)(
        GIVE(const u8*, 0), GIVE(const double*, 1), GIVE(double*, 2), GIVE(double*, 3), GIVE(const double*, 4),
        GIVE(double*, 5), GIVE(double*, 6), GIVE(double*, 7), GIVE(int*, 8), GIVE(u64*, 9), GIVE(u64*, 10),
        GIVE(i64, 11), GIVE(i64, 12), GIVE(i64, 13), GIVE(int, 14), GIVE(int, 15), GIVE(int, 16), GIVE(int, 17),
        GIVE(int, 18));
}
extern "C" int emulate(int kernel, unsigned grid, unsigned size, unsigned shared, u64 seed, void** given) {
    arguments = given;
    emulator::body = kernel ? call<1> : call<0>;
    return emulator::run(grid, size, shared, seed);
}
extern "C" void elementary(const double* v, double* exp, double* log, long long n) {
    for (long long i = 0; i < n; ++i) { exp[i] = exp_negative(-fabs(v[i])); log[i] = log1p_unit(exp[i]); }
}
extern "C" int loss_exponent(long long m, int k) { return loss_grid(m).exponents[k]; }
extern "C" double total(long long low, long long high) { return total_of(low, high); }
"""


@functools.cache
def library(code: str, tensor: bool = True) -> ctypes.CDLL:
    """The source as a library of this processor, with emulated tensor cores or dp4a."""
    code = f"#define TENSOR_CORES {int(tensor)}\n" + code
    text = Path(__file__).with_name("emulator.h").read_text(encoding="utf-8") + code + _ENTRY
    command = [
        COMPILER, "-std=c++17", "-O3", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing", "-w",
        "-shared", "-fPIC", "-x", "c++", "-",
    ]  # fmt: skip

    def compiled(path: Path) -> None:
        done = subprocess.run([*command, "-o", str(path)], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]

    version = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout
    loaded = ctypes.CDLL(str(made_once(f"{version}{platform.machine()}{command}{text}", compiled)))
    loaded.total.restype = ctypes.c_double
    loaded.total.argtypes = [ctypes.c_longlong, ctypes.c_longlong]
    return loaded


def _before_a_wall(array: np.ndarray) -> np.ndarray:
    """A copy whose end is the end of what may be touched: a kernel that reads or writes on is killed by the system."""
    page = mmap.PAGESIZE
    size = -(-(array.nbytes + 16) // page) * page
    memory = mmap.mmap(-1, size + page)
    whole = np.frombuffer(memory, np.uint8)
    # Pixels that are not aligned stay so.
    offset = size - array.nbytes - (array.ctypes.data % 16 if array.nbytes % 16 == 0 else 0)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + size), ctypes.c_size_t(page), 0) == 0
    copy = whole[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class RawKernel:
    """Launches like CuPy's; `kernel` is the function that a launch goes through."""

    max_dynamic_shared_size_bytes = 48 * 1024

    def __init__(self, code: str, name: str) -> None:
        self._library, self._name = library(code, state.capability >= "80"), name

    @property
    def kernel(self) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            self._launch(*arguments, **options)

        launch.ptr = self  # type: ignore[attr-defined]
        return launch

    def _launch(
        self, grid: tuple, block: tuple, args: tuple, shared_mem: int = 0, enable_cooperative_groups: bool = False
    ) -> None:
        assert enable_cooperative_groups, "the grid barrier needs a cooperative launch"
        assert grid[0] <= state.processors * state.occupancy, "a cooperative launch of more blocks than can be resident"
        assert block[0] % 32 == 0
        assert shared_mem <= min(self.max_dynamic_shared_size_bytes, state.shared)
        state.launches += 1
        values: list[Any] = []
        guarded = []
        for value in args:
            if isinstance(value, strict.StrictArray):
                assert value._values.flags.c_contiguous, "kernels ignore strides"
                guarded.append((value._values, _before_a_wall(value._values)))
                values.append(ctypes.c_void_p(guarded[-1][1].ctypes.data))
            else:
                assert isinstance(value, (np.int32, np.int64)), "kernels take numbers of a known size"
                values.append((ctypes.c_int32 if isinstance(value, np.int32) else ctypes.c_int64)(int(value)))
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        result = self._library.emulate(
            KERNELS.index(self._name), grid[0], block[0], shared_mem, ctypes.c_ulonglong(state.seed), pointers
        )
        assert result == 0, "a kernel wrote beyond its shared memory"
        for array, copy in guarded:
            if array.flags.writeable:
                array[...] = copy
            assert np.array_equal(array, copy, equal_nan=array.dtype == np.float64), "a kernel wrote to its input"


class RawModule:
    """Compiles like CuPy's."""

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        assert "--fmad=false" in options
        self._code = code

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self._code, name)


class Device:
    """The current device."""

    def __init__(self, number: int | None = None) -> None:
        self.id = state.current if number is None else number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "MultiProcessorCount": state.processors, "MaxSharedMemoryPerBlockOptin": state.shared,
            "CooperativeLaunch": int(state.cooperative),
        }  # fmt: skip

    compute_capability = property(lambda self: state.capability)

    def __enter__(self) -> "Device":
        self._before, state.current = state.current, self.id
        return self

    def __exit__(self, *_: object) -> None:
        state.current = self._before

    @property
    def mem_info(self) -> tuple[int, int]:
        return state.free, 2 * state.free

    def synchronize(self) -> None:
        pass


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class CUDADriverError(RuntimeError):
    """As CuPy's."""


def occupancy(kernel: Any, threads: int, shared: int) -> int:
    """As the driver's occupancyMaxActiveBlocksPerMultiprocessor."""
    assert isinstance(kernel, RawKernel)
    assert shared <= state.shared
    return state.occupancy


cuda = types.SimpleNamespace(
    Device=Device,
    memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    driver=types.SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=occupancy, CUDADriverError=CUDADriverError),
    runtime=types.SimpleNamespace(
        # 2 is memory of the device.
        pointerGetAttributes=lambda pointer: types.SimpleNamespace(type=2),
        CUDARuntimeError=CUDARuntimeError,
    ),
)


def get_default_memory_pool() -> Any:
    """As CuPy's: what it holds and does not use."""
    return types.SimpleNamespace(free_bytes=lambda: 0)
