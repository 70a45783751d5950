"""Training in several processes, as ``torchrun`` starts them: who is who, and what they tell each other.

Stages that all work on (the training of a step) share every batch: ``batch_size`` is that of all processes together.
The other stages, and everything that is written or printed, are the first process's; the processes see the same files.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed, nn

from ciss_fast.errors import ConfigError

Value = TypeVar("Value")
Model = TypeVar("Model", bound=nn.Module)
# The others wait while the first one works on a stage of its own, which may take hours.
_PATIENCE = timedelta(days=7)


class Processes:
    """This process among those of the run. A single one has nothing to exchange, and every method is trivial.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: Any = None) -> None:
        self.rank, self.count, self._group = rank, count, group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            distributed.barrier(self._group)

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank. Values are pickled between the processes of this run."""
        values: list[Any] = [value]
        if self.count > 1:
            values = [None] * self.count
            distributed.all_gather_object(values, value, self._group)
        return values

    def from_first(self, value: Value) -> Value:
        """The first process's value."""
        values = [value]
        if self.count > 1:
            distributed.broadcast_object_list(values, 0, self._group)
        return values[0]

    def total(self, counts: np.ndarray) -> np.ndarray:
        """The sum over the processes of int64 numbers."""
        if self.count == 1:
            return counts
        tensor = torch.from_numpy(counts.copy())
        distributed.all_reduce(tensor, group=self._group)
        return tensor.numpy()

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The means over the processes of numbers that all have."""
        if self.count == 1:
            return values
        tensor = torch.tensor(list(values.values()), dtype=torch.float64)
        distributed.all_reduce(tensor, group=self._group)
        return dict(zip(values, (tensor / self.count).tolist(), strict=True))

    def share_weights(self, model: nn.Module) -> None:
        """Give all processes' models the first one's parameters and buffers."""
        if self.count == 1:
            return
        for tensor in model.state_dict().values():
            dense = tensor.contiguous()
            distributed.broadcast(dense, 0)
            tensor.copy_(dense)

    def synchronise_batch_norms(self, model: Model, device: torch.device) -> Model:
        """The model with batch norms that take their statistics over the batches of all processes, where there is such
        a thing: on GPUs.
        """
        if self.count > 1 and device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def share_of(self, batch_size: int) -> int:
        """Images of a batch that are this process's. Raises `ConfigError` if they cannot be shared out evenly."""
        if batch_size % self.count:
            raise ConfigError(f"--batch-size: expected a multiple of the {self.count} processes, got {batch_size}")
        return batch_size // self.count


ALONE = Processes()
"""A single process, which has nothing to exchange."""


def processes_of_environment() -> tuple[int, int]:
    """Number of processes and this one's among those on its machine, as ``torchrun`` says; (1, 0) without it."""
    return int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))


def processes_on_this_machine() -> int:
    """How many processes of the run share this machine's memory, as ``torchrun`` says."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", 1))))


@contextmanager
def join_processes(device: torch.device) -> Iterator[Processes]:
    """The processes that ``torchrun`` has started, connected (NCCL between GPUs, Gloo else); without it, one."""
    count, _ = processes_of_environment()
    if count == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Of 1x1 convolutions in channels-last layout, whose gradients have the same order in memory either way.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), count, distributed.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        distributed.destroy_process_group()
