"""The report page: one self-contained HTML file of a run folder, made from the files in it and nothing else.

No script, no reference to anything outside; names of classes and folders are text. Pictures are data URIs, curves are
inline SVG in the page's colours. Every number carries its exact value, as `results.json` has it, in a <data> element.
"""

import base64
import contextlib
import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, XlogregError
from ..logistic import history_sha256
from ..models.evaluation import MEASURES, roc_curve
from ..models.weights import WeightView, summary_picture, weight_views
from ..neuron.options import SOLVERS
from ..system import run_file_names
from ..system.files import open_regular, write_whole
from ..system.text import plain, short
from ..system.version import __version__
from .gallery import read_json
from .reading import Run, folder_name, load_run, no_results, sweep_runs
from .svg import Line, chart, dumbbell

_COST_ROWS = 21
# What L-BFGS, which ends by itself, says of its end.
_ENDS = {
    "gradient": "arrived: no part of the gradient above {}", "cost": "the change of the cost is small",
    "validation": "the validation cost no longer falls", "interrupted": "it was ended there",
    "iterations": "did NOT arrive at the optimum: some part of the gradient is still above {}",
    "stuck": "did NOT arrive: it finds no lower cost, but some part of the gradient is still above {}",
}  # fmt: skip
# What has a place of its own on the page; anything else in results.json is shown as it is.
_PLACED = frozenset((
    "xlogreg", "data", "task", "options", "learning_rate", "iterations", "cost_history", "final_cost", "history_sha256",
    "train_accuracy", "test_accuracy", "metrics", "device", "implementation", "models_trained_together", "seconds",
    "seconds_per_iteration", "machine", "command", "folder", "model", "asked", "trained_on", "validation",
    "patience", "best_iteration", "l2_choice",
))  # fmt: skip
# These follow from the class and the data; a run is not called by them.
_COUNTS = frozenset(("train_pictures", "train_positives", "test_pictures", "test_positives", "test_size"))
# What odd results raise on their way to a page.
_ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


def write_report(folder: Path, results: dict[str, Any] | None = None, path: Path | None = None) -> Path:
    """Write the page of a run folder, whole or not at all, to `path` or its own `report.html`.

    `results` stands for a results.json that is not written yet.

    Raises
    ------
    FileError, InputError
        The folder is no run's, a file in it is damaged, or the page cannot be written.
    """
    path = path or folder / run_file_names.PAGE
    sweep = read_json(folder / run_file_names.SWEEP) if results is None else None
    if sweep is not None:
        return write_comparison(sweep_runs(folder, sweep), path, folder_name(folder), str(sweep.get("command", "")))
    run = load_run(folder, results)
    try:
        page = render_run(run)
    except _ODD as error:
        raise no_results(folder) from error
    write_whole(path, page)
    return path


def is_report(path: Path) -> bool:
    """Whether a file is a page that was made here, which may be made again."""
    try:
        with open_regular(path) as file:
            return b'<meta name="generator" content="xlogreg ' in file.read(4096)
    except (OSError, InputError):
        return False


def write_comparison(runs: Sequence[Run], path: Path, title: str, command: str = "") -> Path:
    """Write one page that compares several runs, whole or not at all.

    Raises
    ------
    FileError, InputError
        A run's results are not as xlogreg writes them, or the page cannot be written.
    """
    try:
        page = render_comparison(runs, title, command)
    except _ODD as error:
        raise InputError(
            f"The runs {', '.join(run.name for run in runs)} cannot be compared: the results of one are not as xlogreg "
            "writes them; leave it out."
        ) from error
    write_whole(path, page)
    return path


def render_run(run: Run) -> str:
    """The page of one run."""
    results = run.results
    views: list[WeightView] = []
    about_weights = "The model is not kept in this folder, so its weights are not shown."
    if run.classifier is not None:
        views, about_weights = weight_views(run.classifier)
    # The tutorial compares its learning rates; a reproduction keeps the others' runs in its folder.
    rates = [other for other in (run, *run.others) if other.history is not None] if run.others else []
    metrics = {part: values for part, values in results.get("metrics", {}).items() if "confusion" in values}
    return _render(
        "run.html",
        run=run,
        r=results,
        names=run.class_names,
        metrics=metrics,
        parts=[(style, part) for style, part in enumerate(("test", "train")) if part in metrics],
        undefined={f"{part}: {key}": why for part, m in metrics.items() for key, why in m["undefined"].items()},
        cost_chart=_cost_chart([run], with_validation=True) if run.history is not None else None,
        validation=results.get("validation") or {},
        cost_rows=_cost_rows(run),
        lbfgs=_is_lbfgs(run),
        end=_end(run),
        choice=results.get("l2_choice") or {},
        choice_chart=_choice_chart(results.get("l2_choice") or {}),
        # Whether the costs in history.csv have the digest in results.json; None without them.
        digest_holds=None if run.history is None else history_sha256(run.history) == results["history_sha256"],
        roc=_roc_chart(run),
        calibration=_calibration_chart(metrics),
        views=views,
        about_weights=about_weights,
        tiles={group: [tile for tile in run.tiles if tile.group == group] for group in ("example", "wrong", "own")}
        | {"certain": [tile for tile in run.tiles if tile.group.startswith("certain")]},
        facts=_facts(run),
        published=_published(run),
        rates=rates,
        rates_lines=[(i, f"{other.results['learning_rate']:g}") for i, other in enumerate(rates)],
        rates_chart=_cost_chart(rates) if rates else None,
    )


