"""What a GPU can do at best: copy bandwidth and grid barriers. Nothing here has a meaning without one."""

from typing import Any

import numpy as np

from ..arrays import Device, choose_device
from ..kernels import cuda
from ..system.machine import processor_name
from .limits import Limits, shortest

_BARRIERS = 4000


def measure_gpu(rounds: int = 7) -> Limits:
    """copy_gb_s : read and written by a copy on the device; barriers_us : two grid barriers, the least that an
    iteration needs, in a kernel that does nothing else; multiprocessors."""
    device = choose_device("gpu")
    xp, processors = device.xp, cuda.device_limits(device.xp).processors
    copy = _copy(device, rounds)
    # The contestants, in processes of their own, need the memory.
    xp.get_default_memory_pool().free_all_blocks()
    kernel = xp.RawModule(code=cuda.source(), options=cuda.OPTIONS).get_function("only_barriers")
    counter = xp.zeros(1, dtype=xp.uint32)

    def wait() -> None:
        counter.fill(0)
        kernel.kernel(
            (processors,), (cuda.TILES_THREADS,), (counter, np.int32(_BARRIERS)), enable_cooperative_groups=True
        )
        device.synchronise()

    barriers = 2 * shortest(wait, rounds) / _BARRIERS
    runtime = xp.cuda.runtime
    software = f"driver for CUDA {_cuda(runtime.driverGetVersion())}, CUDA {_cuda(runtime.runtimeGetVersion())}"
    processor = f"{device.name} ({software}) in a machine with {processor_name()}"
    return limits(processor, copy, barriers, processors)


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def limits(processor: str, copy: float, barriers: float, processors: int) -> Limits:
    """copy : GB/s; barriers : seconds of two."""
    return Limits(
        processor,
        {"copy_gb_s": copy, "barriers_us": barriers * 1e6, "multiprocessors": processors},
        lambda pixels: {
            "one read of the pixels at copy bandwidth": pixels / (copy * 1e6), "two grid barriers": barriers * 1e3
        },
    )  # fmt: skip


def _copy(device: Device, rounds: int) -> float:
    """GB/s read and written by a copy on the device."""
    xp: Any = device.xp
    size = min(2**32, int(xp.cuda.Device().mem_info[0]) // 4) // 8
    source, target = xp.ones(size, dtype=xp.uint64), xp.empty(size, dtype=xp.uint64)

    def copy() -> None:
        xp.copyto(target, source)
        device.synchronise()

    device.synchronise()
    return 2 * 8 * size / shortest(copy, rounds) / 1e9
