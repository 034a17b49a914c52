"""Compiled code that is kept: where there is no home, no place at all, or a damaged file, all works as before."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlogreg import arrays, descend_many
from xlogreg.arrays import choose_device
from xlogreg.data.cache import data_folder
from xlogreg.images.features import Features
from xlogreg.models.classifier import Prediction
from xlogreg.predicting.bulk import predict_many
from xlogreg.system import files

keeping = pytest.importorskip("xlogreg.kernels.keeping")

from helpers import classifier, environment  # noqa: E402

from xlogreg import kernels  # noqa: E402
from xlogreg.kernels import cpu, pool  # noqa: E402

SOURCE = """
from xlogreg.kernels.keeping import kept

@kept()
def triple(x):
    return 3 * x
"""


@pytest.fixture
def module(tmp_path: Path) -> Callable[[], Any]:
    """A module with a compiled function, loaded as by a new process."""
    path = tmp_path / "tripled.py"
    path.write_text(SOURCE)

    def loaded() -> Any:
        spec = importlib.util.spec_from_file_location("tripled", path)
        assert spec is not None
        assert spec.loader is not None
        found: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found.triple

    return loaded


def kept_files(folder: Path) -> dict[str, Path]:
    return {path.suffix: path for path in folder.rglob("*.nb?")}


def is_loaded(triple: Any) -> bool:
    """Whether it works, and whether it came from a file."""
    assert triple(5) == 15
    return bool(triple.stats.cache_hits)


def test_damaged_files_are_made_anew(module: Callable[[], Any], tmp_path: Path) -> None:
    assert not keeping.is_kept(module())
    assert not is_loaded(module())
    found = kept_files(tmp_path)
    assert set(found) == {".nbi", ".nbc"}
    assert keeping.is_kept(module())
    assert is_loaded(module())
    for suffix in (".nbi", ".nbc"):
        whole = found[suffix].read_bytes()
        middle = len(whole) // 2
        for damaged in (b"", whole[:50], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], whole[1:]):
            found[suffix].write_bytes(damaged)
            assert keeping.is_kept(module()) == (suffix == ".nbc")
            triple = module()
            assert not is_loaded(triple)
            assert is_loaded(module())
    # A full disk: what was compiled works all the same.
    found[".nbc"].unlink()
    found[".nbc"].mkdir()
    assert not is_loaded(module())


def refuse_homes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba finds no folder but one that it is told, as where neither the package nor a home can be written."""
    whole = keeping.FunctionCache

    class Homeless(whole):  # type: ignore[misc,valid-type]
        def __init__(self, function: Any) -> None:
            if not keeping.config.CACHE_DIR:
                raise RuntimeError("cannot cache function: no locator available")
            super().__init__(function)

    monkeypatch.setattr(keeping, "FunctionCache", Homeless)


def test_without_a_home_it_is_kept_among_the_temporary_files(
    module: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_homes(monkeypatch)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = keeping.config.CACHE_DIR
    assert not is_loaded(module())
    assert is_loaded(module())
    assert len(kept_files(temporary)) == 2
    assert before == keeping.config.CACHE_DIR
    if os.name == "posix":
        (own,) = temporary.iterdir()
        assert own.stat().st_mode & 0o777 == 0o700
        # What somebody else could write to is not executed.
        own.chmod(0o777)
        with monkeypatch.context() as patch:
            patch.setattr(files, "_new_temporary_folder", lambda: str(tmp_path))
            assert not is_loaded(module())
        assert len(list(tmp_path.rglob("*.nbc"))) == 2
        assert list(temporary.iterdir()) == [own]


def test_without_any_place_it_is_compiled_and_that_is_said(
    module: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_homes(monkeypatch)

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(keeping, "own_temporary_folder", nowhere)
    triple = module()
    assert not keeping.can_keep(triple)
    assert not keeping.is_kept(triple)
    assert not is_loaded(triple)
    assert keeping.is_kept(triple)
    # The kernel as it is there: neither doctor nor train need its place.
    monkeypatch.setattr(cpu, "_run", module())
    assert not kernels.is_compiled()
    assert kernels.compiling() == ("compiling the kernel, as in every process: there is no folder to keep it in")


def test_a_home_that_may_not_be_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    # CuPy's folder is below it; Path's own questions raise there.
    cupy = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.delenv("CUPY_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "a file" / "below"))
    (tmp_path / "a file").write_text("")
    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert choose_device("auto").kind == "cpu"
    assert os.environ["CUPY_CACHE_DIR"].startswith(files.own_temporary_folder())
    # Where there is no CuPy, nobody asks for its folder.
    monkeypatch.undo()
    monkeypatch.setattr(arrays, "find_spec", lambda name: None)
    monkeypatch.setattr(arrays, "_find_a_kernel_cache", refuse)
    assert choose_device("auto").kind == "cpu"


def test_a_user_whom_no_data_base_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    def homeless(*_: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_dir", homeless)
    monkeypatch.delenv("XLOGREG_DATA", raising=False)
    assert data_folder() == Path(files.own_temporary_folder())


# -- No more threads


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The system starts so many threads, and no more."""
    left, start = [0], threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if left[0] <= 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(pool, "_members", [])
    return left


@pytest.mark.parametrize("left", [0, 1, 3])
def test_training_with_the_threads_there_are(no_threads: list[int], left: int) -> None:
    no_threads[0] = left
    pool.allow(5)
    try:
        x = np.random.RandomState(0).randint(0, 256, (9, 3000)).astype(np.uint8)
        y = np.arange(3000)[None] % 2
        results = [descend_many(x, y, [0.1], 30, implementation=name) for name in ("fused", "reference")]
        assert results[0].history.tolist() == results[1].history.tolist()
        assert len(pool._members) == left
        with pytest.raises(RuntimeError, match="starts no more threads"):
            pool.run_all(lambda thread: None, 5, lambda: None)
    finally:
        pool.allow(0)


@pytest.mark.parametrize("left", [0, 1])
def test_pictures_with_the_threads_there_are(no_threads: list[int], left: int, tmp_path: Path) -> None:
    from PIL import Image

    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((4, 5, 3), i, np.uint8)).save(path)
    no_threads[0] = left
    results = [result for batch in predict_many(classifier(), paths, threads=4) for result in batch]
    assert [result.path for result in results] == paths
    assert all(isinstance(result, Prediction) for result in results)
    no_threads[0] = left
    x = np.random.RandomState(0).randint(0, 256, (200, 16, 16, 3)).astype(np.uint8)
    assert np.array_equal(Features("grey").rows(x)[:5], Features("grey").rows(x[:5]))


def test_a_number_of_threads_that_is_none_is_said_in_one_line() -> None:
    code = "from xlogreg import kernels; print(kernels.why_no_fused() or 'it works')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=environment(NUMBA_NUM_THREADS="x"),
    )  # fmt: skip
    assert done.stdout == "it works\n"
    assert "'NUMBA_NUM_THREADS' is defined but its associated value 'x' could not be parsed" in done.stderr
    assert "Traceback" not in done.stderr
