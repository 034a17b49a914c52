"""What the contestants train on."""

from dataclasses import dataclass

import numpy as np

RATE = 0.005
FEATURES = 3072


@dataclass(frozen=True)
class Problem:
    """pictures : how many; iterations : of one round; origin : in words."""

    pictures: int
    iterations: int
    origin: str


# The tutorial's own, and sizes up to what fills the memory of a laptop.
TUTORIAL = Problem(1900, 2000, "the tutorial's 1,900 pictures")
SIZES = (
    TUTORIAL,
    Problem(10_000, 200, "10,000 synthetic pictures"),
    Problem(50_000, 40, "50,000 synthetic pictures, the size of CIFAR-10"),
    Problem(200_000, 10, "200,000 synthetic pictures"),
)


def load(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """x (m, 3072) uint8 and y (m,) int64: the tutorial's pictures, or noise around two mean pictures."""
    if problem is TUTORIAL or problem.pictures == TUTORIAL.pictures:
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
