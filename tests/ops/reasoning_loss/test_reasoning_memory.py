"""Maps of scores are never kept, nor is anything of the features' size but the gradient."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ciss_fast
from ciss_fast.ops.reasoning_loss import operator

pytestmark = pytest.mark.usefixtures("needs_kernel")


class NewMemory(TorchDispatchMode):
    """Bytes of the storages that operations make."""

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in known}
        self.bytes: list[int] = []
        self.kept: list[torch.Tensor] = []  # so that no address comes twice

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in self.known:
                self.known.add(leaf.untyped_storage().data_ptr())
                self.bytes.append(leaf.untyped_storage().nbytes())
                self.kept.append(leaf)
        return result


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_inside_the_operator(reasoning_inputs, dtype, memory_format) -> None:
    # The gradients, and the weights in the arithmetic's type: no map of scores, no converted or transposed features.
    inputs = reasoning_inputs(channels=64, channels_old=64, size=(30, 40), dtype=dtype, memory_format=memory_format)
    with NewMemory(*inputs) as memory:
        operator._reasoning_loss_cpu(*inputs, [1.0, 1.0], True, True)
    element = 8 if dtype == torch.float64 else 4
    largest, *others = sorted(memory.bytes, reverse=True)
    assert largest == element * inputs.feature.numel()
    assert sum(others) <= 3 * element * inputs.weight.numel() + 100
    with NewMemory(*inputs) as memory:
        operator._reasoning_loss_cpu(*inputs, [1.0, 1.0], False, False)
    assert sum(memory.bytes) <= 2 * element * inputs.weight.numel() + 100


def test_the_mode_sees_the_definition(reasoning_inputs) -> None:
    inputs = reasoning_inputs(channels=64, channels_old=64, classes=100, size=(30, 40))
    with NewMemory(*inputs) as memory:
        ciss_fast.reasoning_loss(*inputs, pos=1.0, neg=1.0, backend="reference")
    assert max(memory.bytes) == 4 * 2 * 200 * 30 * 40 and len(memory.bytes) > 10


PEAK = """
import resource
import torch
import ciss_fast

torch.set_num_threads(1)
classes, channels, size = 200, 32, 512
feature, feature_old = torch.randn(2, 1, channels, size, size)
weight, weight_old = torch.randn(2, classes, channels)
feature.requires_grad_(), weight.requires_grad_()
for step in range(2):  # the first call may load what later ones share
    part = slice(0, 16) if step == 0 else slice(None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total, terms = ciss_fast.reasoning_loss(
        feature[:, :, part], weight, feature_old[:, :, part], weight_old, pos=1.0, neg=1.0, backend="cpu"
    )
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, 4 * channels * size**2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
def test_peak_of_the_process(repository) -> None:
    # Scratch memory of the kernel included. A map of all scores would be 12 times the features.
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    finished = subprocess.run([sys.executable, "-c", PEAK], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    grown, gradient = map(int, finished.stdout.split())
    assert grown < 1.3 * gradient
