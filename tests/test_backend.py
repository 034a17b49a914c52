"""The choice of the device, with CuPy missing, broken, and faked."""

import gc
import os
import stat
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict

from xlogreg import arrays
from xlogreg.arrays import choose_device, namespace, to_host
from xlogreg.errors import DeviceError
from xlogreg.proof import doctor
from xlogreg.system import machine


def fake_cupy(devices: int = 1, problem: Exception | None = None, broken: tuple[int, ...] = ()) -> Any:
    """A module that answers the probe as CuPy would; the `broken` GPUs compute wrong sums."""
    cupy = types.ModuleType("cupy")
    state = types.SimpleNamespace(number=0)

    class Device:
        mem_info = (2**40, 2**41)
        attributes = {"CanUseHostPointerForRegisteredMem": 1}  # noqa: RUF012 (a stand-in)

        def __init__(self, number: int = 0) -> None:
            self.number = number

        def __enter__(self) -> None:
            state.number = self.number

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

    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0)  # type: ignore[attr-defined]
    cupy.cuda = types.SimpleNamespace(Device=Device, runtime=Runtime)  # type: ignore[attr-defined]
    cupy.arange = lambda n: types.SimpleNamespace(  # type: ignore[attr-defined]
        sum=lambda: 6 + (state.number in broken)
    )
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


def test_choice_of_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=2))
    assert str(choose_device("auto")) == "gpu:0 (Fake 0)"
    assert str(choose_device("gpu:1")) == "gpu:1 (Fake 1)"
    with pytest.raises(DeviceError, match="no gpu:2: this machine has 2"):
        choose_device("gpu:2")


def test_gpus_that_do_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=3, broken=(0, 2)))
    assert str(choose_device("auto")) == "gpu:1 (Fake 1)"
    gpus, notes, broken = doctor._gpus()
    assert ([gpu.number for gpu in gpus], notes) == ([1], [])
    # One that is there and does not work is no healthy machine.
    assert [(proof.device, proof.golden) for proof in broken] == [("gpu:0", False), ("gpu:2", False)]
    assert all("wrong sums" in proof.problem for proof in broken)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=2, broken=(0, 1)))
    with pytest.raises(DeviceError, match="gpu:1 computes wrong sums"):
        choose_device("gpu:1")
    assert "gpu:0 computes wrong sums" in choose_device("auto").note
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=0))
    assert choose_device("auto").kind == "cpu"
    assert doctor._gpus()[1:] == (["This machine has no GPU that CuPy finds."], [])


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
    assert machine.processor_name()
    monkeypatch.setattr(machine, "open", lambda *_, **__: (_ for _ in ()).throw(OSError()), raising=False)
    assert machine.processor_name()


def test_a_cache_folder_that_cannot_be_written_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    choose_device("gpu")
    assert os.environ["CUPY_CACHE_DIR"] == str(tmp_path / "kernels")
    (tmp_path / "file").write_text("in the way")
    folders = []
    for _ in range(2):
        monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "kernels"))
        choose_device("gpu")
        folders.append(Path(os.environ["CUPY_CACHE_DIR"]))
    # The next process finds what this one compiled.
    assert folders[0] == folders[1] == tmp_path / f"xlogreg-kernels-{os.getuid()}"
    assert folders[0].is_dir()
    assert folders[0].stat().st_mode & 0o077 == 0
    # Not what others may write to.
    folders[0].chmod(0o777)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    choose_device("gpu")
    own = Path(os.environ["CUPY_CACHE_DIR"])
    assert own not in folders
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_the_cache_folder_is_chosen_before_cupy_looks_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    # CuPy 14 makes its folder when it is loaded.
    (tmp_path / "cupy.py").write_text("import os\nos.makedirs(os.environ['CUPY_CACHE_DIR'], exist_ok=True)\n")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    with pytest.raises(DeviceError, match=r"CuPy reports .*no attribute 'cuda'"):  # so it was loaded
        choose_device("gpu")
    sys.modules.pop("cupy")
    # Where it was loaded before, it keeps nothing.
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    monkeypatch.delenv("CUPY_CACHE_IN_MEMORY", raising=False)
    choose_device("gpu")
    assert os.environ.pop("CUPY_CACHE_IN_MEMORY") == "1"


