"""Argument checks of `cayley_rotate`: one line that names the argument."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensors import check_float_type

PARAMS_TYPES = (torch.float32, torch.float64)


def check_types(params: object, vectors: object) -> None:
    """Raise TypeError naming the first argument that is no dense tensor."""
    for name, value in {"params": params, "vectors": vectors}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
        if value.layout != torch.strided:
            raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}")


def check_tensors(params: Tensor, vectors: Tensor, name: str = "vectors") -> None:
    """Raise TypeError or ValueError when types, shapes or devices do not fit together; ``name``: of ``vectors``."""
    check_float_type(name, vectors)
    if vectors.dim() not in (2, 3) or vectors.shape[-1] < 1:
        raise ValueError(f"{name}: expected [K, D] or [K, S, D] with D >= 1, got shape {list(vectors.shape)}")
    if params.dtype not in PARAMS_TYPES:
        raise TypeError(f"params: expected float32 or float64, got {params.dtype}")
    dimension = vectors.shape[-1]
    expected = [vectors.shape[0], dimension * (dimension - 1) // 2]
    if list(params.shape) != expected:
        raise ValueError(
            f"params: expected [K, D (D - 1) / 2] = {expected} ({name} is {list(vectors.shape)}), "
            f"got shape {list(params.shape)}"
        )
    if params.device != vectors.device:
        raise ValueError(f"params: expected device {vectors.device} like {name}, got {params.device}")


def accuracy_error(params: Tensor, item: int, error: float, accepted: float) -> str:
    """What is said of a class whose rotation could not be solved accurately."""
    norm = float(params[item].double().norm()) / 2**0.5
    return (
        f"params: expected rotations that can be solved within {accepted:.0e}, got class {item} with an error of "
        f"{error:.0e} (Frobenius norm of S: {norm:.1e})"
    )


def check_gradient_tensors(solutions: Tensor, iterations: Tensor, upstream: Tensor) -> None:
    """Raise TypeError or ValueError unless what the forward pass left behind fits the incoming gradient."""
    if solutions.dtype not in PARAMS_TYPES or iterations.dtype != torch.int32:
        raise TypeError(
            f"solutions, iterations: expected float32 or float64, and int32, got {solutions.dtype}, {iterations.dtype}"
        )
    if solutions.shape != upstream.shape or iterations.shape != upstream.shape[:1]:
        raise ValueError(
            f"solutions, iterations: expected shapes {list(upstream.shape)}, {list(upstream.shape[:1])}, "
            f"got {list(solutions.shape)}, {list(iterations.shape)}"
        )
