"""Training holds no float copy of the pictures."""

from pathlib import Path

import pytest
from helpers import python

SCRIPT = """
import sys
import numpy as np
from xlogreg.logistic import descend_many

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

implementation = sys.argv[1]
y = np.arange(64).reshape(1, -1) % 2
descend_many(np.ones((3072, 64), np.uint8), y, [0.1], 2, implementation=implementation)  # compile and load
before = status("VmRSS:")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here
x = np.random.RandomState(0).randint(0, 256, (50_000, 3072), dtype=np.uint8)
y = np.arange(50_000).reshape(1, -1) % 2
descend_many(x.T, y, [0.005], 3, implementation=implementation)
print((status("VmHWM:") - before) / x.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(("implementation", "bound"), [("reference", 3.0), ("fused", 1.5)])
def test_peak_memory_of_50000_pictures(implementation: str, bound: float) -> None:
    assert 0.99 < float(python(SCRIPT, implementation)) < bound
