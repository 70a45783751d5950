"""Prototypes over the positions of several batches, exactly as if they were one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_memory, check_temperature
from .compute import compute


class PrototypeAccumulator:
    """`prototypes` of positions that arrive batch by batch.

    The softmax over the positions is merged exactly: with L_b the logarithm of the sum of the exponentials of batch b
    and r_b its prototypes, the prototypes of all batches are sum_b exp(L_b - L) r_b with L = log sum_b exp(L_b). The
    order of the batches matters for rounding only. What is kept is of the size of the prototypes, in float64.

    The published procedure (ALIFE-M) takes every batch for itself: there this class is not needed.

    Args:
        memory: [K, S, D], as in `prototypes`; it is not copied and must not change between the batches.
        temperature: as in `prototypes`.
        backend: as in `prototypes`.

    Raises TypeError and ValueError, as `prototypes` does, for a memory or a temperature that does not fit.
    """

    def __init__(self, memory: Tensor, temperature: float = 10.0, *, backend: str | None = None) -> None:
        check_memory(memory)
        check_temperature(temperature)
        self.memory = memory.detach()
        self.temperature = temperature
        self.backend = backend
        self._sums: _Sums | None = None

    def update(self, feature_prev: Tensor, feature_curr: Tensor) -> None:
        """Add the positions of a batch, [P, D] each. Raises what `prototypes` raises; nothing is added then."""
        self._add(_Sums(*compute(feature_prev, feature_curr, self.memory, self.temperature, self.backend)))

    def merge(self, other: PrototypeAccumulator) -> None:
        """Add the batches of another accumulator, which stays as it is.

        Raises:
            TypeError: ``other`` is no accumulator.
            ValueError: it has another memory or temperature.
        """
        if not isinstance(other, PrototypeAccumulator):
            raise TypeError(f"other: expected a PrototypeAccumulator, got {type(other).__name__}")
        if other.temperature != self.temperature:
            raise ValueError(f"other: expected temperature {self.temperature}, got {other.temperature}")
        same = other.memory is self.memory or (
            other.memory.shape == self.memory.shape
            and other.memory.dtype == self.memory.dtype
            and other.memory.device == self.memory.device
            and torch.equal(other.memory, self.memory)
        )
        if not same:
            raise ValueError(
                f"other: expected the same memory, {list(self.memory.shape)}, got one of shape "
                f"{list(other.memory.shape)} with other values, type or device"
            )
        if other._sums is not None:
            self._add(other._sums)

    def result(self) -> tuple[Tensor, Tensor]:
        """The prototypes r' and r [K, D] of all positions so far; RuntimeError where there were none."""
        if self._sums is None:
            raise RuntimeError("result: expected at least one batch before, got none")
        return self._sums.prototype_prev.to(self._sums.dtype), self._sums.prototype_curr.to(self._sums.dtype)

    def _add(self, batch: _Sums) -> None:
        self._sums = batch if self._sums is None else self._sums.merged_with(batch)


class _Sums:
    """Prototypes in float64 and the logarithm of the sum of the exponentials they were averaged with."""

    def __init__(self, prototype_prev: Tensor, prototype_curr: Tensor, log_sum: Tensor) -> None:
        self.dtype = prototype_prev.dtype
        self.prototype_prev = prototype_prev.double()
        self.prototype_curr = prototype_curr.double()
        self.log_sum = log_sum

    def merged_with(self, other: _Sums) -> _Sums:
        log_sum = torch.logaddexp(self.log_sum, other.log_sum)
        share = (self.log_sum - log_sum).exp().unsqueeze(1)
        other_share = (other.log_sum - log_sum).exp().unsqueeze(1)
        merged = _Sums(
            share * self.prototype_prev + other_share * other.prototype_prev,
            share * self.prototype_curr + other_share * other.prototype_curr,
            log_sum,
        )
        merged.dtype = torch.promote_types(self.dtype, other.dtype)
        return merged
