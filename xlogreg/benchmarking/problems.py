"""What the contestants train on."""

from dataclasses import dataclass, replace

import numpy as np

from ..proof import tutorial

RATE = 0.005
FEATURES = 3072


@dataclass(frozen=True)
class Problem:
    """pictures : how many; iterations : of one round; origin : in words; digest : of the cost history, for the problems
    that are measured (`python -m xlogreg.benchmarking.problems` computes them anew); steady_iterations : of one round
    of contestants whose iterations all take the same time, as many as the others' if 0."""

    pictures: int
    iterations: int
    origin: str
    digest: str = ""
    steady_iterations: int = 0


# The tutorial's own, and sizes up to what fills the memory of a laptop; digests by the reference.
TUTORIAL = Problem(1900, tutorial.ITERATIONS, "the tutorial's 1,900 pictures", tutorial.GOLDEN_SHA256, 500)
SIZES = (
    TUTORIAL,
    Problem(
        10_000, 200, "10,000 synthetic pictures",
        "3bb481b43d5255953000718c6311ab57b8b57304132fcf59caecbd528a2aa21f", 50,
    ),
    Problem(
        50_000, 200, "50,000 synthetic pictures, the size of CIFAR-10",
        "f3fda104f9ac4016e5e45e1685f6918b7bdf5443e2b7df3d795c90663476a4eb", 20,
    ),
    Problem(
        200_000, 200, "200,000 synthetic pictures",
        "aff8c30f5573af923a720948e6e2a01c6295927678aca57cd3e402b926933cf7", 5,
    ),
)  # fmt: skip
# A GPU does more iterations: a few would show how long it takes to start them. Digests by the fused CPU kernel.
SIZES_ON_GPU = (
    replace(SIZES[0], steady_iterations=0),
    replace(
        SIZES[1], iterations=2000, steady_iterations=200,
        digest="9cee30f0b18123ebe7b936fba82be99e27135a6e94f291d5f9226530ac413df0",
    ),
    replace(
        SIZES[2], iterations=2000, steady_iterations=200,
        digest="55b0829802ce90b97af1706b719b518bde3558dd2c3622ab8fc493280315cd81",
    ),
    replace(SIZES[3], steady_iterations=0),
)  # fmt: skip


def load(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """x (m, 3072) uint8 and y (m,) int64: the tutorial's pictures, or noise around two mean pictures."""
    if problem.pictures == TUTORIAL.pictures:
        from ..data.birds import load_birds
        from ..data.task import make_task

        task = make_task(load_birds(), "bird")
        return task.x_train.reshape(len(task.x_train), -1), task.y_train
    rng = np.random.RandomState(problem.pictures)
    y = rng.randint(0, 2, problem.pictures)
    x = np.empty((problem.pictures, FEATURES), dtype=np.uint8)
    means = rng.randint(60, 140, (2, FEATURES)).astype(np.uint8)
    for start in range(0, len(x), 10_000):  # in parts: the noise must not need more memory than the pictures
        labels = y[start : start + 10_000]
        x[start : start + len(labels)] = means[labels] + rng.randint(0, 116, (len(labels), FEATURES), dtype=np.uint8)
    return x, y


def digest_by(implementation: str, problem: Problem) -> str:
    """The digest that every exact implementation must have."""
    from ..solvers.descent import history_sha256
    from .contestants import xlogreg

    return history_sha256(xlogreg(implementation)(*load(problem), RATE)(problem.iterations))


if __name__ == "__main__":
    for implementation, problems in (("reference", SIZES), ("fused", SIZES_ON_GPU[1:3])):
        for problem in problems:
            print(problem.pictures, problem.iterations, digest_by(implementation, problem), flush=True)
