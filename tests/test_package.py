"""What is installed: light to import, complete as a wheel, one public door."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import python

import xlogreg

ROOT = Path(__file__).parents[1]


def test_import_is_light() -> None:
    heavy = (
        "cupy", "numba", "matplotlib", "sklearn", "skimage", "scipy", "PIL", "safetensors", "typer", "rich", "jinja2"
    )  # fmt: skip
    code = f"import sys, json, xlogreg; print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    assert json.loads(python(code)) == []


def test_numpy_alone_is_enough_for_the_core() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite", "scipy", "skimage", "PIL", "safetensors", "matplotlib"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from xlogreg import descend_many, history_sha256, model, predict, propagate
x = np.arange(60, dtype=np.uint8).reshape(6, 10); y = np.arange(10).reshape(1, -1) % 2
print(history_sha256(descend_many(x, y, [0.1], 20, implementation="reference").history[:, 0]))
"""
    import numpy as np

    x, y = np.arange(60, dtype=np.uint8).reshape(6, 10), np.arange(10).reshape(1, -1) % 2
    expected = xlogreg.history_sha256(xlogreg.descend_many(x, y, [0.1], 20).history[:, 0])
    assert python(code).strip() == expected


def test_every_public_name_is_there_and_documented() -> None:
    for name in xlogreg.__all__:
        value = getattr(xlogreg, name)
        assert name == "__version__" or value.__doc__, name
    assert set(xlogreg.__all__) <= set(dir(xlogreg))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        xlogreg.nothing  # noqa: B018


def test_the_wheel_carries_the_birds(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    assert {"xlogreg/py.typed", "xlogreg/data/builtin/birds.png", "xlogreg/data/builtin/birds.csv"} <= names
    pages = ("run.html", "comparison.html", "base.html", "style.css")
    assert {f"xlogreg/runs/templates/{name}" for name in pages} <= names
    assert "xlogreg/kernels/cuda.cu" in names
    assert not any(name.startswith(("tests", "benchmarks")) for name in names)
    # The page's templates are found where the wheel is installed.
    (tmp_path / "results.json").write_text(
        '{"task": {"class_names": ["a", "b"]}, "data": {"source": "s", "train_pictures": 1, "test_pictures": 1}, '
        '"train_accuracy": 1.0, "test_accuracy": 1.0, "history_sha256": ""}'
    )
    code = (
        "from pathlib import Path; from xlogreg.runs.report import write_report; "
        "print(write_report(Path()).stat().st_size)"
    )
    assert int(python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed"))) > 5000
    code = "import xlogreg; print(xlogreg.__file__, len(xlogreg.load_birds()))"
    where, count = python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path / "installed")).split()
    assert where.startswith(str(tmp_path))
    assert count == "2064"
