"""Files of runs and models that somebody else wrote, or damaged: each is used, or refused with one sentence.

Of every kind 300 that chance has changed and 50 made by hand. Checkpoints have digests that are right, so that what
they hold is all that speaks against them; they go through the training itself, compiled kernel and reference by turns.
"""

import copy
import json
import os
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Result, classifier, descent
from safetensors.numpy import load, save

from xlogreg.data import sources
from xlogreg.data.pictures import Pictures
from xlogreg.data.task import Task, hold_out, make_task
from xlogreg.errors import DivergenceError, FileError, InputError, XlogregError
from xlogreg.images import resizing
from xlogreg.models.classifier import Classifier
from xlogreg.neuron.options import DescentOptions
from xlogreg.runs import checkpoint, gallery, reading
from xlogreg.runs.checkpoint import Checkpoints, latest
from xlogreg.runs.reading import read_results
from xlogreg.runs.report import write_report
from xlogreg.runs.run_folder import write_run
from xlogreg.runs.training import train
from xlogreg.solvers.descent import descend
from xlogreg.solvers.resume import Frame, Progress
from xlogreg.solvers.solver import State
from xlogreg.system.run_file_names import CHECKPOINTS

train_command = sys.modules["xlogreg.commands.train"]
training_module = sys.modules["xlogreg.runs.training"]

