"""The definition of `rotation_loss`, in plain PyTorch, written to be read.

Every other implementation is compared with this one. Source: ALIFE (Oh, Baek, Ham, NeurIPS 2022), section 3.3, stage 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Rotate = Callable[[Tensor, Tensor], Tensor]
"""``params`` [K, D (D - 1) / 2] and ``vectors`` [K, D] or [K, G, D] to the rotated vectors."""


def rotation_terms(
    params: Tensor, previous: Tensor, current: Tensor, weight: Tensor, bias: Tensor, rotate: Rotate
) -> tuple[Tensor, Tensor]:
    """FID and REG, each the mean over classes and groups; see `ciss_fast.rotation_loss`."""
    offset = current.mean(dim=0)
    rotated = rotate(params, previous - previous.mean(dim=0))
    fidelity = (1 - functional.cosine_similarity(rotated, current - offset, dim=-1)).mean()
    logits = functional.linear(rotated + offset, weight, bias)
    classes = torch.arange(len(logits), device=logits.device).view(-1, *[1] * (logits.dim() - 2))
    regulariser = functional.cross_entropy(logits.flatten(0, -2), classes.expand(logits.shape[:-1]).flatten())
    return fidelity, regulariser
