"""The loss that rotations are fitted with, and its gradient, in one call (ALIFE-M, stage 2)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ... import backends, cuda_runtime, native, triton_runtime
from ..cayley_rotate import cayley_rotate
from . import operator  # noqa: F401  (registers the operator)
from .checks import check_tensors, check_types
from .reference import rotation_terms

__all__ = ["rotation_loss"]

backends.register(
    "rotation_loss",
    reference=None,
    cpu=native.reason_without("rotation_loss"),
    triton=triton_runtime.reason_without,
    cuda=cuda_runtime.reason_without,
)


def rotation_loss(
    params: Tensor,
    previous: Tensor,
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    fidelity_weight: float = 0.99,
    *,
    backend: str | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """How far rotated prototypes are from those of the current model, and how badly they are classified.

    With both sets of prototypes centred over the classes, r' and r, and o the mean of the current ones:
    FID = mean_k (1 - cos(R_k r'_k, r_k)), REG = mean_k CE(classifier(R_k r'_k + o), k), and the loss is
    ``fidelity_weight`` FID + (1 - ``fidelity_weight``) REG (ALIFE, Oh et al. 2022, section 3.3, stage 2). Where there
    are several groups of images each is centred by itself, and the means are over the groups as well.

    Args:
        params: [K, D (D - 1) / 2], the rotations' parameters, see `cayley_rotate`; float32 or float64. Only they get
            a gradient.
        previous, current: prototypes [K, D] or [K, G, D] in the previous and the current feature space, not centred.
        weight, bias: [C, D] and [C] of the current model's classifiers, old and new; rows 0 to K-1 are the old
            classes'.
        fidelity_weight: lambda_ROT, from 0 to 1.
        backend: "cpu" (compiled kernel), "triton" or "cuda" (GPUs; "cuda" without double precision), which make the
            gradient in the same call, or "reference"; default: the kernel that runs on the parameters' device.

    Returns:
        The loss and its detached terms "fid" and "reg". Arithmetic is float32, float64 where an argument is (the
        reference: always float64). A NaN or an infinity among a class's parameters or in its prototypes gives NaN.

    Raises:
        TypeError: an argument of another kind or a dtype that is not supported.
        ValueError: shapes, devices or a weight that do not fit; parameters so large that the rotations cannot be
            solved accurately, as `cayley_rotate` does. A GPU is not waited for: there the loss and such a class's
            gradient are NaN.
        RuntimeError: ``backend`` names one that cannot run here (see ``python -m ciss_fast.info``).
    """
    tensors = {"params": params, "previous": previous, "current": current, "weight": weight, "bias": bias}
    check_types(tensors, fidelity_weight)
    if any(tensor.device != params.device for tensor in tensors.values()):
        check_tensors(params, previous, current, weight, bias, fidelity_weight)  # says which
    asked_for, backend = backend, backends.choose("rotation_loss", backend, params.device)
    dtype = operator.result_type(*tensors.values())
    if asked_for is None and backend == "cuda" and dtype == torch.float64:
        backend = "reference"
    if backend != "reference":  # whose kernels check the rest
        need_gradient = torch.is_grad_enabled() and params.requires_grad
        total, terms, _, _ = torch.ops.ciss_fast.rotation_loss.default(
            params, previous, current, weight, bias, float(fidelity_weight), need_gradient, backend=backend
        )
        fidelity, regulariser = terms.unbind()
        return total, {"fid": fidelity, "reg": regulariser}
    check_tensors(params, previous, current, weight, bias, fidelity_weight)
    fidelity, regulariser = rotation_terms(
        params.double(), *(tensor.detach().double() for tensor in (previous, current, weight, bias)),
        rotate=partial(cayley_rotate, backend="reference"),
    )  # fmt: skip
    total = fidelity_weight * fidelity + (1 - fidelity_weight) * regulariser
    return total.to(dtype), {"fid": fidelity.detach().to(dtype), "reg": regulariser.detach().to(dtype)}
