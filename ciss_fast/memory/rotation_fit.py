"""Rotating a feature memory into the current model's feature space (ALIFE, Oh et al. 2022, section 3.3, stage 2).

Every old class has a rotation R_k, parametrised by the Cayley transform of a skew-symmetric matrix. It is fitted so
that it takes the class's prototype in the previous feature space to the one in the current space, both seen on
the current step's images, and is then applied to the class's memorised features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

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


def rotation_loss(
    params: Tensor,
    previous: Tensor,
    current: Tensor,
    weight: Tensor,
    bias: Tensor,
    fidelity_weight: float = 0.99,
) -> tuple[Tensor, dict[str, Tensor]]:
    """How far the rotated prototypes are from the current ones, and how badly they are classified.

    With both sets of prototypes centred over the classes and o the mean of the current ones:
    FID = mean_k (1 - cos(R_k r'_k, r_k)), REG = mean_k CE(classifier(R_k r'_k + o), k), and the loss is
    ``fidelity_weight`` FID + (1 - ``fidelity_weight``) REG, averaged over the groups if there are several.

    Args:
        params: [K, D(D-1)/2], see `initial_rotations`; gets the gradient.
        previous, current: prototypes [K, D] or [K, G, D] in the previous and the current feature space, not
            centred, see `batch_prototypes`.
        weight, bias: [C, D] and [C] of the current model's classifiers, old and new; rows 0 to K-1 are the old
            classes.
        fidelity_weight: lambda_ROT.

    Returns the loss and its detached terms "fid" and "reg".
    """
    offset = current.mean(dim=0)
    vectors = previous - previous.mean(dim=0)
    if vectors.dim() == 2:
        rotated = ciss_fast.cayley_rotate(params, vectors)
    else:  # a vector a class is solved iteratively, which for a few groups is quicker than all of them at once
        groups = vectors.unbind(dim=1)
        rotated = torch.stack([ciss_fast.cayley_rotate(params, group.contiguous()) for group in groups], dim=1)
    fidelity = (1 - functional.cosine_similarity(rotated, current - offset, dim=-1)).mean()
    logits = functional.linear(rotated + offset, weight, bias)
    classes = torch.arange(len(logits), device=logits.device).view(-1, *[1] * (logits.dim() - 2))
    regulariser = functional.cross_entropy(logits.flatten(0, -2), classes.expand(logits.shape[:-1]).flatten())
    total = fidelity_weight * fidelity + (1 - fidelity_weight) * regulariser
    return total, {"fid": fidelity.detach(), "reg": regulariser.detach()}


@torch.no_grad()
def rotate_memory(params: Tensor, memory: Tensor) -> Tensor:
    """Every feature rotated by its class's rotation, [K, S, D]. Not centred, as in the paper's code."""
    return ciss_fast.cayley_rotate(params, memory)
