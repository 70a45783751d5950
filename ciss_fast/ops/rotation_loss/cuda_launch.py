"""Backend "cuda" of ``ciss_fast::rotation_loss``: memory for the results, the launch on the current stream.

Nothing waits, so there is no error for parameters that are too large to solve for: such classes are NaN, and their
number of products is -2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import cuda_runtime
from ..tensors import check_single_precision


def rotation_loss(
    params: Tensor,
    previous: Tensor,
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    fidelity_weight: float,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator on a GPU, for any types but float64."""
    tensors = {"params": params, "previous": previous, "current": current, "weight": weight, "bias": bias}
    check_single_precision("rotation_loss", *tensors.values())
    dense = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    total, terms = (params.new_empty(shape, dtype=torch.float32) for shape in ((), 2))
    gradient = torch.empty(params.shape if need_gradient else 0, dtype=torch.float32, device=params.device)
    products = torch.empty(params.shape[0], dtype=torch.int32, device=params.device)
    with cuda_runtime.on_device(params):
        cuda_runtime.library().rotation_loss(
            **{name: tensor.data_ptr() for name, tensor in dense.items()},
            grad_params=gradient.data_ptr() if need_gradient else 0,
            products=products.data_ptr(),
            total=total.data_ptr(),
            values=terms.data_ptr(),
            classes=params.shape[0],
            groups=1 if previous.dim() == 2 else previous.shape[1],
            dimension=previous.shape[-1],
            outputs=weight.shape[0],
            fidelity_weight=fidelity_weight,
            workspace=cuda_runtime.workspace_on(params.device),
            stream=cuda_runtime.stream_of(params),
        )
    return total, terms, products, gradient
