"""``ciss_fast::rotation_loss`` as a PyTorch operator: schema, kernels, fake kernel (see `..loss_operator`)."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from ... import native
from ..cayley_rotate.checks import accuracy_error
from ..loss_operator import register_loss, result_type
from .checks import check_tensors

_SCHEMA = (
    "(Tensor params, Tensor previous, Tensor current, Tensor weight, Tensor bias, float fidelity_weight, "
    "bool need_gradient) -> (Tensor total, Tensor terms, Tensor products, Tensor gradient)"
)


def _rotation_loss_cpu(
    params: Tensor,
    previous: Tensor,
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    fidelity_weight: float,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernel = native.function("rotation_loss")
    check_tensors(params, previous, current, weight, bias, fidelity_weight)
    dtype = result_type(params, previous, current, weight, bias)
    dense = [
        tensor if tensor.dtype == dtype and tensor.is_contiguous() else tensor.to(dtype).contiguous()
        for tensor in (params, previous, current, weight, bias)
    ]
    gradient = torch.empty(params.shape if need_gradient else 0, dtype=dtype)
    products = torch.empty(params.shape[0], dtype=torch.int32)
    fidelity, regulariser, inaccurate, error, accepted = kernel(
        **{
            name: tensor.data_ptr()
            for name, tensor in zip(("params", "previous", "current", "weight", "bias"), dense, strict=True)
        },
        grad_params=gradient.data_ptr() if need_gradient else 0,
        products=products.data_ptr(),
        classes=params.shape[0],
        groups=1 if previous.dim() == 2 else previous.shape[1],
        dimension=previous.shape[-1],
        outputs=weight.shape[0],
        fidelity_weight=fidelity_weight,
        double_precision=dtype == torch.float64,
        threads=torch.get_num_threads(),
    )
    if inaccurate >= 0:
        raise ValueError(accuracy_error(params, inaccurate, error, accepted))
    total = fidelity_weight * fidelity + (1 - fidelity_weight) * regulariser
    terms = torch.tensor((fidelity, regulariser), dtype=dtype)
    return torch.scalar_tensor(total, dtype=dtype), terms, products, gradient


def _rotation_loss_gpu(launches: str, *arguments: Tensor | float | bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The kernels that the module ``launches`` has; what that needs must not be needed by others."""
    check_tensors(*arguments[:6])
    return importlib.import_module(launches, __package__).rotation_loss(*arguments)


def _rotation_loss_fake(
    params: Tensor,
    previous: Tensor,
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    fidelity_weight: float,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = result_type(params, previous, current, weight, bias)
    return (
        params.new_empty((), dtype=dtype),
        params.new_empty(2, dtype=dtype),
        params.new_empty(params.shape[0], dtype=torch.int32),
        params.new_empty(params.shape if need_gradient else (0,), dtype=dtype),
    )


register_loss(
    "rotation_loss",
    _SCHEMA,
    cpu=_rotation_loss_cpu,
    fake=_rotation_loss_fake,
    triton=functools.partial(_rotation_loss_gpu, ".triton_launch"),
    cuda=functools.partial(_rotation_loss_gpu, ".cuda_launch"),
)
