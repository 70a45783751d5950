"""A loss behind DistributedDataParallel, on one rank: the gradients of the model alone."""

from __future__ import annotations

import copy

import pytest
import torch
from op_cases import CASES, NO_BACKEND_NAMED, OpCase, skip_unless_it_runs
from torch import nn

LOSSES = [case for case in CASES if case.name.endswith("enlarged")]


@pytest.fixture
def one_rank(tmp_path, device):
    """A process group of this process alone."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.gpu(interpreter=True)
@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.op)
def test_one_rank(case: OpCase, one_rank, device) -> None:
    backend = NO_BACKEND_NAMED
    skip_unless_it_runs(case, backend, device, torch.float32)
    tensors = case.tensors(torch.float32, device)
    channels = tensors["student"].shape[1]
    torch.manual_seed(0)
    model = nn.Conv2d(channels, channels, 3, padding=1).to(device)
    images = tensors["student"]

    def gradients(network: nn.Module) -> list[torch.Tensor]:
        total = case.call(student=network(images), teacher=tensors["teacher"], label=tensors["label"])["total"]
        total.backward()
        return [parameter.grad for parameter in network.parameters()]

    alone = gradients(copy.deepcopy(model))
    ids = [device.index] if device.type == "cuda" else None
    distributed = gradients(nn.parallel.DistributedDataParallel(model, device_ids=ids))
    for value, expected in zip(distributed, alone, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