MUTATED = 300
# What stands in JSON for any value.
NASTY = (
    "null", "true", "-1", "0", "1", "2", "0.5", "1e400", "-1e400", "NaN", "Infinity", "1" + "0" * 400, str(2**63),
    '""', '"\\u0000"', '"\\ud800"', '"none"', '"x"', '"../../nowhere"', json.dumps("y" * 5000), "[]", "{}", "[1]",
    '["a", "b"]', '{"a": 1}', "[[[]]]", '"1e5"', "1e-320", '"\\u202e"',
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The way to each value in parsed JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(content: Any, path: tuple, new: str) -> str:
    """The JSON with what is there replaced by this JSON."""
    if not path:
        return new
    content = copy.deepcopy(content)
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = "\x01"
    return json.dumps(content).replace('"\\u0001"', new)


def changed_json(rng: random.Random, content: Any) -> str:
    """One value or two replaced, or a field taken away, or the text damaged."""
    path = rng.choice(list(places(content)))
    text = replaced(content, path, rng.choice(NASTY))
    kind = rng.random()
    if kind < 0.2:
        place = rng.randrange(len(text))
        return text[:place] + rng.choice(["", "\x00", "}", '"', "9" * 400, "\ud7ff"]) + text[place + rng.randrange(3) :]
    if kind < 0.4 and path and isinstance(path[-1], str):
        smaller = copy.deepcopy(content)
        holder = smaller
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        return json.dumps(smaller)
    return text


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """A part cut off, bits turned, or bytes put in."""
    place = rng.randrange(len(content))
    kind = rng.randrange(4)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + rng.randbytes(rng.randrange(1, 9)) + content[place:]
    place = rng.randrange(min(len(content), 600)) if kind == 2 else place
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def one_sentence(error: BaseException) -> None:
    assert isinstance(error, XlogregError)
    text = str(error)
    assert "\n" not in text
    assert len(text) < 1000
    assert text.endswith(".")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    rng = np.random.RandomState(0)
    labels = np.arange(600) % 2
    x = rng.randint(0, 200, (600, 2, 2, 3)).astype(np.uint8)
    x[labels == 1, 0] += 50
    return Pictures(x, labels, ("frog", "bird"), np.arange(600), "small ones")


# -- Checkpoints


ITERATIONS = 105
OPTIONS = DescentOptions(momentum=0.5, cost_tolerance=1e-7)
RATES = [0.05, 1e-6, 0.02]  # the second ends at once


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def task(pictures: Pictures) -> Task:
    (task,) = hold_out([make_task(pictures, "bird", balance="none")], 0.1)
    return task


def trained(task: Task, folder: Path | None, implementation: str, stop: int = ITERATIONS + 1) -> list[str]:
    """Digests of the histories, of a training that goes on from the folder's checkpoints."""

    def tell(done: int, _: np.ndarray) -> None:
        if done >= stop:
            raise Stop

    kept = None if folder is None else Checkpoints(folder, 0.0, resume=True, every=101)
    try:
        found = train(
            task, RATES, ITERATIONS, options=OPTIONS, implementation=implementation, checkpoints=kept, observer=tell,
            diverged=[],
        )  # fmt: skip
    except Stop:
        assert kept is not None
        kept.stopped()
        return []
    return [training.history_sha256 for training in found]


@pytest.fixture(scope="module")
def good(task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[str]]:
    """A checkpoint before the last iterations, in which one model has ended, and how the training ends."""
    folder = tmp_path_factory.mktemp("good")
    trained(task, folder, "fused", stop=101)
    found = [path.read_bytes() for path in folder.iterdir()]
    content = max(found, key=lambda content: taken_apart(content)[0]["iterations"])
    description = taken_apart(content)[0]
    assert description["iterations"] == 100
    assert list(description["parts"]) == ["1"]
    assert [len(records) for records in description["extra"]["validations"]] == [2, 2, 2]
    return content, trained(task, None, "reference")


def taken_apart(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors = {name: values.copy() for name, values in load(content).items()}
    return json.loads(header["__metadata__"]["xlogreg"]), tensors


def put_together(text: str, tensors: dict[str, np.ndarray]) -> bytes:
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    # A text that is no Unicode has no digest, and no place in the file.
    text = text.encode("utf-8", "replace").decode()
    return save(tensors, {"xlogreg": text, "sha256": checkpoint._digest(text, tensors)})


def changed_tensors(rng: random.Random, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = rng.choice(sorted(tensors))
    values = tensors[name]
    new: Callable[[], np.ndarray | None] = rng.choice([
        lambda: np.zeros((1, 10)), lambda: np.zeros(rng.choice([0, 1, 2, 1000])), lambda: values.ravel(),
        lambda: values[..., :-1], lambda: np.zeros((*values.shape, 2)), lambda: values.astype(np.float32),
        lambda: values.astype(np.int64), lambda: values.T, lambda: np.zeros((0, *values.shape)), lambda: None,
        lambda: np.full_like(values, np.nan), lambda: np.full_like(values, np.inf), lambda: values * 1e300,
        lambda: values[None], lambda: values.astype(np.uint8), lambda: np.float64(3.0), lambda: np.repeat(values, 3),
    ])  # fmt: skip
    found = new()
    rest = {other: array for other, array in tensors.items() if other != name}
    return rest if found is None else {**rest, rng.choice([name, name, name, f"{name}x"]): found}


def crafted_checkpoints(content: bytes) -> list[bytes]:
    description, tensors = taken_apart(content)
    text = json.dumps(description)
    d = tensors["state.w"].shape[1]
    arrays: list[dict[str, Any]] = [
        {"state.w": np.zeros((1, 10))}, {"state.w": np.zeros((2, 10))}, {"state.w": np.zeros((1000, d))},
        {"state.w": np.zeros((2, 1 << 16))}, {"state.w": np.zeros(2 * d)}, {"state.w": np.zeros((2, 0))},
        {"state.w": np.zeros((2, d), np.float32)}, {"state.w": np.zeros((2, d), np.int64)},
        {"state.w": np.full((2, d), np.nan)}, {"state.w": np.full((2, d), 2.0**900)}, {"state.w": None},
        {"state.b": np.zeros(1)}, {"state.b": np.zeros(1000)}, {"state.b": np.zeros((2, 1))}, {"state.b": np.zeros(0)},
        {"state.b": np.array([0.0, np.inf])}, {"state.b": None}, {"state.velocity": None},
        {"state.velocity": np.zeros((1, d))}, {"state.velocity": np.zeros((2, d + 1))},
        {"state.velocity": None, "state.bias_velocity": None}, {"state.bias_velocity": np.zeros(1)},
        {"state.bias_velocity": np.full(2, np.nan)}, {"costs": np.zeros((3, 0))}, {"costs": np.zeros((3, 5000))},
        {"costs": np.zeros((1, 100))}, {"costs": np.full((3, 100), np.nan)}, {"costs": np.zeros(100)},
        {"part.1.w": np.zeros((1, 3))}, {"part.1.b": np.zeros(7)}, {"part.1.dw": np.full((1, d), np.nan)},
        {"part.1.cost": None}, {"part.1.w": np.full((1, d), -(2.0**900))}, {"costs": np.full((3, 100), -1e300)},
    ]  # fmt: skip
    made = [put_together(text, {k: v for k, v in {**tensors, **new}.items() if v is not None}) for new in arrays]
    for path, new in (
        ("models", []), ("models", [0]), ("models", [2, 0]), ("models", [0, 0]), ("models", [0, 7]),
        ("models", [-3, -1]), ("models", [True, 2]), ("iterations", 99), ("iterations", 105), ("iterations", -1),
        ("iterations", 10**30), ("iterations", "100"), ("parts", {}), ("parts", {"1": [5, "cost", 1]}),
        ("parts", {"1": [500, "cost"]}), ("parts", {"1": [3, "iterations"]}), ("extra", {}), ("extra", None),
        ("extra", [1]), ("extra", {"validations": [[], []]}), ("seconds", -1.0), ("seconds", None),
        ("extra", {"validations": [[{"iteration": 500, "cost": 0.0, "accuracy": 1.0}], [], []]}),
    ):  # fmt: skip
        made.append(put_together(json.dumps({**description, path: new}), tensors))
    return made


def test_checkpoints_that_were_crafted_never_reach_the_kernel(
    task: Task, good: tuple[bytes, list[str]], tmp_path: Path
) -> None:
    crafted = crafted_checkpoints(good[0])
    assert len(crafted) >= 50
    for number, content in enumerate(crafted):
        implementation = ("fused", "reference")[number % 2]
        (tmp_path / CHECKPOINTS[0]).write_bytes(content)
        (tmp_path / CHECKPOINTS[1]).unlink(missing_ok=True)
        with pytest.raises(FileError, match=r"checkpoint-0\.safetensors is damaged") as caught:
            trained(task, tmp_path, implementation)
        one_sentence(caught.value)
        # The other one is taken.
        (tmp_path / CHECKPOINTS[1]).write_bytes(good[0])
        if number % 5 == 0:
            assert trained(task, tmp_path, implementation) == good[1]


def test_the_best_models_of_a_checkpoint_are_checked(task: Task, tmp_path: Path) -> None:
    def training(folder: Path) -> None:
        kept = Checkpoints(folder, 0.0, resume=True, every=101)
        train(task, [0.05], ITERATIONS, options=DescentOptions(), checkpoints=kept, patience=2)
        kept.ended()

    training(tmp_path)
    (path,) = tmp_path.glob("checkpoint-?.safetensors")
    description, tensors = taken_apart(path.read_bytes())
    w, b = tensors["extra.best_w"], tensors["extra.best_b"]
    for name, values in (
        ("w", np.full_like(w, 2.0**900)), ("w", -np.full_like(w, 1e308)), ("w", np.full_like(w, np.nan)), ("w", w[0]),
        ("w", w[:, :-1]), ("w", np.repeat(w, 2, axis=0)), ("b", np.full_like(b, -np.inf)), ("b", b[None]),
    ):  # fmt: skip
        path.write_bytes(put_together(json.dumps(description), {**tensors, f"extra.best_{name}": values}))
        with pytest.raises(FileError, match=r"checkpoint-\d\.safetensors is damaged"):
            training(tmp_path)


def test_what_a_plan_says_of_earlier_iterations_costs_no_time(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many numbers a plan.json holds: the pictures are looked through once."""
    looked = []
    digest_of = training_module.data_sha256
    monkeypatch.setattr(training_module, "data_sha256", lambda *given: looked.append(1) or digest_of(*given))
    kept = Checkpoints(tmp_path, before=tuple(range(1, 5000)))
    fingerprints: list[str] = []
    begin = kept.begin
    monkeypatch.setattr(kept, "begin", lambda found, *rest: fingerprints.extend(found) or begin(found, *rest))
    train(task, [0.05], 3, checkpoints=kept)
    assert looked == [1]
    assert len(set(fingerprints[1:])) == 4999


def test_checkpoints_changed_by_chance(task: Task, good: tuple[bytes, list[str]], tmp_path: Path) -> None:
    rng = random.Random(1)
    description, tensors = taken_apart(good[0])
    ends = {"used": 0, "refused": 0}
    for number in range(MUTATED):
        kind = rng.randrange(3)
        if kind == 0:
            content = changed_bytes(rng, good[0])
        elif kind == 1:
            content = put_together(changed_json(rng, description), tensors)
        else:
            content = put_together(json.dumps(description), changed_tensors(rng, tensors))
        (tmp_path / CHECKPOINTS[0]).write_bytes(content)
        (tmp_path / CHECKPOINTS[1]).unlink(missing_ok=True)
        try:
            trained(task, tmp_path, ("fused", "reference")[number % 2])
            ends["used"] += 1
        except XlogregError as error:
            one_sentence(error)
            ends["refused"] += 1
    assert ends["refused"] > MUTATED // 2
    assert ends["used"] > 5


@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_a_progress_or_a_state_from_anywhere_is_checked(implementation: str) -> None:
    rows = np.random.RandomState(0).randint(0, 256, (9, 4)).astype(np.uint8)
    sign = 1.0 - 2.0 * (np.arange(9) % 2)[None]

    def engine() -> Any:
        return descent(implementation, rows, sign, np.zeros((1, 4)), np.zeros(1), np.array([0.1]))

    w, b = np.zeros((1, 4)), np.zeros(1)
    bad = [
        State(1, np.zeros((1, 10)), b), State(1, np.zeros((3, 4)), b), State(1, np.zeros(4), b),
        State(1, w.astype(np.float32), b), State(1, w.astype(">f8"), b), State(1, w, np.zeros(2)),
        State(1, w, np.zeros(1000)), State(1, w, np.float64(0)), State(-1, w, b),
        State(1, w, b, {"velocity": w, "bias_velocity": b}), State(1, w, b, [w]),
        State(True, w, b), State(None, w, b), State(1, None, b), State(1, [[0.0] * 4], b),
    ]  # fmt: skip
    for state in bad:
        with pytest.raises(XlogregError) as caught:
            engine().restore(state)
        one_sentence(caught.value)
        with pytest.raises(XlogregError):
            descend(engine(), 5, progress=Progress(np.zeros((1, 1)), [0], state, {}, 0.0))
    good = State(1, w, b)
    for costs, models, parts, seconds in (
        (np.zeros((1, 2)), [0], {}, 0.0), (np.zeros((2, 1)), [0], {}, 0.0), ([[0.0]], [0], {}, 0.0),
        (np.zeros((1, 1)), [], {}, 0.0), (np.zeros((1, 1)), [1], {}, 0.0), (np.zeros((1, 1)), [0, 0], {}, 0.0),
        (np.zeros((1, 1)), None, {}, 0.0), (np.zeros((1, 1)), [0], {0: None}, 0.0), (np.zeros((1, 1)), [0], [], 0.0),
        (np.zeros((1, 1)), [0], {}, np.nan), (np.full((1, 1), np.nan), [0], {}, 0.0),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            descend(engine(), 5, progress=Progress(costs, models, good, parts, seconds))  # type: ignore[arg-type]
        one_sentence(caught.value)
    for value in (np.nan, np.inf, 2.0**900):
        with pytest.raises(InputError, match="not finite"):
            descend(engine(), 5, progress=Progress(np.zeros((1, 1)), [0], State(1, w + value, b), {}, 0.0))
    # Any order of its bytes is as good as another: the kernel gets its own.
    columns = State(1, np.asfortranarray(np.arange(8.0).reshape(2, 4))[:1], b)
    results = [descend(engine(), 3, progress=Progress(np.zeros((1, 1)), [0], state, {}, 0.0)).w.tolist() for state in (
        columns, State(1, np.arange(4.0)[None], b)
    )]  # fmt: skip
    assert results[0] == results[1]


@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_no_engine_takes_arrays_that_do_not_fit(implementation: str) -> None:
    rows, sign = np.zeros((9, 4), np.uint8), np.ones((2, 9))
    good = {"rows": rows, "sign": sign, "w": np.zeros((2, 4)), "b": np.zeros(2), "rates": np.ones(2)}
    for name, array in (
        ("rows", rows[0]), ("rows", rows[:0]), ("rows", rows[:5]), ("rows", rows.astype(np.int8)),
        ("rows", np.zeros((9, 5), np.uint8)), ("sign", sign[:1]), ("sign", sign[:, :8]), ("sign", sign.astype(int)),
        ("w", np.zeros((2, 5))), ("w", np.zeros((1, 4))), ("w", np.zeros(8)), ("w", np.zeros((2, 4), np.float32)),
        ("b", np.zeros(3)), ("b", np.zeros((2, 1))), ("b", np.float64(0.0)), ("rates", np.ones(1)),
        ("rates", np.ones((2, 2))), ("sample_weight", np.ones((1, 9))), ("sample_weight", np.ones(9)),
        ("sample_weight", np.ones((2, 9), np.float32)),
    ):  # fmt: skip
        arguments: dict[str, Any] = {**good, name: array}
        with pytest.raises(InputError) as caught:
            descent(implementation, **arguments)
        assert "\n" not in str(caught.value)
    if implementation == "fused":
        odd_values = {"sign": (3 * sign, sign * np.nan), "sample_weight": (-sign, sign * np.inf)}
        for name, array in ((name, array) for name, arrays in odd_values.items() for array in arrays):
            with pytest.raises(InputError, match="1 and -1"):
                descent(implementation, **{**good, name: array})
    # Neither read-only nor strided arrays are the kernel's business.
    odd = np.zeros((4, 4))[::2]
    odd.flags.writeable = False
    engine = descent(implementation, **{**good, "w": odd, "b": np.zeros(4)[::2]})
    assert engine.run(2).tolist() == descent(implementation, **good).run(2).tolist()
    assert not odd.any()


def test_the_fast_resize_believes_no_array() -> None:
    shrink = pytest.importorskip("xlogreg.images.resize_kernel").shrink

    def arrays(height: int = 90, width: int = 80, channels: int = 3) -> dict[str, Any]:
        names = ("top", "down", "rows", "left", "across", "columns")
        weights = zip(names, (*resizing._weights(height, 32), *resizing._weights(width, 31)), strict=True)
        x = np.zeros((height, width * channels), np.uint8)
        return {
            "x": x,
            "stored": channels,
            **dict(weights),
            "margin": 1e-9,
            "out": np.ones((32, 31, channels), np.uint8),
        }

    good = arrays()
    assert shrink(*good.values())
    assert not good["out"].any()
    changes: list[tuple[str, Callable[[Any], Any]]] = [
        (name, change) for name, value in arrays().items() if isinstance(value, np.ndarray)
        for change in (lambda array: array[:0], lambda array: array[:-1], lambda array: array[:1])
    ]  # fmt: skip
    changes += [(name, lambda array: array[:, :-1]) for name in ("rows", "columns", "x")]
    changes += [(name, change) for name in ("top", "left") for change in (
        lambda array: array + 10**9, lambda array: array - 1, lambda array: array * 0 + 90, lambda array: -array - 9,
    )]  # fmt: skip
    changes += [("stored", lambda number, new=new: new) for new in (0, -1, 2, 7, 2**62)]
    changes += [("out", lambda array: np.ones((32, 31, 4), np.uint8)), ("out", lambda array: array[:, :0])]
    for name, change in changes:
        given = arrays()
        new = change(given[name])
        given[name] = np.ascontiguousarray(new) if isinstance(new, np.ndarray) else new
        with pytest.raises(ValueError, match="do not fit together"):
            shrink(*given.values())
    for name, new in (("x", np.zeros((90, 240))), ("down", good["rows"]), ("top", good["down"]), ("out", good["x"])):
        with pytest.raises(TypeError):
            shrink(*{**arrays(), name: new}.values())


def test_a_frame_knows_how_large_a_checkpoint_may_be(good: tuple[bytes, list[str]], tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS[0]).write_bytes(good[0] + bytes(1 << 20))
    with pytest.raises(FileError, match="larger than the"):
        latest(tmp_path, "", Frame(3, 12, ITERATIONS, OPTIONS))


def test_a_step_beyond_all_numbers_is_not_kept(task: Task, tmp_path: Path) -> None:
    shown: list[Progress] = []

    class Checkpointer:
        every = 1

        def shown(self, progress: Progress) -> None:
            shown.append(progress)

    solver = descent(
        "reference", np.full((2, 1), 255, np.uint8), np.array([[1.0, -1.0]]), np.array([[3.0]]), np.zeros(1),
        np.array([1e308]), options=DescentOptions(l2=1e3),
    )  # fmt: skip
    with pytest.raises(DivergenceError):
        descend(solver, 9, checkpointer=Checkpointer())
    assert [progress.state.iterations for progress in shown] == [0]


# -- Models


def crafted_models() -> list[bytes]:
    model = classifier()
    content = model.to_bytes()
    metadata = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["xlogreg"])
    tensors = {"b": np.array([model.b]), "w": model.w}
    made = [
        save({**tensors, **new}, {"xlogreg": json.dumps(metadata)}) for new in (
            {"w": np.zeros((1, 60))}, {"w": np.zeros(60)}, {"w": np.zeros((59, 1))}, {"w": np.zeros((0, 1))},
            {"w": np.zeros((60, 1), np.float32)}, {"w": np.full((60, 1), np.nan)}, {"w": np.full((60, 1), 2.0**900)},
            {"w": np.zeros((60, 1, 1))}, {"b": np.zeros(2)}, {"b": np.zeros(0)}, {"b": np.zeros((1, 1))},
            {"b": np.array([np.inf])}, {"b": np.array([1], np.int64)}, {"c": np.zeros(1)},
        )
    ]  # fmt: skip
    for name, values in {
        "size": ("[4, 5]", "[4, 5, 3, 1]", "[-4, -5, 3]", "[1048576, 1048576, 3]", '"453"', "[4.0, 5, 3]", "null"),
        "class_names": ("[]", '["a"]', '["a", "a"]', '"ab"', "[1, 2]", '["", "b"]', "null"),
        "format_version": ("0", "3", "-1", "1_0", "9" * 400, ""), "format": ("other", ""),
        "learning_rate": ("nan", "1e400", "x"), "number_of_iterations": ("-1", "1.5", "9" * 30, ""),
        "features": ('{"name": "hog"}', '{"name": "pixels", "cell": 3}', "[]", "null", '{"name": []}', "{}", "[" * 99),
    }.items():  # fmt: skip
        made += [save(tensors, {"xlogreg": json.dumps({**metadata, name: value})}) for value in values]
    return [*made, b"", b"\xff" * 8, (1 << 62).to_bytes(8, "little") + b"{}", save(tensors), b"\x02" + bytes(7) + b"[]"]


def test_models_crafted_and_changed_by_chance() -> None:
    crafted = crafted_models()
    assert len(crafted) >= 50
    for content in crafted:
        with pytest.raises(InputError) as caught:
            Classifier.from_bytes(content)
        one_sentence(caught.value)
    rng = random.Random(2)
    content = classifier().to_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["xlogreg"])
    picture = np.zeros((1, 4, 5, 3), np.uint8)
    refused = 0
    for number in range(MUTATED):
        if number % 3 == 0:
            changed = changed_bytes(rng, content)
        else:
            if number % 3 == 1:
                text = changed_json(rng, header)
            else:
                inner = changed_json(rng, metadata)
                text = json.dumps({**header, "__metadata__": {"xlogreg": inner}})
            new = text.encode("utf-8", "replace")
            changed = len(new).to_bytes(8, "little") + new + content[8 + length :]
        try:
            model = Classifier.from_bytes(changed)
            if model.size == (4, 5, 3):
                model.probability(picture)
        except XlogregError as error:
            one_sentence(error)
            refused += 1
    assert refused > MUTATED // 2


# -- plan.json and results.json, by the command line


@pytest.fixture
def run(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, pictures: Pictures) -> Callable[..., Result]:
    """The command line on small pictures, up to the training."""
    monkeypatch.setattr(sources, "load_birds", lambda: pictures)

    def no_training(*_: object, **__: object) -> None:
        raise InputError("It has come far enough.")

    monkeypatch.setattr("xlogreg.runs.training.train", no_training)
    return run


def assert_one_sentence(result: Result) -> None:
    assert result.code == 2, (result.out, result.err)
    *notes, last = result.err.splitlines()
    assert last.startswith("Error: "), result.err
    assert all(note.startswith(("Note: ", "Warning: ")) for note in notes), result.err
    assert len(last) < 1000, last


PLAN: dict[str, Any] = {
    "format": "xlogreg plan 2", "started_in": "/tmp", "command": "xlogreg train",
    "options": {
        "source": "birds", "positive": "bird", "learning_rate": 0.005, "iterations": 2, "balance": "none", "seed": 0,
        "test_size": 0.2, "l2": 0.1, "momentum": 0.5, "nesterov": False, "stop_gradient": 0.1, "stop_cost": 1e-9,
        "class_weight": "1,2", "validation": 0.2, "start": None, "features": "pixels", "size": None,
        "max_unreadable": None, "no_cache": False, "data": None, "device": "cpu", "implementation": "auto",
    },
}  # fmt: skip


def test_plans_crafted_and_changed_by_chance(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("r").mkdir()
    plan = Path("r", "plan.json")

    def resumed(text: str) -> str:
        plan.write_bytes(text.encode("utf-8", "replace"))
        result = run("train", "--resume", "r")
        assert_one_sentence(result)
        return result.err

    assert "far enough" in resumed(json.dumps(PLAN))
    wrong = [
        (name, value) for name, values in {
            "learning_rate": ("1e400", "NaN", "null", '"0.1"', "[1]", "true", "1" + "0" * 400, "{}"),
            "iterations": ("1e400", "null", "2.5", '"2"', "true", "1" + "0" * 5000, "0"),
            "seed": ("-1", "4294967296", "null", "1e400", "0.0"), "l2": ("1e400", "null", "[]", "-Infinity"),
            "source": ("null", '""', "[]", "{}", "3", '"a\\u0000b"'), "features": ("null", '"x"', "[]"),
            "device": ("null", '""', "{}", "3"), "implementation": ("null", '"x"', "{}"),
            "class_weight": ("null", "[1, 2]", '""', "3"), "balance": ('"x"', "[]", "true"),
            "nesterov": ("null", "0", '"no"'), "test_size": ("1e400", "[]", '"x"', "1" + "0" * 400),
            "validation": ("1e400", '"x"', "NaN"), "start": ('""', "[]", "3"), "size": ("3", '""'), "data": ('""', "3"),
        }.items() for value in values
    ]  # fmt: skip
    assert len(wrong) >= 50
    for name, value in wrong:
        assert "is no plan that this xlogreg can resume" in resumed(replaced(PLAN, ("options", name), value)), name
    for path, value in ((), "[]"), (("options",), "[]"), (("options",), "null"), (("started_in",), "null"):
        assert "is no plan that this xlogreg can resume" in resumed(replaced(PLAN, path, value))
    for before in ("[0]", '["1"]', "[true]", "null", f"[{10**30}]"):
        assert "is no plan that this xlogreg can resume (before" in resumed(
            json.dumps(PLAN)[:-1] + f', "before": {before}}}'
        )
    long = json.dumps({**PLAN, "before": [10**15] * 70_000})
    assert "bytes that it may have; give another." in resumed(long)
    # Of L-BFGS, which has no learning rate.
    lbfgs = {**PLAN, "options": {**PLAN["options"], "solver": "lbfgs", "learning_rate": None, "momentum": 0.0}}
    assert "far enough" in resumed(json.dumps(lbfgs))
    for name, value, words in (
        ("learning_rate", "0.1", "L-BFGS chooses its steps by itself"), ("momentum", "0.5", "L-BFGS has no momentum"),
        ("solver", '"adam"', "is no plan"), ("solver", "null", "is no plan"),
        ("solver", "3", "is no plan"),
        ("solver", '["lbfgs"]', "is no plan"), ("solver", '"gd"', "learning_rate must be a number"),
        ("l2", "[0.1, 0.2]", "is no plan"), ("l2", "-1", "L2 penalty must be"), ("stop_gradient", "-1", "gradient to"),
    ):  # fmt: skip
        assert words in resumed(replaced(lbfgs, ("options", name), value)), name
    rng = random.Random(3)
    for _ in range(MUTATED // 4):
        resumed(changed_json(rng, lbfgs))
    rng = random.Random(3)
    ends = [resumed(changed_json(rng, PLAN)) for _ in range(MUTATED)]
    assert 10 < sum("is no plan" in end for end in ends) < MUTATED - 10


@pytest.fixture
def finished(task: Task, tmp_path: Path) -> Path:
    (training,) = train(task, [0.01], 120, options=OPTIONS)
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, training, asked={"source": "birds", "data": None, "started_in": str(tmp_path)})
    return folder


def test_results_crafted_and_changed_by_chance(run: Callable[..., Result], finished: Path) -> None:
    path = finished / "results.json"
    results = json.loads(path.read_bytes())
    result = run("evaluate", finished)
    assert result.code == 0, result.err

    def used(text: str, fully: bool) -> bool:
        """Whether they are taken for results; if so, or `fully`, they are also used."""
        path.write_bytes(text.encode("utf-8", "replace"))
        try:
            taken = read_results(finished) is not None
        except InputError as error:
            one_sentence(error)
            taken = False
        if taken or fully:
            result = run("evaluate", finished)
            if result.code:
                assert_one_sentence(result)
        if fully:
            try:
                write_report(finished)
            except (InputError, FileError) as error:
                one_sentence(error)
        return taken

    wrong: list[tuple[tuple, str]] = [
        ((first, *rest), value) for (first, *rest), values in {
            ("task", "seed"): ("1e400", "null", "[]", '"0"', "1" + "0" * 400, "-1"),
            ("task", "test_size"): ("1e400", "[]", '"x"', "1" + "0" * 400, "{}", "-1"),
            ("task", "validation"): ("1e400", "[]", '"x"', "1" + "0" * 400, "true"),
            ("task", "balance"): ("[]", "3", "null"), ("task",): ("[]", "null", '"task"'),
            ("task", "class_names"): ("[]", '"ab"', "[1, 2]", '["a"]', '["", "b"]'),
            ("features",): ("[]", '"pixels"', "3"), ("features", "sha256"): ("[]", "3"), ("data",): ("[]", "null"),
            ("asked",): ("[]", '"birds"', "3"), ("asked", "source"): ('""', "[]", "3", '"a\\u0000b"'),
            ("asked", "data"): ("[]", "3", '""'), ("asked", "started_in"): ("[]", "3"), ("options",): ("[]", "null"),
            ("cost_history",): ("{}", "null", '["a"]'), ("learning_rate",): ("1e400", "null", '"x"', "NaN"),
            ("train_accuracy",): ("[]", '"x"'), ("metrics",): ("[]", "null"), ("machine",): ("[]",),
            ("patience",): ("0", "[1]", '"x"'), ("best_iteration",): ("-1", '"x"'), ("stopped_by",): ("3",),
        }.items() for value in values
    ]  # fmt: skip
    assert len(wrong) >= 50
    for number, (place, value) in enumerate(wrong):
        assert not used(replaced(results, place, value), number % 10 == 0), (place, value)
    assert not any(used(text, True) for text in ("[]", "null", "3", "{", "{}", "\x00", "[" * 99_999))
    rng = random.Random(4)
    accepted = sum(used(changed_json(rng, results), number % 10 == 0) for number in range(MUTATED))
    assert 10 < accepted < MUTATED - 10


# -- What is no regular file, and what is too large


def test_results_without_a_learning_rate(task: Task, tmp_path: Path) -> None:
    """Only those of L-BFGS have none; and the page of any others is refused in one sentence, or made."""
    lbfgs = DescentOptions(solver="lbfgs", l2=0.1)
    (training,) = train(task, None, 120, options=lbfgs)
    write_run(tmp_path, training)
    path = tmp_path / "results.json"
    results = json.loads(path.read_bytes())
    assert results["learning_rate"] is None
    read = read_results(tmp_path)
    assert read is not None
    assert read["learning_rate"] is None
    for place, value in (
        (("options", "solver"), '"gd"'), (("options", "solver"), "3"), (("options", "l2"), '"x"'),
        (("options", "l2"), "-1"), (("options", "gradient_tolerance"), '"x"'), (("learning_rate",), '"x"'),
    ):  # fmt: skip
        path.write_text(replaced(results, place, value))
        with pytest.raises(InputError, match="are not as xlogreg writes them"):
            read_results(tmp_path)
    rng = random.Random(5)
    for _ in range(MUTATED // 4):
        path.write_bytes(changed_json(rng, results).encode("utf-8", "replace"))
        try:
            write_report(tmp_path)
        except (InputError, FileError) as error:
            one_sentence(error)


def odd_files(folder: Path) -> list[Path]:
    """A pipe that nobody writes to, and what never ends, where there are such."""
    found = []
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        found.append(folder / "pipe")
    return found + [path for path in (Path("/dev/zero"),) if path.exists()]


def put_in_place(odd: Path, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(odd)


def test_no_file_of_a_run_is_waited_for_or_read_for_ever(
    run: Callable[..., Result], finished: Path, tmp_path: Path, task: Task, good: tuple[bytes, list[str]]
) -> None:
    odd = odd_files(tmp_path)
    Path("r").mkdir()
    for file in odd:
        put_in_place(file, Path("r", "plan.json"))
        result = run("train", "--resume", "r")
        assert_one_sentence(result)
        assert result.err.endswith("r/plan.json is no regular file; give one.\n")
        # A checkpoint of this kind is none, and the other one is taken.
        put_in_place(file, Path("r", CHECKPOINTS[1]))
        with pytest.raises(FileError, match="no regular file") as caught:
            trained(task, Path("r"), "fused")
        one_sentence(caught.value)
        Path("r", CHECKPOINTS[0]).write_bytes(good[0])
        assert trained(task, Path("r"), "fused") == good[1]
        Path("r", CHECKPOINTS[0]).unlink()
        # Pages: neither is a pipe a page that was made here, ..
        result = run("report", finished, "--out", file)
        assert_one_sentence(result)
        assert "no regular file" in result.err
    # .. nor a pipe what a page is made from.
    for name in ("history.csv", "predictions.csv", "pictures.json", "model.safetensors", "results.json"):
        for file in odd:
            put_in_place(file, finished / name)
            for command in ("report", "evaluate"):
                result = run(command, finished)
                if command == "report" or name in ("model.safetensors", "results.json"):
                    assert_one_sentence(result)
                    assert "no regular file" in result.err


def test_a_long_history_takes_hardly_more_memory_than_its_numbers(tmp_path: Path) -> None:
    lines = [f"{i},{0.6:.17g}\n" for i in range(30_000)]
    (tmp_path / "history.csv").write_text("iteration,cost\n" + "".join(lines))
    (tmp_path / "predictions.csv").write_text("part,index,label,probability,file\n" + "test,1,1,0.5,\n" * 20_000)
    tracemalloc.start()
    try:
        history = reading._history(tmp_path)
        labels, probabilities = gallery.read_predictions(tmp_path)["test"]
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()
    assert history is not None
    assert history.tolist() == [0.6] * 30_000
    assert labels.tolist() == [1] * 20_000
    assert probabilities.tolist() == [0.5] * 20_000
    for damaged in ("iteration,cost\n1,0.5\n", "iteration,cost\n0,0.5\n0,0.5\n", "iteration,cost\n0\n", "x\n0,\n"):
        (tmp_path / "history.csv").write_text(damaged)
        with pytest.raises(InputError, match="is damaged"):
            reading._history(tmp_path)
    (tmp_path / "history.csv").write_text("y" * 70_000)
    with pytest.raises(InputError, match="too large"):
        reading._history(tmp_path)


def test_nothing_is_written_among_the_devices(run: Callable[..., Result]) -> None:
    classifier().save("m")
    for out in ("/dev/full.npz", "/dev/../dev/new.onnx"):
        result = run("export", "m", out)
        assert_one_sentence(result)
        assert "among the devices" in result.err
        assert not Path(out).exists()


def test_data_without_a_name(run: Callable[..., Result]) -> None:
    # Not the working folder, which may be full of pictures.
    for command in (("train", ""), ("sweep", "")):
        result = run(*command)
        assert_one_sentence(result)
        assert "The name of the data is empty" in result.err
