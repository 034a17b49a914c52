"""The CUDA source compiles for every supported GPU, without one: NVRTC from the package registry needs no driver."""

import ctypes
import functools
import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from helpers import made_once

from xlogreg.kernels import cuda

CAPABILITIES = (75, 80, 86, 89, 90, 100, 120)


@functools.cache
def nvrtc() -> ctypes.CDLL:
    try:
        files = metadata.files("nvidia-cuda-nvrtc") or []
    except metadata.PackageNotFoundError:
        pytest.skip("nvidia-cuda-nvrtc is not installed; it exists for Linux and Windows only")
    path = next(Path(str(file.locate())) for file in files if re.fullmatch(r"libnvrtc\.so\.\d+", Path(str(file)).name))
    return ctypes.CDLL(str(path))


@functools.cache
def compiled(capability: int) -> tuple[str, str]:
    """(PTX, the assembler's log) for a GPU of this capability, compiled as CuPy does."""
    nvrtc()
    source = cuda.source()
    options = [*cuda.OPTIONS, "-ftz=true", f"--gpu-architecture=sm_{capability}", "--ptxas-options=-v"]

    def make(path: Path) -> None:
        path.write_text(json.dumps(_compile(source.encode(), options)))

    version = metadata.version("nvidia-cuda-nvrtc")
    ptx, log = json.loads(made_once(f"nvrtc {version} {options}\n{source}", make).read_text())
    return ptx, log


def _compile(source: bytes, options: list[str]) -> tuple[str, str]:
    library = nvrtc()
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"cuda.cu", 0, None, None) == 0
    result = library.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*[word.encode() for word in options])
    )
    log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
    assert result == 0, log
    ptx = _text(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program)
    size = ctypes.c_size_t()
    assert library.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 10_000
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx, log


def _text(size_of: Any, get: Any, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    assert size_of(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert get(program, text) == 0
    return text.value.decode()


def functions(ptx: str) -> dict[str, str]:
    """The text of each kernel."""
    parts = re.split(r"\.entry (\w+)\(", ptx)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_ptx_and_machine_code(capability: int) -> None:
    ptx, log = compiled(capability)
    # A contracted product would give other bits than the reference.
    assert not re.search(r"\bfma\.\w+\.f(64|32)", ptx)
    assert not re.search(r"\bmad\.\w+\.f(64|32)", ptx)
    # ptxas may contract what has no rounding of its own.
    assert not re.search(r"\b(add|sub|mul)\.f64\b", ptx)
    # Nor is there any rounding but to the nearest, any approximation, or float32.
    assert not re.search(r"\.(approx|rz|rm|rp|ftz)\b", ptx)
    assert ".f32" not in ptx
    kernels = functions(ptx)
    assert sorted(kernels) == ["descend_in_one_read", "descend_in_tiles", "only_barriers"]
    del kernels["only_barriers"]
    for text in kernels.values():
        tensor = text.count("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32")
        if capability >= cuda.TENSOR_CORES:
            # Forward once, backward twice for 32 features.
            assert tensor >= 3
            assert "dp4a" not in text
        else:
            # 28 for 16 pixels, forward and backward, at least once each.
            assert text.count("dp4a.u32.s32") >= 56
            assert tensor == 0
        # The grid barrier: one release and one acquire, no other fence.
        assert "red.release.gpu.global.add.u32" in text
        assert "ld.acquire.gpu.global.u32" in text
        assert not re.search(r"\b(membar|fence)\b", text)
        assert text.count("div.rn.f64") >= 3
        assert ("cp.async" in text) == (capability >= 80)
    # A block must have its registers: no more than the processor has for its threads.
    used = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    assert len(used) == 3, log
    assert all(number <= 128 for number in used)
    assert max(used) * cuda.TILES_THREADS <= 65_536
    # What does not fit into registers goes to local memory: a little, outside the inner loops, is accepted.
    assert all(int(number) <= 256 for number in re.findall(r"(\d+) bytes spill", log)), log


def test_shared_memory_of_real_devices() -> None:
    """Every plan fits the device: (multiprocessors, bytes a block may have), T4 to B200."""
    for processors, shared in ((40, 65_536), (108, 166_912), (128, 101_376), (132, 232_448), (148, 232_448)):
        for m, d, models in (
            (1900, 3072, 1), (1900, 3072, 20), (50_000, 3072, 1), (50_000, 3072, 10), (1, 1, 1), (200_003, 7, 1),
            (5, 3072, 1), (1900, 129_600, 1), (100, 2**20, 1), (2**26, 1, 1), (1, 2**26, 3),
        ):  # fmt: skip
            plan = cuda.plan_for(m, d, models, processors, shared, tensor=shared > 65_536)
            assert plan.shared <= shared
            assert plan.blocks <= processors
            assert plan.rows % 4 == 0
            assert plan.columns % 16 == 0
            assert max(plan.rows, plan.columns) <= 65_536
            tiles = -(-m // plan.rows) * -(-d // plan.columns)
            assert plan.blocks == tiles if plan.resident else plan.blocks <= tiles


def test_which_kernel() -> None:
    # The tutorial's pictures stay in a data-centre GPU's shared memory; 50,000 pictures are read once an iteration.
    assert cuda.plan_for(1900, 3072, 1, 132, 232_448).resident
    assert cuda.plan_for(50_000, 3072, 1, 132, 232_448).kernel == "descend_in_one_read"
    # Two models one after the other, more of them together.
    assert cuda.plan_for(50_000, 3072, 2, 132, 232_448).kernel == "descend_in_one_read"
    assert cuda.plan_for(50_000, 3072, 4, 132, 232_448).kernel == "descend_in_tiles"
    # So too on an RTX 4090 and on a T4.
    assert cuda.plan_for(50_000, 3072, 1, 128, 101_376).kernel == "descend_in_one_read"
    assert cuda.plan_for(50_000, 3072, 1, 40, 65_536, tensor=False).kernel == "descend_in_one_read"
