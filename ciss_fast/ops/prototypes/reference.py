"""The definition of `prototypes`, in plain PyTorch, written to be read.

Source: ALIFE (Oh, Baek, Ham, NeurIPS 2022), feature replay (ALIFE-M). README.md in this folder has the formulas.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import result_type


def prototypes_reference(
    feature_prev: Tensor, feature_curr: Tensor, memory: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Prototypes of the previous and of the current features, and the logarithm of what their weights are divided by.

    Args:
        feature_prev, feature_curr: [P, D], one row for every position, from the previous and the current extractor.
        memory: [K, S, D], S features of each class, from the previous extractor.
        temperature: factor on the scores before the softmax.

    Returns:
        r' and r, [K, D] each, and log sum_p exp(temperature v(p)), float64 [K]: with it the prototypes of several
        batches can be averaged as if they were one.
    """
    dtype = result_type(feature_prev, feature_curr, memory)
    directions = directions_of(feature_prev, dtype)
    feature_prev, feature_curr = feature_prev.to(dtype), feature_curr.to(dtype)
    classes, _, dimension = memory.shape
    prototype_prev = feature_prev.new_empty((classes, dimension))
    prototype_curr = torch.empty_like(prototype_prev)
    log_sum = feature_prev.new_empty(classes, dtype=torch.float64)
    for c in range(classes):
        cosine = directions_of(memory[c], dtype) @ directions.T  # [S, P]
        # Up to 10 S enters exp: float32 would leave errors of several thousandths in the weights.
        score = temperature * cosine.relu().sum(dim=0, dtype=torch.float64)
        log_sum[c] = score.logsumexp(dim=0)
        weight = (score - log_sum[c]).exp().to(dtype)  # softmax over the positions
        prototype_prev[c] = weight @ feature_prev
        prototype_curr[c] = weight @ feature_curr
    return prototype_prev, prototype_curr, log_sum


def directions_of(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of length 1; a row of zeros stays, and so has cosine 0 with every other. Lengths in double precision."""
    return F.normalize(vectors.double(), dim=-1).to(dtype)
