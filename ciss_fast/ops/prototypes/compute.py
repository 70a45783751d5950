"""Checks, choice of the backend, and the call: what `prototypes` and `PrototypeAccumulator` share."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import backends
from . import operator  # noqa: F401  (registers the operator)
from .checks import check_features, check_memory, check_temperature
from .reference import prototypes_reference


def compute(
    feature_prev: Tensor, feature_curr: Tensor, memory: Tensor, temperature: float, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Both prototypes [K, D] and the log of the sum of the weights, float64 [K]; see `prototypes_reference`."""
    check_memory(memory)
    check_features(feature_prev, feature_curr, memory)
    check_temperature(temperature)
    inputs = feature_prev.detach(), feature_curr.detach(), memory.detach()
    backend = backends.choose("prototypes", backend, memory.device)
    if backend != "reference":
        return torch.ops.ciss_fast.prototypes(*inputs, temperature, backend=backend)
    if memory.device.type == "meta":  # knows no autocast
        return prototypes_reference(*inputs, temperature)
    with torch.autocast(memory.device.type, enabled=False):  # it would take the cosines in bfloat16
        return prototypes_reference(*inputs, temperature)
