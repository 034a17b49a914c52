"""The choice of the device, with CuPy missing, broken, and faked."""

import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict

from xlogreg import backend
from xlogreg.backend import choose_device, namespace, to_host
from xlogreg.errors import DeviceError


def fake_cupy(devices: int = 1, problem: Exception | None = None, total: int = 6) -> Any:
    """A module that answers the probe as CuPy would."""
    cupy = types.ModuleType("cupy")

    class Device:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    class Runtime:
        @staticmethod
        def getDeviceCount() -> int:
            if problem:
                raise problem
            return devices

        @staticmethod
        def getDeviceProperties(number: int) -> dict[str, bytes]:
            return {"name": f"Fake {number}".encode()}

    cupy.cuda = types.SimpleNamespace(Device=Device, runtime=Runtime)  # type: ignore[attr-defined]
    cupy.arange = lambda n: types.SimpleNamespace(sum=lambda: total)  # type: ignore[attr-defined]
    return cupy


def test_cpu() -> None:
    device = choose_device("cpu")
    assert (device.kind, device.xp, device.note) == ("cpu", np, "")
    x = np.arange(3)
    assert device.to_device(x) is x
    assert to_host(x) is x
    device.synchronise()


def test_missing_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=r"No GPU can be used: CuPy .*cupy-cuda12x.*--device cpu"):
        choose_device("gpu")
    device = choose_device("auto")
    assert device.kind == "cpu"
    assert "No GPU can be used" in device.note
    assert "no GPU found" in str(device)


def test_driver_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient\nmore lines")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(problem=broken))
    with pytest.raises(DeviceError, match="cudaErrorInsufficientDriver") as caught:
        choose_device("gpu")
    assert "\n" not in str(caught.value)
    assert choose_device("auto").kind == "cpu"


def test_gpu_that_computes_wrong_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(total=7))
    with pytest.raises(DeviceError, match="wrong sums"):
        choose_device("gpu")


def test_choice_of_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=2))
    assert str(choose_device("auto")) == "gpu:0 (Fake 0)"
    assert str(choose_device("gpu:1")) == "gpu:1 (Fake 1)"
    with pytest.raises(DeviceError, match="no gpu:2: this machine has 2"):
        choose_device("gpu:2")


@pytest.mark.parametrize("word", ["tpu", "gpu:", "gpu:x", "gpu:-1", "", "CPU"])
def test_unknown_words(word: str) -> None:
    with pytest.raises(DeviceError, match=r"no device .*choose auto, cpu, gpu or gpu:N"):
        choose_device(word)


def test_namespace() -> None:
    assert namespace(np.zeros(2), np.float64(1)) is np
    assert namespace(strict.zeros(2, float), strict.ones(2, float)) is strict
    with pytest.raises(DeviceError, match="numpy and strict are mixed"):
        namespace(np.zeros(2), strict.zeros(2, float))
    with pytest.raises(DeviceError, match="not list"):
        namespace([1.0])
    assert to_host(strict.ones(2, float)).tolist() == [1.0, 1.0]


def test_processor_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.processor_name()
    monkeypatch.setattr(backend, "open", lambda *_, **__: (_ for _ in ()).throw(OSError()), raising=False)
    assert backend.processor_name()


def test_a_cache_folder_that_cannot_be_written_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    choose_device("gpu")
    assert os.environ["CUPY_CACHE_DIR"] == str(tmp_path / "kernels")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    choose_device("gpu")
    folder = Path(os.environ["CUPY_CACHE_DIR"])
    assert folder.is_dir()
    assert folder != tmp_path / "file" / "kernels"
    assert folder.stat().st_mode & 0o077 == 0
    folder.rmdir()


class FakeArray:
    """What is at a device pointer, here: the memory of the owner that was given."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, memptr: Any) -> None:
        self.values = np.frombuffer(memptr.owner, dtype=dtype, count=int(np.prod(shape))).reshape(shape)

    @property
    def T(self) -> "FakeArray":
        transposed = FakeArray.__new__(FakeArray)
        transposed.values = self.values.T
        return transposed


@pytest.mark.parametrize("room_on_the_host", [True, False])
def test_pixels_that_do_not_fit_the_gpu(room_on_the_host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy()

    class OutOfMemoryError(Exception):
        pass

    class CUDARuntimeError(Exception):
        pass

    class PinnedMemory(bytearray):
        ptr = 4096

        def __init__(self, size: int) -> None:
            if not room_on_the_host:
                raise CUDARuntimeError("cudaErrorMemoryAllocation")
            super().__init__(size)

    def full(_: object) -> None:
        raise OutOfMemoryError

    class UnownedMemory:
        def __init__(self, ptr: int, size: int, owner: Any, device_id: int) -> None:
            assert (ptr, size, device_id) == (4096, len(owner), 0)
            self.owner = owner

    cupy.cuda.memory = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    cupy.cuda.runtime.CUDARuntimeError = CUDARuntimeError
    cupy.cuda.PinnedMemory, cupy.cuda.UnownedMemory = PinnedMemory, UnownedMemory
    cupy.cuda.PinnedMemoryPointer = lambda memory, offset: memory
    cupy.cuda.MemoryPointer = lambda memory, offset: memory
    cupy.asarray, cupy.ndarray = full, FakeArray
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    device = choose_device("gpu")
    pixels = np.random.RandomState(0).randint(0, 256, (7, 12)).astype(np.uint8)
    if room_on_the_host:
        assert np.array_equal(device.to_device(pixels).values, pixels)
        columns = device.to_device(pixels.T).values
        assert np.array_equal(columns, pixels.T)
        assert columns.T.flags.c_contiguous  # rows stay rows: the kernels need no copy
    else:
        with pytest.raises(DeviceError, match=r"0.0 GB do not fit into the memory of gpu:0 .*--device cpu"):
            device.to_device(pixels)
    with pytest.raises(DeviceError, match="do not fit"):
        device.to_device(pixels.astype(np.float64))
