"""The report page: the numbers of results.json, names as text, nothing from outside, made again from the folder."""

import csv
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, chromium, look
from PIL import Image

from xlogreg.data.task import Task
from xlogreg.errors import FileError, InputError
from xlogreg.images.features import Features
from xlogreg.models.classifier import Classifier
from xlogreg.models.evaluation import MEASURES, predict_task
from xlogreg.models.weights import AGAINST, FOR, ZERO, diverging, weight_views
from xlogreg.neuron.options import DescentOptions
from xlogreg.runs import plots, svg
from xlogreg.runs.gallery import read_predictions, read_tiles, shown, tiles, write_gallery, write_tiles
from xlogreg.runs.reading import load_runs
from xlogreg.runs.report import write_comparison, write_report
from xlogreg.runs.run_folder import write_evaluation, write_json, write_run
from xlogreg.runs.training import Training, train
from xlogreg.system.text import csv_lines, csv_rows

EVIL = '<img src=x onerror="alert(1)"></style><script>alert(2)</script> & {{ 7*7 }} $x$'


class Page(HTMLParser):
    """All attributes, the text, and the <data> elements by their key."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: dict[str, list[tuple[float, str]]] = {}
        self._open: dict[str, str | None] | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "data":
            self._open = dict(attributes)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open is not None:
            key, value = self._open.get("data-key") or "", self._open["value"]
            assert value is not None
            self.data.setdefault(key, []).append((float(value), data))
            self._open = None


def a_task(positive: str = "round", count: int = 60, size: tuple[int, int, int] = (12, 10, 3)) -> Task:
    random = np.random.RandomState(0)
    y = random.randint(0, 2, count)
    x = random.randint(0, 256, (count, *size), dtype=np.uint8)
    x[y == 1, :6] = np.minimum(x[y == 1, :6] + 30, 255)
    cut = count * 2 // 3
    return Task(x[:cut], y[:cut], x[cut:], y[cut:], positive, "made for a test", {"positive": positive, "seed": 0})


def a_training(task: Task, rate: float = 0.05, iterations: int = 250) -> Training:
    return train(task, [rate], iterations, implementation="reference")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "run"
    path.mkdir()
    write_run(path, a_training(a_task()), plots.plot_run)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "run")


def test_numbers_are_those_of_the_results(folder: Path) -> None:
    results, page = json.loads((folder / "results.json").read_text()), Page(folder / "report.html")
    checked = 0
    for key, seen in page.data.items():
        value: Any = results
        if key in ("tile", "own.probability"):
            continue
        for step in key.split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
        for exact, text in seen:
            assert exact == value, key
            digits = re.search(r"-?[\d,]*\.?\d+", text)
            assert digits is not None
            number = float(digits[0].replace(",", "")) / (1e3 if text.endswith("ms") else 1)
            assert number == pytest.approx(value, rel=0.01, abs=0.006), key
            checked += 1
    wanted = {f"metrics.{part}.{m.key}" for part in ("train", "test") for m in MEASURES}
    wanted |= {f"metrics.test.confusion.{i}.{j}" for i in (0, 1) for j in (0, 1)}
    wanted |= {"test_accuracy", "train_accuracy", "final_cost", "seconds", "iterations", "learning_rate"}
    wanted |= {f"cost_history.{i}" for i in range(3)}
    assert wanted <= set(page.data)
    assert checked >= len(wanted)
    assert results["history_sha256"] in page.text
    assert "have this digest" in page.text
    assert results["metrics"]["test"]["accuracy"] == results["test_accuracy"]


def test_one_file_and_nothing_from_outside(folder: Path) -> None:
    page = Page(folder / "report.html")
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        if tag == "img":
            assert attributes["alt"]
    assert not re.search(r"@import|url\(|https?:", page.source)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"][1:] for t, a in page.tags if t == "a" and a["href"]} <= ids
    (policy,) = (a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert len(page.source) < 500_000
    for words in ("max-width: 47.5rem", "prefers-color-scheme: dark", "@media print"):
        assert words in page.source


def test_made_again_from_the_folder_alone(copied: Path) -> None:
    before = (copied / "report.html").read_bytes()
    (copied / "report.html").unlink()
    assert write_report(copied) == copied / "report.html"
    assert (copied / "report.html").read_bytes() == before


def test_names_are_text(tmp_path: Path) -> None:
    write_run(tmp_path, a_training(a_task(EVIL), iterations=20))
    page = Page(tmp_path / "report.html")
    assert EVIL in page.text
    assert f"not {EVIL}" in page.text
    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags
    assert all(a["src"] and a["src"].startswith("data:") for t, a in page.tags if t == "img")
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    assert any(EVIL in (a.get("alt") or "") for t, a in page.tags if t == "img")
    runs = load_runs(tmp_path) * 2
    write_comparison(runs, tmp_path / "c.html", EVIL, EVIL)
    compared = Page(tmp_path / "c.html")
    assert EVIL in compared.text
    assert "script" not in {tag for tag, _ in compared.tags}


def test_options_are_shown_whatever_they_are(copied: Path) -> None:
    results = json.loads((copied / "results.json").read_text())
    results |= {"options": {"l2": 0.125, "momentum": None, "nested": {"deep": [1, 2]}}, "stopped_by": "small gradient"}
    write_json(copied / "results.json", results)
    text = Page(write_report(copied)).text
    for words in ("l2", "0.125", "momentum", "none", "nested deep", "1, 2", "stopped by", "small gradient"):
        assert words in text


def test_a_changed_history_is_told(copied: Path) -> None:
    lines = (copied / "history.csv").read_text().splitlines()
    lines[5] = "4,0.5"
    (copied / "history.csv").write_text("\n".join(lines) + "\n")
    assert "do NOT have this digest" in Page(write_report(copied)).text


def test_a_folder_with_the_results_alone_still_has_a_page(copied: Path) -> None:
    for path in copied.iterdir():
        if path.name != "results.json":
            path.unlink()
    page = Page(write_report(copied))
    assert "not kept in this folder" in page.text
    results = json.loads((copied / "results.json").read_text())
    del results["metrics"]  # as older folders have it
    write_json(copied / "results.json", results)
    assert page.data["test_accuracy"][0][0] == Page(write_report(copied)).data["test_accuracy"][0][0]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("results.json", "{", "is no JSON"),
        ("results.json", "[" * 100_000, "is no JSON"),
        ("results.json", "[]", "not as xlogreg writes them"),
        ("results.json", '{"task": {}}', "not as xlogreg writes them"),
        ("results.json", '{"task": 3, "data": 4}', "not as xlogreg writes them"),
        ("results.json", '{"task": ' + '{"a": ' * 900 + "1" + "}" * 901, "not as xlogreg writes them"),
        ("sweep.json", '{"runs": 3}', "not as xlogreg writes them"),
        ("sweep.json", "[]", "not as xlogreg writes them"),
        ("sweep.json", '{"runs": [{"history_sha256": []}, 3]}', "not as xlogreg writes them"),
        ("history.csv", "iteration,cost\n0,x\n", "is damaged"),
        ("predictions.csv", "part,index,label,probability\ntest,1\n", "is damaged"),
        ("pictures.json", '[{"group": "wrong", "box": [0, 0, 9999, 9]}]', "does not fit"),
        ("pictures.json", '[{"group": "<b>", "index": 0, "true": 1, "predicted": 1, "probability": 1, '
         '"box": [0, 0, 1, 1]}]', "does not fit"),
        ("pictures.json", '{"a": 1}', "does not fit"),
        ("model.safetensors", "no model", "is not a model"),
    ],
)  # fmt: skip
def test_damaged_files_get_one_sentence_and_the_page_stays(copied: Path, file: str, content: str, words: str) -> None:
    before = (copied / "report.html").read_bytes()
    (copied / file).write_text(content)
    with pytest.raises((InputError, FileError), match=words) as caught:
        write_report(copied)
    assert "\n" not in str(caught.value)
    assert (copied / "report.html").read_bytes() == before
    assert not list(copied.glob(".*"))


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"holds no results\.json"):
        write_report(tmp_path)


def test_undefined_measures_are_words(tmp_path: Path) -> None:
    task = a_task()
    task.y_test[:] = 0
    write_run(tmp_path, a_training(task, iterations=5))
    page = Page(tmp_path / "report.html")
    assert "metrics.test.recall" not in page.data
    assert "test: recall is undefined: no picture is of class 'round'." in page.text
    plots.plot_predictions(tmp_path, predict_task(Classifier.load(tmp_path), task))
    assert (tmp_path / "evaluation.png").stat().st_size > 5000


def test_evaluation_folder(folder: Path, tmp_path: Path) -> None:
    write_evaluation(tmp_path, predict_task(Classifier.load(folder), a_task()), "some/model", plots.plot_predictions)
    first, second = (json.loads((path).read_text()) for path in (folder / "results.json", tmp_path / "evaluation.json"))
    assert first["metrics"] == second["metrics"]
    page = Page(tmp_path / "report.html")
    assert "some/model" in page.text
    assert page.data["metrics.test.brier"][0][0] == first["metrics"]["test"]["brier"]
    assert {"evaluation.png", "most_wrong.png", "most_certain.png", "weights.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    assert write_report(tmp_path).read_text() == page.source


def test_comparison(tmp_path: Path) -> None:
    task = a_task()
    for rate in (0.05, 0.01):
        (tmp_path / f"rate-{rate}").mkdir()
        write_run(tmp_path / f"rate-{rate}", a_training(task, rate, 30))
    write_json(tmp_path / "sweep.json", {"runs": [], "command": "xlogreg sweep 'a b'"})
    page = Page(write_report(tmp_path))
    assert "Most test pictures right: learning rate 0.0" in page.text
    assert "xlogreg sweep 'a b'" in page.text
    for i, run in enumerate(load_runs(tmp_path)):
        for key in ("test_accuracy", "train_accuracy", "final_cost"):
            assert page.data[f"runs.{i}.{key}"][0][0] == run.results[key]
        assert page.data[f"runs.{i}.metrics.test.roc_auc"][0][0] == run.results["metrics"]["test"]["roc_auc"]
        assert run.results["history_sha256"] in page.text


@pytest.mark.filterwarnings("ignore::xlogreg.ConvergenceWarning")
def test_pages_of_lbfgs(folder: Path, tmp_path: Path) -> None:
    lbfgs, penalties = DescentOptions(solver="lbfgs"), [0.1, 0.01]
    both = train(a_task(), None, 100, options=lbfgs, l2=penalties)
    for one in both:
        sub = tmp_path / f"l2-{one.options.l2}"
        sub.mkdir()
        write_run(sub, one, plots.plot_run)
    page = Page(tmp_path / "l2-0.1" / "report.html")
    assert "arrived: no part of the gradient above 0.0001" in page.text
    assert page.data["options.l2"] == [(0.1, "0.1")]
    assert page.data["iterations"][0][0] == len(both[0].history)
    for words in ("L-BFGS", "evaluations", "an evaluation", repr(float(both[0].history[0]))):
        assert words in page.text
    assert "learning rate" not in page.text
    assert "undefined" not in page.text
    # Of several penalties each is called by its own; beside gradient descent by the solver.
    write_json(tmp_path / "sweep.json", {"runs": [], "command": ""})
    page = Page(write_report(tmp_path))
    assert "Most test pictures right: L2 0." in page.text
    assert page.text.count(f"arrived after {len(both[0].history)} evaluations") == 1
    assert "gradient tolerance" in page.text[page.text.index("What the runs share") :]
    page = Page(write_comparison([*load_runs(tmp_path), *load_runs(folder)], tmp_path / "c.html", "three"))
    assert "L-BFGS, L2 0.1" in page.text
    assert "gradient descent, iterations 250, L2 0.0, learning rate 0.05" in page.text
    # What did not arrive says so.
    (short,) = train(a_task(), None, 3, options=lbfgs)
    write_run(tmp_path, short)
    assert "did NOT arrive at the optimum" in Page(tmp_path / "report.html").text
    # An evaluation of such a model has no learning rate either.
    (tmp_path / "e").mkdir()
    write_evaluation(tmp_path / "e", predict_task(both[0].classifier, a_task()), "l2-0.1")
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["learning_rate"] is None
    assert "learning rate" not in Page(write_report(tmp_path / "e")).text


def test_runs_that_tie_are_all_named(folder: Path, tmp_path: Path) -> None:
    page = Page(write_comparison(load_runs(folder) * 2, tmp_path / "c.html", "twice"))
    assert "Most test pictures right: run and run, with" in page.text
    assert sum(attributes.get("class") == "best" for _, attributes in page.tags) == 2


def test_runs_of_other_classes_have_no_best_one(folder: Path, tmp_path: Path) -> None:
    write_run(tmp_path, a_training(a_task("square"), iterations=5))
    path = write_comparison(load_runs(folder) + load_runs(tmp_path), tmp_path / "c.html", "two")
    page = Page(path)
    assert "Most test pictures right" not in page.text
    assert "say little beside each other" in page.text
    assert not any(attributes.get("class") == "best" for _, attributes in page.tags)
    assert "positive round" in page.text


def test_tiles_are_the_most_wrong_and_the_most_certain(folder: Path) -> None:
    training = a_training(a_task())
    chosen, y, p = tiles(training.predictions), training.task.y_test, training.probability_test
    wrong = [tile for tile in chosen if tile.group == "wrong"]
    assert all(tile.true != tile.predicted for tile in wrong)
    doubts = [abs(tile.probability - 0.5) for tile in wrong if tile.probability is not None]
    assert doubts == sorted(doubts, reverse=True)
    assert len(wrong) == min(12, int(((p >= 0.5) != y).sum())) > 0
    certain = [tile for tile in chosen if tile.group == "certain_1"]
    assert certain[0].index == int(np.argmax(p))
    np.testing.assert_array_equal(certain[0].pixels, training.task.x_test[certain[0].index])
    # Kept and read again, they are the same.
    for kept, tile in zip(read_tiles(folder), chosen, strict=True):
        np.testing.assert_array_equal(kept.pixels, tile.pixels)
        assert (kept.group, kept.index, kept.true, kept.predicted, kept.probability) == (
            tile.group, tile.index, tile.true, tile.predicted, tile.probability,
        )  # fmt: skip
    np.testing.assert_array_equal(read_predictions(folder)["test"][1], p)


def test_large_grey_and_featureless_pictures(tmp_path: Path) -> None:
    task = a_task(size=(200, 300, 1), count=12)
    chosen = tiles(a_training(task, 0.001, 3).predictions)
    assert chosen[0].pixels.shape == (64, 96, 3)
    write_tiles(tmp_path, chosen)
    assert len(read_tiles(tmp_path)) == len(chosen)
    assert shown(Task(*(np.zeros((3, 5), np.uint8),) * 4, "a", "b", {}), "test") is None


def test_weights_as_pictures() -> None:
    def model(w: np.ndarray, size: tuple[int, int, int]) -> Classifier:
        return Classifier(w.reshape(-1, 1), 0.0, ("a", "b"), size, 0.1, 1, "", "", "")

    w = np.zeros((4, 5, 3))
    w[0, 0], w[1, 1] = (2, 0, 0), (0, -2, 0)
    views, _ = weight_views(model(w, (4, 5, 3)))
    positive, negative, both, red, green, blue = (view.picture for view in views)
    assert positive[0, 0].tolist() == [255, 0, 0]
    assert negative[1, 1].tolist() == [0, 255, 0]
    assert both[2, 2].tolist() == [128, 128, 128]
    assert red[0, 0].tolist() == list(FOR)
    assert green[1, 1].tolist() == list(AGAINST)
    assert (blue == np.array(ZERO)).all()
    assert diverging(np.array([0.0])).tolist() == [list(ZERO)]
    assert len(weight_views(model(np.ones((4, 4, 1)), (4, 4, 1)))[0]) == 1
    views, why = weight_views(model(np.zeros((4, 5, 3)), (4, 5, 3)))
    assert not views
    assert "All weights are zero" in why


def test_weights_of_gradients(tmp_path: Path) -> None:
    # 7 x 7 blocks of 2 x 2 cells of 9 directions, of pictures of 32 x 32.
    hog = Features("hog", cell=4, block=2)
    w = np.zeros((1764, 1))
    w[0], w[-1] = 1, -1
    classifier = Classifier(w, 0.0, ("a", "b"), (32, 32, 3), 0.1, 1, "", "", "", hog)
    views, _ = weight_views(classifier)
    assert [view.caption for view in views] == ["for b", "against b"]
    assert views[0].picture.shape == (192, 192, 3)
    inked = (views[0].picture != np.array(ZERO, np.uint8)).any(axis=2)
    assert inked[:24, :24].any()
    assert not inked[48:].any()
    shown = [plots._Shown(view.picture, view.caption) for view in views]
    plots._plot_pictures(tmp_path / "weights.png", shown, "Weights", 3, side=2.4)
    with Image.open(tmp_path / "weights.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 1


def test_ticks_and_charts() -> None:
    assert svg.ticks(0, 2000) == [0, 500, 1000, 1500, 2000]
    assert svg.ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    x, y = svg.thin(np.arange(10_000.0), np.where(np.arange(10_000) == 5001, 9.0, 1.0))
    assert len(x) < 300
    assert y.max() == 9
    for values in ([0.5], [], [1.0, np.nan, np.inf], [0.0, 0.0], [1e300, -1e300], [1e-300, 0]):
        line = svg.Line("<b>", np.arange(len(values), dtype=float), np.array(values, dtype=float))
        drawn = svg.chart([line], "x", "<y>", "d")
        assert "<b>" not in drawn
        assert "<y>" not in drawn
        assert "nan" not in drawn
        assert "inf" not in drawn


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install Debian's package chromium")
def test_in_a_browser(folder: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    write_run(evil, a_training(a_task(EVIL + "w" * 80), iterations=20))
    comparison = write_comparison(load_runs(folder) + load_runs(evil), tmp_path / "comparison.html", "two")
    colours = set()
    with chromium() as browser:
        for page in (folder / "report.html", evil / "report.html", comparison):
            for width, scheme in ((360, "light"), (1280, "dark")):
                seen = look(browser, page, width, scheme)
                assert seen["said"] == [], (page, seen["said"])
                assert seen["asked"] == [page.as_uri()]
                assert seen["width"] <= width, (page, width, seen["width"])
                assert seen["over"] == 0
                assert min(seen["pictures"]) > 0
                colours.add((scheme, seen["background"], seen["ink"]))
        assert len(colours) == 2
        # The test can fail: a page with a script, a far picture and a wide box is told.
        bad = tmp_path / "bad.html"
        bad.write_text(
            "<script>console.log(1)</script><img src='http://127.0.0.1:9/x.png'><div style='width:2000px'>x</div>"
        )
        seen = look(browser, bad, 360, "light")
        assert seen["said"]
        assert len(seen["asked"]) == 2
        assert seen["over"] > 0


def test_pictures_are_pictures(folder: Path) -> None:
    for name in ("evaluation", "most_wrong", "most_certain", "weights", "examples", "cost_history", "test_picture"):
        with Image.open(folder / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5, name


def test_no_character_of_a_name_reaches_the_charts_as_it_is(copied: Path, tmp_path: Path) -> None:
    name = "a\x1b[31m\u202eb\x9bc\x00d\u2028<e>&'\ud800"
    line = svg.Line(name, np.arange(3.0), np.arange(3.0))
    drawn = svg.chart([line], name, name, name) + svg.dumbbell(1, 2, 0, 3, name)
    assert drawn.count("a\\x1b[31m\\u202eb\\x9bc\\x00d\\u2028&lt;e&gt;&amp;&#39;\\ud800") == 5
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2028\ud800-\udfff]", drawn)
    # The names of runs are those of their folders and classes.
    results = json.loads((copied / "results.json").read_text())
    for i in range(2):
        (tmp_path / f"x\x1b{i}\u202e").mkdir()
        results["task"]["class_names"] = ["rest", f"y{i}\u202e\x9b"]
        shutil.copy(copied / "history.csv", tmp_path / f"x\x1b{i}\u202e")
        write_json(tmp_path / f"x\x1b{i}\u202e" / "results.json", results)
    runs = [run for i in range(2) for run in load_runs(tmp_path / f"x\x1b{i}\u202e")]
    page = Page(write_comparison(runs, tmp_path / "page.html", "both"))
    assert "x\\x1b0\\u202e" in page.source
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page.source)


def test_formulas_in_names_are_text_to_spreadsheets_and_come_back(tmp_path: Path) -> None:
    names = (
        "=cmd|' /C calc'!A0", "+1", "-1.png", "@SUM(A1)", "\tx", "\rx", "'=x", "''-x", "'plain", "＝1", "a=b", "",
        "0.5",
    )  # fmt: skip
    table = csv_lines([names, ("train", 1, 0.25)])
    assert list(csv_rows(io.StringIO(table, newline=""))) == [list(names), ["train", "1", "0.25"]]
    (first, second) = csv.reader(io.StringIO(table, newline=""))
    assert not any(cell[:1] in tuple("=+-@\t\r＝") for cell in first if cell)
    assert (first[0], first[8:]) == (f"'{names[0]}", ["'plain", "'＝1", "a=b", "", "0.5"])
    assert second == ["train", "1", "0.25"]
    # In a run folder, and what is read of it again.
    task = a_task(count=9)
    task = dataclasses.replace(task, files_train=names[:6], files_test=names[6:9])
    write_gallery(tmp_path, (training := a_training(task, iterations=2)).predictions)
    with open(tmp_path / "predictions.csv", encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)][:3] == [f"'{name}" for name in names[:3]]
    kept = read_predictions(tmp_path)
    assert kept["train"][1].tolist() == training.probability_train.tolist()
    table = io.StringIO((tmp_path / "predictions.csv").read_bytes().decode(), newline="")
    assert [row[4] for row in csv_rows(table)][1:] == list(names[:9])
