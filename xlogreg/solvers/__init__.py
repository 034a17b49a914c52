"""How weights move: the solvers, and a training from start to end, in blocks, with callbacks; which rate is safe.

What a cost and a gradient are is `neuron`; how they are computed fast is `kernels`.
"""

from ..neuron.options import DescentOptions
from .gradient_descent import GradientDescent
from .lbfgs import LBFGS
from .solver import Solver

# One class a solver.
SOLVERS: dict[str, type[Solver]] = {"gd": GradientDescent, "lbfgs": LBFGS}


def solver_of(options: DescentOptions) -> type[Solver]:
    """The solver that these options ask for."""
    return SOLVERS[options.solver]
