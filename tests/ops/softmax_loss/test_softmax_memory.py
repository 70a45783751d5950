"""No tensor of the enlarged logits' size is ever made."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ciss_fast
from ciss_fast.ops.softmax_loss import operator

EVERYTHING = dict.fromkeys(("ce", "cce", "kd", "ckd", "ali", "focal"), 1.0)

pytestmark = pytest.mark.usefixtures("needs_kernel")


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def test_nothing_larger_than_the_logits(softmax_inputs) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        inputs = softmax_inputs(size=(6, 7), label_size=(48, 56), dtype=dtype)
        student = inputs.student.clone().requires_grad_()
        with LargestTensor() as kernel:
            total, _ = ciss_fast.softmax_loss(student, inputs.teacher, inputs.label, backend="cpu", **EVERYTHING)
            (3 * total).backward()
        assert kernel.elements == student.numel()  # the gradient; a pixel each would be eight times as many
        with LargestTensor() as reference:  # the mode does see what it is meant to see
            ciss_fast.softmax_loss(student, inputs.teacher, inputs.label, backend="reference", **EVERYTHING)
        assert reference.elements >= student.shape[1] * inputs.label.numel()


def test_nothing_larger_inside_the_operator(softmax_inputs) -> None:
    # The mode above sees the operator from outside: look at what it allocates within.
    inputs = softmax_inputs(size=(6, 7), label_size=(48, 56))
    with LargestTensor() as inside:
        operator._softmax_loss_cpu(
            *(*inputs, 4, [1.0] * 6, [0] * 6, 14, 1.0, 255),
            **{"align_corners": False, "check_labels": True, "need_gradient": True},
        )
    assert inside.elements == inputs.student.numel()


PEAK = """
import resource
import torch
import ciss_fast

torch.set_num_threads(1)
classes, old, size, label_size = 48, 32, 64, 1024
student, teacher = torch.randn(1, classes, size, size).requires_grad_(), torch.randn(1, old, size, size)
label = torch.randint(classes, (1, label_size, label_size)).to(torch.uint8)
for step in range(2):  # the first call may load what later ones share
    small = label[:, :size, :size] if step == 0 else label
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total, terms = ciss_fast.softmax_loss(
        student, teacher, small, backend="cpu", ce=1.0, cce=1.0, kd=1.0, ckd=1.0, ali=1.0, focal=1.0
    )
    total.backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, 4 * classes * label_size**2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
def test_peak_of_the_process(repository) -> None:
    # Scratch memory of the kernel included.
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run([sys.executable, "-c", PEAK], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    grown, one_enlarged_map = map(int, finished.stdout.split())
    assert grown < 0.15 * one_enlarged_map
