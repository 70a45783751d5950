"""Argument checks of `rotation_loss`: one line that names the argument."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..cayley_rotate.checks import check_tensors as check_rotated
from ..tensors import check_float_type


def check_types(arguments: dict[str, object], fidelity_weight: object) -> None:
    """Raise TypeError or ValueError naming the first argument that is of the wrong kind."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
        if value.layout != torch.strided:
            raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}")
    if isinstance(fidelity_weight, bool) or not isinstance(fidelity_weight, (int, float)):
        raise TypeError(f"fidelity_weight: expected a number, got {type(fidelity_weight).__name__}")


def check_tensors(
    params: Tensor, previous: Tensor, current: Tensor, weight: Tensor, bias: Tensor, fidelity_weight: float
) -> None:
    """Raise TypeError or ValueError when types, shapes, devices or the weight do not fit."""
    check_rotated(params, previous, "previous")
    for name, tensor in {"current": current, "weight": weight, "bias": bias}.items():
        check_float_type(name, tensor)
        if tensor.device != params.device:
            raise ValueError(f"{name}: expected device {params.device} like params, got {tensor.device}")
    if previous.shape[0] < 1 or previous.numel() == 0:
        raise ValueError(f"previous: expected at least one class and group, got shape {list(previous.shape)}")
    if current.shape != previous.shape:
        raise ValueError(f"current: expected {list(previous.shape)} like previous, got shape {list(current.shape)}")
    classes, dimension = previous.shape[0], previous.shape[-1]
    if weight.dim() != 2 or weight.shape[1] != dimension or weight.shape[0] < classes:
        raise ValueError(
            f"weight: expected [C, {dimension}] with C >= {classes} classes, got shape {list(weight.shape)}"
        )
    if list(bias.shape) != [weight.shape[0]]:
        raise ValueError(f"bias: expected [{weight.shape[0]}], one for each row of weight, got {list(bias.shape)}")
    if not (math.isfinite(fidelity_weight) and 0 <= fidelity_weight <= 1):
        raise ValueError(f"fidelity_weight: expected a number from 0 to 1, got {fidelity_weight}")
