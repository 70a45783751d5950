"""No tensor of the enlarged logits' size is ever made."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from tensor_sizes import LargestTensor


def test_nothing_larger_than_the_logits(loss) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        inputs = loss.draw(size=(6, 7), label_size=(48, 56), dtype=dtype)
        student = inputs.student.clone().requires_grad_()
        with LargestTensor() as kernel:
            total, _ = loss.function(student, inputs.teacher, inputs.label, backend="cpu", **loss.everything)
            (3 * total).backward()
        assert {f"ciss_fast::{loss.name}", "aten::empty_like", "ciss_fast::scale_gradient"} <= kernel.operators
        # The gradient is the largest; a number for each pixel would be eight times as many.
        assert kernel.largest == student.numel() * (8 if dtype == torch.float64 else 4)
        with LargestTensor() as reference:  # the mode does see what it is meant to see
            loss.function(student, inputs.teacher, inputs.label, backend="reference", **loss.everything)
        assert reference.largest >= 4 * (inputs.student.shape[1] - inputs.teacher.shape[1]) * inputs.label.numel()


PEAK = """
import resource
import sys
import torch
from loss_testing import LOSSES

torch.set_num_threads(1)
loss = next(loss for loss in LOSSES if loss.name == sys.argv[1])
classes, old, size, label_size = 48, 32, 64, 1024
student, teacher = torch.randn(1, classes, size, size).requires_grad_(), torch.randn(1, old, size, size)
label = torch.randint(classes, (1, label_size, label_size)).to(torch.uint8)
for step in range(2):  # the first call may load what later ones share
    small = label[:, :size, :size] if step == 0 else label
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total, terms = loss.function(student, teacher, small, backend="cpu", **loss.everything)
    total.backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, 4 * classes * label_size**2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
def test_peak_of_the_process(loss, repository) -> None:
    # Scratch memory of the kernel included.
    path = os.pathsep.join(map(str, (repository, repository / "tests" / "ops")))
    command = [sys.executable, "-c", PEAK, loss.name]
    finished = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    grown, one_enlarged_map = map(int, finished.stdout.split())
    assert grown < 0.15 * one_enlarged_map
