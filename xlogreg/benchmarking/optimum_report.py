"""Table and plot of the saved way to the optimum; nothing is measured here.

    python -m xlogreg.benchmarking.optimum_report benchmarks/results/optimum.json docs/optimum.md

puts the table into the page, between its two comments.
"""

import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runs.run_folder import write_json
from ..system.files import make_folder, whole_file, write_whole
from .minimisers import OURS
from .optimum import GOALS

_BEGIN, _END = "<!-- table of optimum.json -->", "<!-- end of the table -->"
_COLOURS = {
    "xlogreg": "#d1495b", "scikit": "#7b5ea7", "SciPy": "#2a9d8f", "JAX": "#1f77b4", "optax": "#63a4d8",
    "PyTorch": "#e9a03b",
}  # fmt: skip


def write_report(folder: Path, results: dict[str, Any]) -> None:
    """Write optimum.json, optimum.md and optimum.png into `folder`."""
    make_folder(folder)
    write_json(folder / "optimum.json", results)
    write_whole(folder / "optimum.md", markdown(results))
    plot(folder / "optimum.png", results)


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown: where and how, the short table, a table a question, and who did not arrive."""
    lines = [*_where(results), "", summary(results), ""]
    for question in results["questions"]:
        lines += [f"### {_title(question)}, C = {question['C']:g}", ""]
        lines += [
            "| to what | minimiser | threads | s | time / xlogreg's | evaluations or steps | largest gradient "
            "| cost above the lowest | peak memory / pixels |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for goal in GOALS:
            for entry in sorted(_best(question, goal).values(), key=lambda one: one["median_seconds"]):
                memory = entry["memory"]
                share = f"{memory / question['pixel_bytes']:.2f}" if memory and question["pictures"] >= 10_000 else ""
                family = ", ".join(filter(None, [entry["family"], entry["variant"]]))
                once = " (once)" if len(entry["seconds"]) < results["rounds"] else ""
                lines.append(
                    f"| {goal} | {family} | {entry['threads']} | {entry['median_seconds']:.3f}{once} "
                    f"| {entry['ratio']:.2f} | {entry['steps']} | {entry['gradient']:.1e} | {entry['cost']:.1e} "
                    f"| {share} |"
                )
        lines += ["", *_remarks(question), ""]
    if results["not_installed"]:
        lines.append(f"Not installed, so not measured: {', '.join(results['not_installed'])}.")
    return "\n".join(lines).rstrip() + "\n"


def summary(results: dict[str, Any]) -> str:
    """One table of all questions: seconds to either goal, and in brackets the time as a multiple of xlogreg's."""
    questions = results["questions"]
    lines = []
    for goal, words in (("gradient", "largest gradient 1e-4"), ("cost", "cost within 1e-5")):
        best = [_best(question, goal) for question in questions]
        titles = (f"{question['pictures']:,}, C = {question['C']:g}" for question in questions)
        lines += [f"| s to {words} (time / xlogreg's) | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(best)]
        for family in dict.fromkeys(family for one in best for family in one):
            cells = [
                f"{one[family]['median_seconds']:.3g} ({one[family]['ratio']:.1f})" if family in one else "-"
                for one in best
            ]
            lines.append(f"| {family} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _where(results: dict[str, Any]) -> list[str]:
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in results["packages"].items())
    return [
        f"Measured on {results['date']}: {machine['processor']}, {machine['processors']} cores,",
        f"{machine['platform']}, Python {machine['python']},",
        f"{packages}.",
        f"Medians of {results['rounds']} interleaved rounds, every minimiser in a process of its own, every answer",
        "judged. Command: `xlogreg benchmark --optimum --peers --rounds "
        f"{results['rounds']} --data CIFAR10 --out benchmarks/results`.",
    ]


def _title(question: dict[str, Any]) -> str:
    origin = question["origin"]
    return str(origin[0].upper() + origin[1:])


def _best(question: dict[str, Any], goal: str) -> dict[str, dict[str, Any]]:
    """Of each family that arrived in its rounds, the fastest."""
    found: dict[str, dict[str, Any]] = {}
    for entry in question["entries"]:
        if entry["goal"] == goal and "median_seconds" in entry:
            before = found.get(entry["family"])
            if before is None or entry["median_seconds"] < before["median_seconds"]:
                found[entry["family"]] = entry
    return found


def _remarks(question: dict[str, Any]) -> list[str]:
    remarks = [f"The lowest known cost is {question['lowest_cost']:.12f}."]
    arrived = {(entry["name"], entry["goal"]) for entry in question["entries"]}
    for name, runs in question["runs"].items():
        for goal in GOALS:
            if runs and (name, goal) not in arrived:
                last = min(runs, key=lambda run: abs(run[goal]))
                remarks.append(
                    f"NOT THERE ({goal}): {name}: at best gradient {last['gradient']:.1e}, cost {last['cost']:.1e} "
                    f"above, after {last['seconds']:.1f} s."
                )
    remarks += [f"Not in the table: {name}: {why}." for name, why in question["skipped"].items()]
    return [f"* {remark}" for remark in remarks]


def plot(path: Path, results: dict[str, Any]) -> None:
    """How far above the lowest cost each family is after so many seconds: its fastest variant, a point a tolerance."""
    from matplotlib.figure import Figure

    questions = results["questions"]
    figure = Figure(figsize=(1 + 4.2 * len(questions), 4.6), layout="constrained", facecolor="white")
    lines = {}
    for axes, question in zip(figure.subplots(1, len(questions), squeeze=False)[0], questions, strict=True):
        names = {family: one["name"] for family, one in _best(question, "gradient").items()}
        for family, name in names.items():
            points = [(run["seconds"], max(run["cost"], 1e-12)) for run in question["runs"][name]]
            colour = next((colour for start, colour in _COLOURS.items() if family.startswith(start)), "#5c6b73")
            style = "--" if "float64" in family else ":" if "1 thread" in family or "newton" in family else "-"
            lines[family] = axes.plot(
                *zip(*sorted(points), strict=True), style, marker="o", markersize=4, color=colour, label=family,
                linewidth=2.6 if family == OURS else 1.4,
            )[0]  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="seconds", title=f"{question['pictures']:,}, C = {question['C']:g}")
        axes.axhline(GOALS["cost"], color="#9aa5ad", linewidth=0.8)
        axes.grid(color="#dfe4e8", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("cost above the lowest, relative")
    figure.legend(lines.values(), lines.keys(), frameon=False, fontsize=8, loc="outside right upper")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def put_into(page: str, results: dict[str, Any]) -> str:
    """The page with the short table between its comments."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise InputError(f"The page must have the comments {_BEGIN} and {_END}.")
    return "\n".join([before + begin, *_where(results), "", summary(results), end + after])


def main(json_file: str, page: str) -> None:
    results = json.loads(Path(json_file).read_text(encoding="utf-8"))
    write_whole(Path(page), put_into(Path(page).read_text(encoding="utf-8"), results))


if __name__ == "__main__":
    main(*sys.argv[1:3])