def render_comparison(runs: Sequence[Run], title: str, command: str = "") -> str:
    """The page that compares several runs."""
    options = [_options(run) for run in runs]
    keys = list(dict.fromkeys(key for given in options for key in given))
    differing = [key for key in keys if len({given.get(key) for given in options}) > 1]
    # Of pictures that are only tested on there is no other.
    both = [(r.results.get("train_accuracy", r.results["test_accuracy"]), r.results["test_accuracy"]) for r in runs]
    accuracies = [accuracy for pair in both for accuracy in pair]
    low, high = 10 * math.floor(min(accuracies) / 10), 10 * math.ceil(max(accuracies) / 10)
    low = low if low < high else high - 10
    # An accuracy on other classes or other test pictures is no better or worse.
    alike = not any(key in differing for key in ("positive", "source", "seed", "test_pictures", "test_positives"))
    highest = max(run.results["test_accuracy"] for run in runs)
    best = [i for i, run in enumerate(runs) if alike and run.results["test_accuracy"] == highest]
    unnamed = set(_COUNTS)
    if len(set(found := [(given.get("solver"), given.get("gradient_tolerance")) for given in options])) == len(
        {solver for solver, _ in found}
    ):
        unnamed.add("gradient_tolerance")  # it goes with the solver
    labels = [
        ", ".join(
            _named(key, given[key])
            for key in differing
            # How many evaluations were allowed says nothing of a run that arrived before.
            if key in given and key not in unnamed and not (key == "iterations" and _has_arrived(run))
        )
        or run.name
        for run, given in zip(runs, options, strict=True)
    ]
    models = [(label, run.classifier) for label, run in zip(labels, runs, strict=True) if run.classifier is not None]
    return _render(
        "comparison.html",
        title=title,
        runs=runs,
        labels=labels,
        best=best,
        low=low,
        high=high,
        ends=[_brief_end(run) for run in runs],
        dumbbells=[dumbbell(train, test, low, high, f"train {train:.2f} %, test {test:.2f} %") for train, test in both],
        pictures=[
            (label, picture) for label, model in models if (picture := summary_picture(model)) is not None
        ],
        of_pixels=not any(model.features.kind.describes_edges for _, model in models),
        cost_chart=_cost_chart(runs, labels) if any(run.history is not None for run in runs) else None,
        cost_lines=[(i, labels[i]) for i, run in enumerate(runs) if run.history is not None],
        shared={key: options[0][key] for key in keys if key not in differing},
        machine=_flat(runs[0].results.get("machine", {})),
        command=command,
    )


