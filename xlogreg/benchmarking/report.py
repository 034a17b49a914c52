"""Table and plot of saved benchmark results; nothing is measured here."""

from pathlib import Path
from typing import Any

from ..runs.run_folder import write_json
from ..system.files import make_folder, whole_file, write_whole
from .contestants import FOUR_RATES, ONE_THREAD, OURS

_COLOURS = {"xlogreg": "#d1495b", "JAX": "#1f77b4", "PyTorch": "#e9a03b", "NumPy": "#2a9d8f", "tutorial": "#5c6b73"}


def write_report(folder: Path, results: dict[str, Any]) -> None:
    """Write peers.json, peers.md and, for more than one size, peers.png into `folder`."""
    make_folder(folder)
    write_json(folder / "peers.json", results)
    write_whole(folder / "peers.md", markdown(results))
    if len(results["problems"]) > 1:
        plot(folder / "peers.png", results)


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown: a table a problem, the machine, the limits, and who did not take part."""
    machine, limits = results["machine"], results["limits"]
    packages = ", ".join(f"{name} {version}" for name, version in results["packages"].items())
    lines = [
        f"Measured on {results['date']}: {machine['processor']}, {machine['processors']} cores, {machine['platform']}, "
        f"Python {machine['python']}, {packages}; medians of {results['rounds']} interleaved rounds, every contestant "
        "in a process of its own, its answer checked first.",
        "",
        f"Limits of this machine: copy {limits['copy_gb_s']:.1f} GB/s (read and written), {_other_limits(limits)}.",
        "",
    ]
    if len(results["problems"]) > 1:
        lines += [summary(results), ""]
    for problem in results["problems"]:
        entries = problem["contestants"]
        lines += [
            f"### {problem['pictures']:,} pictures, {problem['iterations']} iterations ({problem['origin']})",
            "",
            "| implementation | ms an iteration | time / xlogreg's | deviation of the final cost |",
            "|---|---:|---:|---:|",
        ]
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["ms_per_iteration"]):
            deviation = "0 (same bits)" if "digest" in entry else f"{entry['deviation']:+.1e}"
            lines.append(f"| {name} | {entry['ms_per_iteration']:.3f} | {entry['ratio']:.2f} | {deviation} |")
        lines += ["", *_remarks(problem, results.get("ours", OURS)), ""]
    if results["not_installed"]:
        lines.append(f"Not installed, so not measured: {', '.join(results['not_installed'])}.")
    return "\n".join(lines).rstrip() + "\n"


def summary(results: dict[str, Any]) -> str:
    """One table of all sizes: milliseconds an iteration, and in brackets the time as a multiple of xlogreg's."""
    problems = results["problems"]
    names: dict[str, None] = {}
    for problem in problems:
        names.update(dict.fromkeys(problem["contestants"]))
    lines = [
        "| ms an iteration (time / xlogreg's) | " + " | ".join(f"{p['pictures']:,} pictures" for p in problems) + " |",
        "|---|" + "---:|" * len(problems),
    ]
    for name in names:
        cells = []
        for problem in problems:
            entry = problem["contestants"].get(name)
            cells.append(f"{entry['ms_per_iteration']:.3g} ({entry['ratio']:.2f})" if entry else "not run")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _other_limits(limits: dict[str, Any]) -> str:
    if "barriers_us" in limits:
        return (
            f"{limits['barriers_us']:.2f} microseconds for the two grid barriers of an iteration in a kernel with "
            "nothing else to do"
        )
    return (
        f"read {limits['read_gb_s']:.1f} GB/s, {limits['multiply_adds_g_s']:.1f} thousand million multiply-adds of a "
        f"pixel and a digit a second with {limits['threads']} threads, each the best of some rounds at several times"
    )


def _remarks(problem: dict[str, Any], name_of_ours: str) -> list[str]:
    entries = problem["contestants"]
    ours = entries[name_of_ours]["ms_per_iteration"]
    bound, milliseconds = max(problem["bound_ms"].items(), key=lambda item: item[1])
    remarks = [
        f"The nearer bound is {bound}, {milliseconds:.3f} ms an iteration; the kernel takes {ours / milliseconds:.2f} "
        "times that.",
    ]
    if ONE_THREAD in entries:
        remarks.append(f"All threads are {entries[ONE_THREAD]['ratio']:.2f} times as fast as one.")
    if (four := FOUR_RATES.format(name_of_ours)) in entries:
        remarks.append(f"Four learning rates together take {entries[four]['ratio']:.2f} times as long as one.")
    if any("equal cost" in name for name in entries):
        remarks.append("scikit-learn's solver is no gradient descent: its row is its whole time over our iterations.")
    fewer = {entry["iterations"] for entry in entries.values()} - {problem["iterations"]}
    if fewer:
        remarks.append(f"Those whose iterations all take the same time did {min(fewer)} of them.")
    remarks += [f"Not in the table: {name}: {why}." for name, why in problem["skipped"].items()]
    return [f"* {remark}" for remark in remarks]


def plot(path: Path, results: dict[str, Any]) -> None:
    """Milliseconds an iteration against number of pictures, one line an implementation, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    names = [
        name for name in results["problems"][0]["contestants"] if "together" not in name and "equal cost" not in name
    ]
    for name in names:
        points = [
            (problem["pictures"], problem["contestants"][name]["ms_per_iteration"])
            for problem in results["problems"]
            if name in problem["contestants"]
        ]
        colour = next((colour for start, colour in _COLOURS.items() if name.startswith(start)), "#7b5ea7")
        style = "--" if "64" in name or "thread" in name else ":" if "hand" in name or "reference" in name else "-"
        width = 2.6 if name == results.get("ours", OURS) else 1.5
        axes.plot(
            *zip(*points, strict=True), style, marker="o", markersize=4, color=colour, linewidth=width, label=name
        )
    axes.set(xscale="log", yscale="log", xlabel="pictures (32 x 32 x 3)", ylabel="milliseconds an iteration")
    sizes = [problem["pictures"] for problem in results["problems"]]
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(color="#dfe4e8", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Gradient descent on pictures: time an iteration, lower is faster")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
