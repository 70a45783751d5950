"""Maps of scores are never kept, nor is anything of the features' size but the gradient."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ciss_fast
from ciss_fast import native
from ciss_fast.ops.reasoning_loss import operator

pytestmark = pytest.mark.usefixtures("needs_kernel")
FORMATS = [torch.contiguous_format, torch.channels_last]


class NewMemory(TorchDispatchMode):
    """Bytes of the storages that operations make, without those that are there already (views, ``out=``)."""

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


def inside(inputs, gradients: bool = True) -> list[int]:
    """Sizes of what the operator allocates, largest first."""
    with NewMemory(*inputs) as memory:
        operator._reasoning_loss_cpu(*inputs, [1.0, 1.0], gradients, gradients)
    return sorted(memory.bytes, reverse=True)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_float32_features_are_not_copied(reasoning_inputs, memory_format) -> None:
    # Nothing but the gradient and two tiles of scores, far smaller than the maps would be.
    inputs = reasoning_inputs(channels=64, channels_old=64, classes=100, size=(70, 80), memory_format=memory_format)
    maps = 4 * 2 * 200 * 70 * 80
    sizes = inside(inputs)
    assert sizes[0] == inputs.feature.nbytes
    assert sizes[1] == sizes[2] <= 1.5 * 4 * 2**18 < maps / 4
    assert sum(sizes[3:]) < 2**20
    without = inside(inputs, gradients=False)
    assert without[0] == sizes[1] and sum(without[2:]) < 2**20


@pytest.mark.parametrize("memory_format", FORMATS)
def test_other_types_are_converted_a_tile_at_a_time(reasoning_inputs, memory_format) -> None:
    inputs = reasoning_inputs(
        channels=64, channels_old=64, size=(128, 130), dtype=torch.bfloat16, memory_format=memory_format
    )
    sizes = inside(inputs)
    assert sizes[0] == 2 * inputs.feature.nbytes  # the gradient, float32 until the backward pass
    assert sizes[1] <= 1.5 * 4 * 2**18 < inputs.feature.nbytes / 2


def test_the_mode_sees_the_definition(reasoning_inputs) -> None:
    inputs = reasoning_inputs(channels=64, channels_old=64, classes=100, size=(70, 80))
    with NewMemory(*inputs) as memory:
        ciss_fast.reasoning_loss(*inputs, pos=1.0, neg=1.0, backend="reference")
    assert max(memory.bytes) == 4 * 2 * 200 * 70 * 80 and len(memory.bytes) > 10


def test_scores_are_computed_once(reasoning_inputs, monkeypatch) -> None:
    # The kernel gets every score of student and teacher once, and makes the gradient in its place.
    inputs = reasoning_inputs(channels=4, channels_old=4, classes=100, size=(70, 80))
    kernel, counts = native.function("reasoning_loss"), []

    def counted(**arguments):
        counts.append(arguments["count"])
        return kernel(**arguments)

    monkeypatch.setattr(native, "function", lambda name: counted)
    operator._reasoning_loss_cpu(*inputs, [1.0, 1.0], True, True)
    assert sum(counts) == 2 * 200 * 70 * 80 and len(counts) > 4
