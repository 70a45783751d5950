"""Argument checks of `prototypes`: one line that names the argument."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from ..tensors import check_dense, check_float_type


def result_type(*tensors: Tensor) -> torch.dtype:
    """The type of arithmetic and results: float64 where an input is float64, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def check_memory(memory: Tensor) -> None:
    """Raise TypeError or ValueError unless ``memory`` is [K, S, D] with at least one vector a class."""
    check_dense("memory", memory)
    check_float_type("memory", memory)
    if memory.dim() != 3 or 0 in memory.shape[1:]:
        raise ValueError(f"memory: expected [K, S, D] with S >= 1 and D >= 1, got shape {list(memory.shape)}")


def check_features(feature_prev: Tensor, feature_curr: Tensor, memory: Tensor) -> None:
    """Raise TypeError or ValueError unless both features are [P, D] with the D and the device of ``memory``."""
    dimension = memory.shape[2]
    for name, feature in {"feature_prev": feature_prev, "feature_curr": feature_curr}.items():
        check_dense(name, feature)
        check_float_type(name, feature)
        if feature.dim() != 2 or feature.shape[1] != dimension or feature.shape[0] < 1:
            raise ValueError(
                f"{name}: expected [P, D] with P >= 1 and D = {dimension} like the memory, "
                f"got shape {list(feature.shape)}"
            )
        if feature.device != memory.device:
            raise ValueError(f"{name}: expected device {memory.device} like the memory, got {feature.device}")
    if feature_curr.shape != feature_prev.shape:
        raise ValueError(
            f"feature_curr: expected the shape of feature_prev, {list(feature_prev.shape)}, "
            f"got {list(feature_curr.shape)}"
        )


def check_temperature(temperature: float) -> None:
    """Raise TypeError or ValueError unless ``temperature`` is a finite number above 0."""
    if isinstance(temperature, bool) or not isinstance(temperature, Real):
        raise TypeError(f"temperature: expected a number, got {temperature!r}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature}")
