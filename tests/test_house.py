"""The house: imports go down the list of rooms, there is no circle, and no room hides a public name."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import xlogreg

PACKAGE = Path(__file__).parents[1] / "xlogreg"
# From the top floor down, as the README draws them.
ROOMS = (
    "commands", "benchmarking", "estimator", "runs", "proof", "cluster", "predicting", "models", "data", "images",
    "logistic", "solvers", "kernels", "neuron", "arrays", "system", "errors",
)  # fmt: skip


def imports() -> Iterator[tuple[str, str]]:
    """Each module and each that it imports, anywhere in it, by names below the package: ("runs.plots", "errors")."""
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    modules = {name.removesuffix("__init__").rstrip(".") for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("xlogreg") for alias in node.names), path
            elif isinstance(node, ast.ImportFrom) and node.level:
                base = [*name.split(".")[: -node.level], *filter(None, (node.module or "").split("."))]
                for alias in node.names:
                    whole = ".".join([*base, alias.name])
                    yield name.removesuffix(".__init__"), whole if whole in modules else ".".join(base)


def test_the_rooms_are_those_of_the_plan() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there - {"__init__", "__main__"} <= set(ROOMS)
    # A room of the same name would take the place of a function when it is imported.
    assert not set(ROOMS) & set(xlogreg.__all__)


def test_imports_go_down_and_never_round() -> None:
    floor = {room: number for number, room in enumerate(ROOMS)}
    graph: dict[str, set[str]] = {}
    for module, imported in imports():
        above, below = module.split(".")[0], imported.split(".")[0]
        if above in floor:
            assert floor[above] <= floor.get(below, -1), f"{module} imports {imported or 'the package'}, which is above"
        if module != imported:
            graph.setdefault(module, set()).add(imported)
    TopologicalSorter(graph).prepare()  # raises CycleError
