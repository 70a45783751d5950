"""The learning-rate schedule: linear warm-up times polynomial decay, per iteration."""

from __future__ import annotations

import torch


def learning_rate_factor(
    iteration: int, iterations: int, *, power: float = 0.9, warmup: float = 0.0, warmup_start: float = 1e-3
) -> float:
    """What multiplies the initial learning rate at ``iteration`` (0 … iterations − 1).

    (1 − iteration / iterations) ^ power, the "poly" schedule, times a line from ``warmup_start`` at
    iteration 0 to 1 at ``warmup`` (a fraction) of the iterations.
    """
    factor = (1 - iteration / iterations) ** power
    ramp = round(warmup * iterations)
    if iteration < ramp:
        factor *= warmup_start + (1 - warmup_start) * iteration / ramp
    return factor


class PolySchedule:
    """Sets the learning rate of every group of an optimiser to its initial one times
    `learning_rate_factor`.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        iterations: int,
        *,
        power: float,
        warmup: float = 0.0,
        warmup_start: float = 1e-3,
    ) -> None:
        self.optimiser = optimiser
        self.iterations = iterations
        self.power, self.warmup, self.warmup_start = power, warmup, warmup_start
        self.initial = [group["lr"] for group in optimiser.param_groups]

    @property
    def learning_rate(self) -> float:
        """The largest learning rate of any group, for the log."""
        return max(group["lr"] for group in self.optimiser.param_groups)

    def set_iteration(self, iteration: int) -> None:
        """Set the learning rates that ``iteration`` is to use."""
        factor = learning_rate_factor(
            iteration, self.iterations, power=self.power, warmup=self.warmup, warmup_start=self.warmup_start
        )
        for group, initial in zip(self.optimiser.param_groups, self.initial, strict=True):
            group["lr"] = initial * factor
