"""A key for Numba's cache: it looks only at the file of a function to see whether what it keeps is still right.

But it also keeps the values that a function takes from around it: functions that are made inside of another one, which
is given `digest_of` their sources, are compiled anew when any of these has changed.
"""

import hashlib
from pathlib import Path

# By path below the package; what every kernel is built of.
_COMMON = ("kernels/arithmetic", "kernels/vectors", "neuron/elementary")


def digest_of(*modules: str, extra: str = "") -> str:
    """A digest of the sources of these modules and the common ones, and of what else is compiled in."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256(extra.encode())
    for module in (*_COMMON, *modules):
        digest.update((package / f"{module}.py").read_bytes())
    return digest.hexdigest()
