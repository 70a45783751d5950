"""Rotating a feature memory into the current model's feature space (ALIFE, Oh et al. 2022, section 3.3, stage 2).

Every old class has a rotation R_k, parametrised by the Cayley transform of a skew-symmetric matrix. It is fitted so
that it takes the class's prototype in the previous feature space to the one in the current space, both seen on
the current step's images, and is then applied to the class's memorised features. The loss it is fitted with is
`ciss_fast.rotation_loss`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import ciss_fast

TEMPERATURE = 10.0
"""Published: sharpness of the softmax over positions that makes a prototype."""


def initial_rotations(num_classes: int, dimension: int, generator: torch.Generator | None = None) -> Tensor:
    """Starting parameters [K, D(D-1)/2], uniform in +-1/sqrt(D(D-1)/2): rotations close to the identity.

    The entries above the diagonal of a D x D matrix U, row by row; S = (U - U^T)/2 as in the paper's code (the
    paper writes S = U - U^T), R = (I - S)(I + S)^-1. Raises ValueError for a dimension below 2.
    """
    count = dimension * (dimension - 1) // 2
    if count < 1:
        raise ValueError(f"dimension: a rotation needs at least 2, got {dimension}")
    bound = 1 / math.sqrt(count)
    return torch.empty(num_classes, count).uniform_(-bound, bound, generator=generator)


def rotation_optimiser(params: Tensor, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Adam over the packed parameters, one fused kernel where there is one.

    ``weight_decay`` is Adam's own (added to the gradient), as published.
    """
    fused = params.device.type in ("cpu", "cuda")
    return torch.optim.Adam([params], lr=learning_rate, weight_decay=weight_decay, fused=fused)


def positions(feature_map: Tensor) -> Tensor:
    """The feature vectors of all positions of a batch [B, D, h, w] as [B h w, D], a view of channels-last maps."""
    return feature_map.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def batch_prototypes(
    previous: Tensor, current: Tensor, memory: Tensor, group_size: int = 12
) -> tuple[Tensor, Tensor]:
    """The classes' prototypes in both feature spaces from a batch of feature maps.

    Args:
        previous, current: feature maps [B, D, h, w] of the same images in the previous and current feature space.
        memory: [K, S, D] in the previous feature space.
        group_size: at most so many images share one softmax over positions. A larger batch is split evenly into G
            groups, as the published training splits it over processes of 12 images.

    Returns two tensors [K, G, D], or [K, D] for a single group.
    """
    count = -(-previous.shape[0] // group_size)
    groups = zip(previous.tensor_split(count), current.tensor_split(count), strict=True)
    pairs = [
        ciss_fast.prototypes(positions(before), positions(after), memory, TEMPERATURE) for before, after in groups
    ]
    if count == 1:
        return pairs[0]
    return torch.stack([pair[0] for pair in pairs], dim=1), torch.stack([pair[1] for pair in pairs], dim=1)


@torch.no_grad()
def rotate_memory(params: Tensor, memory: Tensor) -> Tensor:
    """Every feature rotated by its class's rotation, [K, S, D]. Not centred, as in the paper's code."""
    return ciss_fast.cayley_rotate(params, memory)
