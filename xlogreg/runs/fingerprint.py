"""What tells one training from another: digests of its data, and of all that its bits depend on."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from ..data.task import Task
from ..models.classifier import Classifier
from ..neuron.exact import ARITHMETIC_VERSION
from ..neuron.options import DescentOptions

# The options of the descent that every fingerprint names.
_FIRST = ("l2", "momentum", "nesterov", "gradient_tolerance", "cost_tolerance", "class_weight")


def data_sha256(features_sha256: str, tasks: Sequence[Task], start: Classifier | None) -> str:
    """SHA-256 of the pictures and labels of a training, and of the weights it starts from."""
    digest = hashlib.sha256(features_sha256.encode())
    for task in tasks:
        for values in (task.y_train, task.y_test, task.y_validation, task.x_validation):
            if values is not None:
                digest.update(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    if start is not None:
        digest.update(start.w.tobytes())
    return digest.hexdigest()


def fingerprint(
    data_sha256: str,
    rates: Sequence[float] | None,
    iterations: int,
    options: DescentOptions,
    start: Classifier | None,
    patience: int | None,
    l2: Sequence[float] | None = None,
) -> str:
    """SHA-256 of all that the bits of a training depend on; `l2` are the penalties, where there are several."""
    # Options that came later are named where they change something, so that checkpoints from before stay of use.
    default = DescentOptions().as_dict()
    changed = {name: value for name, value in options.as_dict().items() if name in _FIRST or value != default[name]}
    plan = {
        "arithmetic": ARITHMETIC_VERSION, "data": data_sha256,
        "rates": None if rates is None else [float(rate) for rate in rates],
        "iterations": int(iterations),
        "options": changed, "start": None if start is None else [start.history_sha256, float(start.b).hex()],
    }  # fmt: skip
    if patience is not None:
        plan["patience"] = patience
    if l2 is not None:
        plan["l2"] = [float(one) for one in l2]
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
