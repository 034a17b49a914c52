"""The kinds of features: to add one, write its module, with a class as in `kind`, and its line in the table below.

A kind's parameters are fields of `features.Features` too. Nothing else asks for a kind's name. Light to import, as the
choices of the command line come from the table.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .kind import Kind

# By name, which is its module's too: its class, and what the help of --features calls it. The first is the default.
KINDS = {
    "pixels": ("Pixels", "the pixels"),
    "grey": ("Grey", "their grey values"),
    "hog": ("Hog", "histograms of oriented gradients"),
}
DEFAULT = next(iter(KINDS))


def kind_class(name: str) -> "type[Kind]":
    found: type[Kind] = getattr(import_module(f".{name}", __name__), KINDS[name][0])
    return found
