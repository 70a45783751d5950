"""No matrix of scores is ever made."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PEAK = """
import resource
import torch
import ciss_fast

torch.set_num_threads(1)
positions, classes, per_class, dimension = 65536, 200, 2, 8
prev, curr = torch.randn(positions, dimension), torch.randn(positions, dimension)
memory = torch.randn(classes, per_class, dimension)
for count in (64, positions):  # the first call may load what later ones share
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ciss_fast.prototypes(prev[:count], curr[:count], memory, backend="cpu")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
print(4 * classes * positions)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
def test_peak_of_the_process(kernel, repository) -> None:
    # Scratch memory of the kernel included: far less than the scores [K, P], let alone [K S, P].
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run([sys.executable, "-c", PEAK], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    grown, scores = map(int, finished.stdout.split())
    assert grown < 0.1 * scores