def _render(template: str, **context: Any) -> str:
    from jinja2 import Environment, PackageLoader, UndefinedError
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("xlogreg", "runs/templates"), autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
        # What would reorder the page's text is shown, not obeyed. (Markup is ours.)
        finalize=lambda value: plain(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters |= {"number": _number, "uri": _uri, "words": _words, "short": short}
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    # Only this very style may act on the page: no name of a class can smuggle in another.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    try:
        page = environment.get_template(template).render(
            style=Markup(style), style_hash=digest, version=__version__, measures=MEASURES, svg=Markup, **context
        )
        # Names of folders are bytes, not always Unicode.
        return page.encode("utf-8", "backslashreplace").decode("utf-8")
    except UndefinedError as error:
        raise KeyError(str(error)) from error


def _cost_chart(runs: Sequence[Run], labels: Sequence[str] | None = None, *, with_validation: bool = False) -> str:
    lines = [
        Line(labels[i] if labels else run.name, np.arange(len(run.history), dtype=np.float64), run.history, i)
        for i, run in enumerate(runs)
        if run.history is not None
    ]
    first = lines[0]
    step = "evaluation" if all(map(_is_lbfgs, runs)) else "iteration"
    text = f"Cost against {step}: {len(lines)} lines."
    if len(lines) == 1 and len(first.y):
        text = f"The cost falls from {first.y[0]:.4f} to {first.y[-1]:.4f} in {len(first.y)} {step}s."
    # The axis ends at the number of iterations, one past the last cost.
    end = float(max(2, *(len(line.y) for line in lines), 2))
    records = (runs[0].results.get("validation") or {}).get("history") if with_validation else None
    if records:
        at, costs = (np.array([record[key] for record in records], dtype=np.float64) for key in ("iteration", "cost"))
        lines.append(Line("validation", at, costs, 1))
    return chart(lines, step, "cost", text, x_range=(0.0, end))


def _cost_rows(run: Run) -> list[tuple[int, float, str]]:
    """(iteration, cost, place) of every 100th iteration, as results.json has them, thinned evenly if there are many; of
    L-BFGS, which has few, of evaluations in history.csv."""
    costs, step = run.results.get("cost_history", []), 100
    if _is_lbfgs(run) and run.history is not None:
        costs, step = run.history, 1
    rows = range(0, len(costs), max(1, -(-len(costs) // _COST_ROWS)))
    return [(step * i, float(costs[i]), f"cost_history.{i}" if step > 1 else "") for i in rows]


def _is_lbfgs(run: Run) -> bool:
    return bool(run.results.get("options", {}).get("solver") == "lbfgs")


def _has_arrived(run: Run) -> bool:
    return _is_lbfgs(run) and run.results.get("stopped_by") == "gradient"


def _brief_end(run: Run) -> str:
    """How a run by L-BFGS ended, in a few words; nothing of other runs."""
    stopped, done = run.results.get("stopped_by"), run.results.get("iterations", 0)
    if not _is_lbfgs(run):
        return ""
    how = {"gradient": "arrived after", "iterations": "did NOT arrive in", "stuck": "did NOT arrive in"}
    return f"{how.get(str(stopped), 'ended after')} {done:,} evaluations"


def _end(run: Run) -> str:
    """How a run by L-BFGS ended, in words; nothing of other runs."""
    r = run.results
    tolerance = r.get("options", {}).get("gradient_tolerance")
    if not _is_lbfgs(run) or tolerance is None or r.get("stopped_by") not in _ENDS:
        return ""
    return _ENDS[r["stopped_by"]].format(f"{tolerance:g}")


# The style of a part's lines, drawn in this order.
_PARTS = {"train": 1, "test": 0}


def _roc_chart(run: Run) -> str | None:
    lines = []
    for part in filter(run.predictions.__contains__, _PARTS):
        with contextlib.suppress(XlogregError):  # one class alone has no curve
            false, true, _ = roc_curve(*run.predictions[part])
            lines.append(Line(part, false, true, _PARTS[part]))
    return _unit_chart(
        lines, "false positive rate", "true positive rate", "ROC curve: true against false positive rate."
    )


def _choice_chart(choice: dict[str, Any]) -> str | None:
    """Log loss against L2, decades apart, of an L2 that was chosen."""
    found = [(l2, score) for l2, score in zip(choice.get("values", ()), choice.get("scores", ()), strict=False)
             if l2 > 0 and score is not None]  # fmt: skip
    if len(found) < 2:
        return None
    l2, scores = (np.array(column, dtype=np.float64) for column in zip(*found, strict=True))
    lowest, at = float(scores.min()), float(l2[scores.argmin()])
    x = np.log10(l2)
    return chart(
        [Line("log loss", x, scores, 0, np.full(len(x), 4.0))], "L2", "log loss, held out",
        f"The log loss of cross-validation against L2: lowest, {lowest:.4f}, at {at:g}.",
        x_range=(float(x.min()) - 0.25, float(x.max()) + 0.25) if x.max() > x.min() else None,
        x_ticks=[(float(place), f"{value:g}") for place, value in zip(x, l2, strict=True)],
    )


def _calibration_chart(metrics: dict[str, Any]) -> str | None:
    lines = []
    for part, style in _PARTS.items():
        bins = [bin for bin in metrics.get(part, {}).get("calibration", ()) if bin["pictures"]]
        if bins:
            count, x, y = (
                np.array([bin[key] for bin in bins], dtype=np.float64)
                for key in ("pictures", "mean_probability", "share_positive")
            )
            lines.append(Line(part, x, y, style, 2 + 7 * np.sqrt(count / count.sum())))
    return _unit_chart(
        lines, "predicted probability", "share that is positive",
        "Calibration: the share that is positive against the predicted probability, by bins.",
    )  # fmt: skip


def _unit_chart(lines: list[Line], x_label: str, y_label: str, description: str) -> str | None:
    unit = (0.0, 1.0)
    return chart(lines, x_label, y_label, description, x_range=unit, y_range=unit, diagonal=True) if lines else None


def _options(run: Run) -> dict[str, str]:
    """What was asked for, in words; of features and start only what people name."""
    r = run.results
    # How many evaluations L-BFGS takes is no option.
    given = {"learning_rate": r.get("learning_rate"),
             "iterations": r.get("max_iterations" if _is_lbfgs(run) else "iterations")}  # fmt: skip
    if given["learning_rate"] is None:
        del given["learning_rate"]
    # Before there were several solvers, there was one.
    solver = {"solver": "gd"} if "options" in r else {}
    chosen = {"features": (r.get("features") or {}).get("name"), "start": bool(r.get("start")),
              "patience": r.get("patience")}  # fmt: skip
    given |= {key: value for key, value in chosen.items() if value}
    task = {key: value for key, value in r["task"].items() if key != "class_names"}
    return _flat({**r.get("data", {}), **task, **solver, **given, **r.get("options", {})})


def _facts(run: Run) -> list[tuple[str, dict[str, str]]]:
    """Headed lists of names and values: everything in results.json that has no other place on the page."""
    r = run.results
    keys = ("model", "learning_rate", "iterations", "device", "implementation", "models_trained_together")
    groups = [
        ("Data", _flat(r.get("data", {}))),
        ("Task", _flat(r["task"])),
        ("Training", _flat({key: r[key] for key in keys if r.get(key) is not None}) | _flat(r.get("options", {}))),
        ("Machine", _flat({"xlogreg": r.get("xlogreg"), **r.get("machine", {})})),
        ("Also recorded", _flat({key: value for key, value in r.items() if key not in _PLACED})),
    ]
    return [(title, facts) for title, facts in groups if facts]


def _flat(content: Any, prefix: str = "") -> dict[str, str]:
    """A nested dict as names and values in words."""
    flat: dict[str, str] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, "" if key == "versions" else f"{name} ")
        else:
            flat[name] = _plain(key, value)
    return flat


def _plain(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        text = (" x " if key == "size" else ", ").join(_plain("", item) for item in value[:50])
        return f"{text}, and {len(value) - 50} more" if len(value) > 50 else text
    if key == "solver":
        return SOLVERS.get(value, str(value))
    return f"{value:,}" if isinstance(value, int) and key not in ("seed",) else str(value)


def _published(run: Run) -> dict[str, Any] | None:
    """The tutorial's published numbers beside the run's, for a reproduction."""
    if run.comparison is None:
        return None
    from ..proof import tutorial

    costs = [
        (100 * i, published, obtained)
        for i, (published, obtained) in enumerate(zip(tutorial.COST_HISTORY, run.results["cost_history"], strict=False))
    ]
    by_rate = {other.results["learning_rate"]: other.results for other in (run, *run.others)}
    accuracies = [
        (rate, part, published, by_rate[rate][f"{part}_accuracy"])
        for rate, both in tutorial.ACCURACIES.items() if rate in by_rate
        for part, published in zip(("train", "test"), both, strict=True)
    ]  # fmt: skip
    return {"costs": costs, "accuracies": accuracies, "reproduced": run.comparison.get("reproduced") is True}


def _number(value: Any, key: str, unit: str = "", digits: int | None = None) -> Any:
    """A number as people read it, its exact value beside it: <data value="62.19512195121951">62.20 %</data>."""
    from markupsafe import Markup

    if value is None:
        return Markup('<span class="none" data-key="{}">undefined</span>').format(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} is no number")
    if unit == "s":
        text = f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    elif isinstance(value, int) or unit == "g":
        text = f"{value:g}" if unit == "g" else f"{value:,}"
    else:
        text = f"{value:.{(2 if unit == '%' else 4) if digits is None else digits}f}"
        text += "\N{NO-BREAK SPACE}%" if unit == "%" else ""
    return Markup('<data value="{}" data-key="{}">{}</data>').format(repr(value), key, text)


def _uri(picture: np.ndarray) -> str:
    """A picture (h, w, 3) uint8 as a PNG data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _words(key: str) -> str:
    return str(key).replace("_", " ")


def _named(key: str, value: str) -> str:
    """An option and its value, in as few words as can be."""
    return value if key == "solver" else f"{'L2' if key == 'l2' else _words(key)} {value}"
