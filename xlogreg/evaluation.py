"""How well a classifier does on labelled pictures."""

from dataclasses import dataclass

import numpy as np

from .classifier import Classifier


@dataclass(frozen=True)
class Evaluation:
    """Counts of predictions on labelled pictures, and what follows from them.

    pictures : how many; accuracy : percent right
    confusion : ((true 0 predicted 0, true 0 predicted 1), (true 1 predicted 0, true 1 predicted 1))
    """

    pictures: int
    accuracy: float
    confusion: tuple[tuple[int, int], tuple[int, int]]


def evaluate(classifier: Classifier, x: np.ndarray, y: np.ndarray) -> Evaluation:
    """Predict pictures x (n, h, w, c) uint8 and compare with their labels y (n,) of 0 and 1."""
    prediction = classifier.predict(x)
    counts = [[int(((y == true) & (prediction == guess)).sum()) for guess in (0, 1)] for true in (0, 1)]
    right = counts[0][0] + counts[1][1]
    return Evaluation(len(y), right / len(y) * 100, ((counts[0][0], counts[0][1]), (counts[1][0], counts[1][1])))
