"""One class against the rest: select, balance, shuffle, split; every step as the tutorial does it, for any class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..system.checks import (
    finite_number,
    is_whole,
    list_of,
    of_kind,
    one_of,
    texts,
    uint8_pictures,
    unmasked,
    whole_labels,
)
from ..system.text import brief_kind, given, short_repr, shown
from .pictures import Pictures, class_number, default_class

Balance = Literal["first", "random", "none"]
BALANCES: tuple[Balance, ...] = ("first", "random", "none")

# The tutorial tests on 164 of its 2064 pictures.
TUTORIAL_TEST_SHARE = 164 / 2064
# Of a folder of own pictures, often a few hundred, a larger share is held back.
FOLDER_TEST_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Task:
    """Pictures to train and to test on, label 1 for the wanted class and 0 for the rest.

    Attributes
    ----------
    x_train, x_test : (m, height, width, channels) uint8
    y_train, y_test : (m,) int64 of 0 and 1
    positive : name of the wanted class
    source : where the pictures came from
    options : how they were chosen, for the record
    x_validation, y_validation : pictures held out of the training ones, where there are any (`hold_out`)
    negative : name of the rest where it is one class; empty for "not .."
    left_out : what balancing left out, in words; empty if nothing
    files_train, files_test : the file of each picture, where each has one
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    positive: str
    source: str
    options: dict[str, object]
    x_validation: np.ndarray | None = None
    y_validation: np.ndarray | None = None
    negative: str = ""
    left_out: str = ""
    files_train: tuple[str, ...] = ()
    files_test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("x_train", "y_train", "x_test", "y_test", "x_validation", "y_validation"):
            unmasked(getattr(self, name), name)
        for name in ("positive", "source", "negative"):
            of_kind(getattr(self, name), str, name)
        of_kind(self.options, dict, "options")
        for name in ("files_train", "files_test"):
            object.__setattr__(self, name, texts(getattr(self, name), name))  # the dataclass is frozen

    __repr__ = short_repr

    def check(self) -> None:
        """An InputError, unless its pictures and labels fit together, and there are some to train on or to test on."""
        of_kind(self, Task, "The task")
        for part in ("train", "test", "validation"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if x is None and y is None and part == "validation":
                continue
            uint8_pictures(x, f"x_{part}")
            whole_labels(y, f"y_{part}", len(x), 2)
            if x.shape[1:] != self.x_train.shape[1:]:
                raise InputError(
                    f"The pictures of x_{part} are {x.shape[1:]} but those of x_train {self.x_train.shape[1:]}; give "
                    "all one size."
                )
            files = getattr(self, f"files_{part}", ())
            if len(files) not in (0, len(x)):
                raise InputError(f"files_{part} names {len(files)} files of {len(x)} pictures; name each, or none.")

    @property
    def class_names(self) -> tuple[str, str]:
        """Names of label 0 and label 1."""
        return self.negative or f"not {self.positive}", self.positive

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        height, width, channels = self.x_train.shape[1:]
        return height, width, channels


def as_columns(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tutorial's shapes: pictures (m, h, w, c) as columns (h w c, m), labels as a row (1, m); views, no copies.

    Raises
    ------
    InputError
        They are no arrays, or not as many pictures as labels.
    """
    x, y = unmasked(x, "x"), unmasked(y, "y")
    if not all(hasattr(array, "reshape") and hasattr(array, "dtype") for array in (x, y)):
        raise InputError(f"Pictures and labels must be arrays, not {brief_kind(x)} and {brief_kind(y)}.")
    if x.ndim < 2 or 0 in x.shape or y.size != len(x):
        raise InputError(f"There are pictures {x.shape} and labels {y.shape}; give (m, ..) and (m,), at least one.")
    return x.reshape(len(x), -1).T, y.reshape(1, -1)


def make_task(
    pictures: Pictures,
    positive: str | int | None = None,
    *,
    test: Pictures | None = None,
    balance: Balance | None = None,
    seed: int = 0,
    test_size: int | float | None = None,
) -> Task:
    """One class against the rest.

    Parameters
    ----------
    pictures : what to train on; without `test`, its last part after the shuffle is held back for testing
    positive : the wanted class, by name or number; by default CIFAR-10's bird, or one of two (`default_class`)
    test : pictures to test on (CIFAR-10's test batch, say), selected and balanced in the same way
    balance : how many of the rest: "first" takes as many as there are of the wanted class, the first in file order
        (the tutorial); "random" draws as many by `seed`; "none" takes all pictures there are; by default "first", and
        "random" for a folder of own pictures, where the first of the rest would all be of one class
    seed : of the shuffle and the draw, by NumPy's legacy generator, whose stream is frozen
    test_size : a number of pictures, or a share below 1; by default the tutorial's 164 in 2064, and a fifth
        of a folder of own pictures, where every class gets its share of the test pictures

    Raises
    ------
    InputError
        The class is unknown or has no pictures, all pictures are of it, or the split leaves nothing.
    """
    of_kind(pictures, Pictures, "pictures")
    if test is not None:
        of_kind(test, Pictures, "test")
    own = bool(pictures.files)
    if balance is None:
        balance = "random" if own else "first"
    if not one_of(balance, BALANCES):
        raise InputError(f"There is no balance {given(balance)}; choose {', '.join(BALANCES)}.")
    number, rows, y, common = _chosen(pictures, positive, balance, seed)
    if test is None:
        held_back = _test_count(test_size, len(rows), own)
        common["options"]["test_size"] = held_back
        for_test = _every_so_many(pictures.labels[rows], held_back) if own else np.arange(-len(rows), 0) >= -held_back
        train_rows, test_rows, y_train, y_test = rows[~for_test], rows[for_test], y[~for_test], y[for_test]
        test = pictures
        if own and min(len(np.unique(y_train)), len(np.unique(y_test))) < 2:
            raise InputError(
                f"{int(y.sum())} of {len(y)} pictures are of class {shown(common['positive'])}, too few on one side to "
                "train and to test on; add pictures, or give another --test-size."
            )
    else:
        if test_size is not None:
            raise InputError(
                "A test size was given, but this data has test pictures of its own; leave --test-size out."
            )
        if test.x.shape[1:] != pictures.x.shape[1:] or test.class_names != pictures.class_names:
            raise InputError(
                f"The pictures of {test.source} differ in size or classes from those of {pictures.source}."
            )
        train_rows, y_train = rows, y
        test_rows, y_test = _select(test, number, balance, seed)
    if len(np.unique(y_train)) < 2:
        raise InputError(f"All {len(y_train)} training pictures have one label; training needs both classes.")
    return Task(
        pictures.x[train_rows], y_train, test.x[test_rows], y_test, **common,
        files_train=_files(pictures, train_rows), files_test=_files(test, test_rows),
    )  # fmt: skip


def make_tasks(
    pictures: Pictures,
    positives: Sequence[str | int],
    *,
    test: Pictures | None = None,
    seed: int = 0,
    test_size: int | float | None = None,
) -> list[Task]:
    """Each of several classes against the rest, on the same pictures (all of them), to be trained together.

    Each task equals its own `make_task` with balance "none"; the arrays of pictures are shared.
    """
    tasks: list[Task] = []
    for positive in list_of(positives, "positives", "a list of classes"):
        task = make_task(pictures, positive, test=test, balance="none", seed=seed, test_size=test_size)
        tasks.append(replace(task, x_train=tasks[0].x_train, x_test=tasks[0].x_test) if tasks else task)
    return tasks


def only_test(
    pictures: Pictures, positive: str | int | None = None, *, balance: Balance = "none", seed: int = 0
) -> Task:
    """A task of test pictures only, for a model that was trained on others: `make_task` without a split."""
    _, rows, y, common = _chosen(pictures, positive, balance, seed)
    common["options"]["test_size"] = len(rows)
    return Task(pictures.x[:0], y[:0], pictures.x[rows], y, **common, files_test=_files(pictures, rows))


def hold_out(tasks: Sequence[Task], share: float | int) -> list[Task]:
    """The same tasks with the last `share` of their training pictures, or so many, held out for validation.

    The pictures were shuffled before, so the last ones are as good as any. Tasks that share their pictures go on
    sharing them. Arrays are views.

    Raises
    ------
    InputError
        It is neither a share between 0 and 1 nor a whole number, or leaves too little to train or to validate with.
    """
    tasks = list_of(tasks, "tasks", "a list of tasks")
    for task in tasks:
        Task.check(task)
    if not tasks:
        return []
    count, part = len(tasks[0].y_train), finite_number(share) or 0.0
    held = int(share) if is_whole(share) else round(count * part) if 0 < part < 1 else 0
    if not 1 <= held < count:
        raise InputError(
            f"A validation share of {given(share)} leaves nothing to train or to validate on: there are {count} "
            "training pictures; give a share between 0 and 1, 0.2 say."
        )
    cut = count - held
    views: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    made = []
    for task in tasks:
        x, x_validation = views.setdefault(id(task.x_train), (task.x_train[:cut], task.x_train[cut:]))
        y, y_validation = task.y_train[:cut], task.y_train[cut:]
        if len(np.unique(y)) < 2:
            raise InputError(
                f"With {held} pictures held out for validation all {cut} training pictures have one label; hold out "
                "fewer."
            )
        made.append(
            replace(
                task, x_train=x, y_train=y, x_validation=x_validation, y_validation=y_validation,
                files_train=task.files_train[:cut], options={**task.options, "validation": held},
            )
        )  # fmt: skip
    return made


def _chosen(
    pictures: Pictures, positive: str | int | None, balance: Balance, seed: int
) -> tuple[int, np.ndarray, np.ndarray, dict[str, Any]]:
    """The wanted class, the rows of the chosen pictures and their labels, and what a task says of them."""
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise InputError(f"The seed must be a whole number from 0 to 4294967295, not {given(seed)}.")
    names = pictures.class_names
    number = class_number(default_class(names) if positive is None else positive, names)
    rows, y = _select(pictures, number, balance, seed)
    return number, rows, y, {
        "positive": names[number], "source": pictures.source,
        "options": {"positive": names[number], "balance": balance, "seed": int(seed)},
        "negative": names[1 - number] if len(names) == 2 else "",
        "left_out": _left_out(pictures.labels == number, rows, names[number]),
    }  # fmt: skip


def _files(pictures: Pictures, rows: np.ndarray) -> tuple[str, ...]:
    return tuple(pictures.files[row] for row in rows) if pictures.files else ()


def _select(pictures: Pictures, number: int, balance: Balance, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the chosen pictures and their labels, shuffled."""
    name = pictures.class_names[number]
    positive = pictures.labels == number
    wanted, rest = np.flatnonzero(positive), np.flatnonzero(~positive)
    if not len(wanted):
        raise InputError(f"There is no picture of class {name!r} in {pictures.source}; choose another class.")
    if not len(rest):
        raise InputError(f"All pictures of {pictures.source} are of class {name!r}; training needs both classes.")
    if balance == "none":
        # In file order, so that the split is the same for every class.
        rows = np.arange(len(positive))
    else:
        rows = np.concatenate([_take(part, min(len(wanted), len(rest)), balance, seed) for part in (wanted, rest)])
    # Shuffling rows draws the same numbers as the tutorial's two shuffles of x and y by the same seed.
    np.random.RandomState(seed).shuffle(rows)
    return rows, positive[rows].astype(np.int64)


def _left_out(positive: np.ndarray, rows: np.ndarray, name: str) -> str:
    """What is not among the chosen rows: one side has more pictures than the other."""
    for side, what in ((~positive, "others"), (positive, f"pictures of {shown(name)}")):
        used, there = int(side[rows].sum()), int(side.sum())
        if used < there:
            return f"{used:,} of {there:,} {what} are used"
    return ""


def _take(rows: np.ndarray, count: int, balance: Balance, seed: int) -> np.ndarray:
    if balance == "first" or count == len(rows):
        return rows[:count]
    return np.sort(rows[np.random.RandomState(seed).permutation(len(rows))[:count]])


def _every_so_many(labels: np.ndarray, count: int) -> np.ndarray:
    """Which `count` of the pictures to test on, (n,) bool; each class gives its share, rounded up or down."""
    n = len(labels)
    # In whole numbers: walking through the classes, one is due whenever k count / n passes a half.
    steps = (np.arange(n + 1, dtype=np.int64) * count + n // 2) // n
    chosen = np.zeros(n, dtype=bool)
    chosen[np.argsort(labels, kind="stable")] = np.diff(steps) > 0
    return chosen


def _test_count(test_size: int | float | None, n: int, own: bool) -> int:
    if test_size is None:
        # One of each label at least.
        count = max(round(n * FOLDER_TEST_SHARE), min(2, n - 2)) if own else round(n * TUTORIAL_TEST_SHARE)
    elif (number := finite_number(test_size)) is not None and 0 < number < 1:
        count = round(n * number)
    elif number is not None and number.is_integer():
        count = int(number)
    else:
        raise InputError(
            "The test size must be a whole number of pictures or a share between 0 and 1, 0.2 say, not "
            f"{given(test_size)}."
        )
    if not 1 <= count < n:
        what = "The default test size" if test_size is None else f"A test size of {float(test_size):g}"
        raise InputError(
            f"{what} ({count} of {n} pictures) leaves nothing to train or to test on; give a number from 1 to {n - 1} "
            "or a share between 0 and 1."
        )
    return count
