"""All that take part, on the CPU and on a GPU."""

from . import contestants, gpu
from .contestants import Contestant


def contestants_on(device: str) -> tuple[Contestant, ...]:
    """Those who take part on a device: cpu or gpu."""
    return contestants.CONTESTANTS if device == "cpu" else gpu.CONTESTANTS


def by_name(name: str) -> Contestant:
    """The contestant of that name."""
    everybody = (*contestants_on("cpu"), *contestants_on("gpu"))
    return next(contestant for contestant in everybody if contestant.name == name)