def test_no_home_and_an_empty_name_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUPY_CACHE_DIR", "")
    choose_device("gpu")
    assert "CUPY_CACHE_DIR" not in os.environ
    monkeypatch.setattr(os.path, "expanduser", lambda name: name)  # as where neither HOME nor the user is known
    choose_device("gpu")
    assert os.environ["CUPY_CACHE_DIR"].startswith(str(tmp_path))
    monkeypatch.delenv("CUPY_CACHE_DIR")


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class Memory:
    """A GPU's and its host's, as far as pixels are concerned; both are this process's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, page_locked: int, lockable: bool) -> None:
        self.left, self.log = page_locked, []  # type: ignore[var-annotated]
        memory, cupy = self, fake_cupy()

        class PinnedMemory(bytearray):
            ptr = 4096

            def __init__(self, size: int) -> None:
                if size > memory.left:
                    raise CUDARuntimeError("cudaErrorMemoryAllocation")
                memory.log.append(f"lock new {size}")
                super().__init__(size)

        class UnownedMemory:
            def __init__(self, ptr: int, size: int, owner: Any, device_id: int) -> None:
                assert (ptr, device_id) == (owner.ptr, 0)
                self.owner, self.size = owner, size

        class Array:
            """What is at a device pointer, here: the memory of the owner that was given."""

            def __init__(self, shape: tuple[int, ...], dtype: Any = np.uint8, memptr: Any = None) -> None:
                if memptr is None:
                    self.values = np.zeros(shape, dtype)
                    return
                self.owner = memptr.owner
                if isinstance(self.owner, PinnedMemory):
                    self.values = np.frombuffer(self.owner, dtype, int(np.prod(shape))).reshape(shape)
                else:
                    import ctypes

                    buffer = (ctypes.c_ubyte * memptr.size).from_address(self.owner.ptr)
                    self.values = np.frombuffer(buffer, dtype).reshape(shape)

            def of(self, values: np.ndarray) -> "Array":
                other = Array.__new__(Array)
                other.values = values
                other.owner = getattr(self, "owner", None)
                return other

            T = property(lambda self: self.of(self.values.T))

            def reshape(self, *shape: int) -> "Array":
                return self.of(self.values.reshape(*shape))

            def __getitem__(self, key: Any) -> "Array":
                return self.of(self.values[key])

            def set(self, values: np.ndarray, stream: Any) -> None:
                # The device takes the buffer some time before the event says so: as late as can be.
                memory.log.append(f"copy {len(values)}")
                stream.append((self.values, values))

        class Stream(list):
            def synchronize(self) -> None:
                while self:
                    target, source = self.pop(0)
                    target[...] = source

        class Event:
            stream: Any = None

            def record(self, stream: Any) -> None:
                self.stream, self.count = stream, len(stream)

            def synchronize(self) -> None:
                if self.stream is not None:
                    self.stream.synchronize()
                memory.log.append("wait")

        def host_register(ptr: int, size: int, flags: int) -> None:
            assert flags == 3
            if not lockable:
                raise CUDARuntimeError("cudaErrorHostMemoryAlreadyRegistered")
            memory.log.append(f"lock {size}")

        def asarray(values: np.ndarray) -> Array:
            if values.nbytes > free:
                raise OutOfMemoryError
            return Array(values.shape).of(values.copy())

        stream = Stream()
        cupy.cuda.Device.mem_info = (free, 2 * free)
        cupy.cuda.memory = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        cupy.cuda.runtime.CUDARuntimeError = CUDARuntimeError
        cupy.cuda.runtime.hostRegister = staticmethod(host_register)
        cupy.cuda.runtime.hostUnregister = staticmethod(lambda ptr: memory.log.append("unlock"))
        cupy.cuda.runtime.deviceSynchronize = staticmethod(lambda: None)
        cupy.cuda.PinnedMemory, cupy.cuda.UnownedMemory, cupy.cuda.Event = PinnedMemory, UnownedMemory, Event
        cupy.cuda.get_current_stream = lambda: stream
        cupy.cuda.PinnedMemoryPointer = lambda memory, offset: memory
        cupy.cuda.MemoryPointer = lambda memory, offset: memory
        cupy.asarray, cupy.ndarray, cupy.empty = asarray, Array, Array
        monkeypatch.setitem(sys.modules, "cupy", cupy)


PIXELS = np.random.RandomState(0).randint(0, 256, (70, 12)).astype(np.uint8)


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_nearly_fill_the_gpu_stay_where_they_are(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, free=840 * 4 // 3 - 4, page_locked=0, lockable=True)
    pixels = PIXELS.copy()
    with pytest.warns(RuntimeWarning, match=r"gpu:0 .* has no room for 0.0 GB of pixels, so they stay in the host's"):
        there = choose_device("gpu").to_device(pixels.T if turned else pixels)
    assert np.array_equal(there.values, pixels.T if turned else pixels)
    assert np.shares_memory(there.values, pixels)  # no copy of them
    assert (there.T if turned else there).values.flags.c_contiguous  # rows stay rows: the kernels need no copy
    assert memory.log == ["lock 840"]
    del pixels
    gc.collect()
    assert np.array_equal(there.values, PIXELS.T if turned else PIXELS)
    del there
    gc.collect()
    assert memory.log == ["lock 840", "unlock"]


def test_pixels_that_cannot_be_locked_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, free=100, page_locked=10**6, lockable=False)
    with pytest.warns(RuntimeWarning, match="no room"):
        there = choose_device("gpu").to_device(PIXELS[:, ::2])
    assert np.array_equal(there.values, PIXELS[:, ::2])
    with pytest.warns(RuntimeWarning, match="no room"):
        there = choose_device("gpu").to_device(PIXELS)
    assert np.array_equal(there.values, PIXELS)
    assert not np.shares_memory(there.values, PIXELS)
    assert memory.log == ["lock new 420", "lock new 840"]


def test_no_room_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, free=100, page_locked=0, lockable=False)
    device = choose_device("gpu")
    for array in (PIXELS, PIXELS.astype(np.float64)):
        with pytest.raises(DeviceError, match=r"0.0 GB do not fit into the memory of gpu:0 .*--device cpu"):
            device.to_device(array)


@pytest.mark.parametrize("turned", [False, True])
def test_large_arrays_go_to_the_gpu_in_chunks(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, free=10**6, page_locked=10**6, lockable=True)
    monkeypatch.setattr(arrays, "_CHUNK", 256)
    there = choose_device("gpu").to_device(PIXELS.T if turned else PIXELS)
    assert np.array_equal(there.values, PIXELS.T if turned else PIXELS)
    # A buffer is filled again when the device has taken it, two copies later.
    sizes = [256, 256, 256, 840 - 768]
    assert memory.log == ["lock new 256"] * 2 + [word for size in sizes for word in ("wait", f"copy {size}")]


def test_large_arrays_without_page_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, free=10**6, page_locked=0, lockable=False)
    monkeypatch.setattr(arrays, "_CHUNK", 256)
    assert np.array_equal(choose_device("gpu").to_device(PIXELS).values, PIXELS)
