"""The tutorial's published result, and how an obtained one compares with it.

Source: V. N. Sichkar, "Logistic Regression with Neural Network mindset in Python" (2018, DOI 10.5281/zenodo.1317904).
The facts below are compared with what is computed; they never enter a computation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEARNING_RATE = 0.005
ITERATIONS = 2000
TEST_PICTURE = 10
# The author's test picture 10 has label 1 and is predicted 1.
TEST_PICTURE_LABEL = 1

# Cost of every 100th iteration at learning rate 0.005.
COST_HISTORY = (
    0.6931471805599465, 0.6422071848440031, 0.6232294691888273, 0.61247346616923, 0.6053670288253582,
    0.6001730558029341, 0.5961023219319516, 0.5927504298277354, 0.5898898653821274, 0.5873826559137476,
    0.5851399055586426, 0.5831014803590213, 0.5812250826542966, 0.5794800104247025, 0.5778433996367697,
    0.5762978560480848, 0.5748299036227793, 0.5734289343532144, 0.572086477978031, 0.5707956826264765,
)  # fmt: skip

# Learning rate: (train accuracy, test accuracy), percent, after 2000 iterations.
ACCURACIES = {
    0.005: (71.47368421052632, 62.19512195121951),
    0.01: (72.36842105263158, 62.19512195121951),
    0.001: (68.0, 60.97560975609756),
    0.0001: (63.15789473684211, 53.04878048780488),
}
LEARNING_RATES = tuple(ACCURACIES)

# A printed cost differs from the exact one by what its author's float64 sums rounded: up to 1.4e-15 was seen.
COST_TOLERANCE = 1e-14

# The digest of the run at 0.005: every implementation on every device must give it.
GOLDEN_SHA256 = "a1a456719c8ade28ffeeb6be20fd232a4d90724e79dcbc7dea0735c54972d5e2"
# The digest of its first 100 iterations, for short proofs.
GOLDEN_SHA256_100 = "9bb05734292b7c3fa6c359b0f4a19407a421ae7fb267e731b2b1352723fcf4d8"


@dataclass(frozen=True)
class Comparison:
    """Obtained against published.

    cost_differences : obtained minus published, one a printed cost
    accuracies_equal : whether all obtained accuracies have the published digits
    test_picture_right : whether test picture 10 is predicted as published
    digest_equal : whether every cost of the run at 0.005 has the golden bits
    """

    cost_differences: tuple[float, ...]
    accuracies_equal: bool
    test_picture_right: bool
    digest_equal: bool

    @property
    def largest_difference(self) -> float:
        """The largest |obtained - published| cost."""
        return max(map(abs, self.cost_differences))

    @property
    def reproduced(self) -> bool:
        """Whether everything agrees."""
        return (
            self.largest_difference <= COST_TOLERANCE
            and self.accuracies_equal
            and self.test_picture_right
            and self.digest_equal
        )


def compare(trainings: Sequence[Any]) -> Comparison:
    """Compare the trainings (`runs.training.Training`) at `LEARNING_RATES`, in that order, with what was published."""
    main = trainings[LEARNING_RATES.index(LEARNING_RATE)]
    return Comparison(
        cost_differences=tuple(a - b for a, b in zip(main.cost_history, COST_HISTORY, strict=True)),
        accuracies_equal=all(
            (training.train_accuracy, training.test_accuracy) == ACCURACIES[training.classifier.learning_rate]
            for training in trainings
        ),
        test_picture_right=(
            int(main.task.y_test[TEST_PICTURE]) == int(main.prediction_test[TEST_PICTURE]) == TEST_PICTURE_LABEL
        ),
        digest_equal=main.history_sha256 == GOLDEN_SHA256,
    )
