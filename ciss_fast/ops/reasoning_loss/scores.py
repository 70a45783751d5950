"""Reasoning scores: a classifier's logits split into what speaks for a class and what speaks against it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..loss_operator import result_type
from ..tensors import check_dense
from .options import check_bias, check_classifier


def positive_part(weight: Tensor) -> Tensor:
    """max(w, 0). At w = 0 its derivative is 1/2, as the negative part's: together they are w, derivative 1."""
    return torch.maximum(weight, weight.new_zeros(()))


def negative_part(weight: Tensor) -> Tensor:
    """min(w, 0)."""
    return torch.minimum(weight, weight.new_zeros(()))


def _without_autocast(device: str) -> AbstractContextManager:
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def reasoning_scores(feature: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Positive and negative reasoning scores of DKD (Baek et al., NeurIPS 2022), and the logits they add up to.

    All three come from one product, so the features are read once; ``logits`` is ``positive + negative + bias`` as
    it stands. It is plain PyTorch: differentiable, twice as well, on any device.

    Args:
        feature: [B, D, h, w], what the classifier reads; float32, bfloat16, float16 or float64, any strides.
        weight: [C, D] of a 1x1 classifier (``convolution.weight.flatten(1)``); types may be mixed.
        bias: [C], or None.

    Returns:
        ``positive``, f . max(w_c, 0), ``negative``, f . min(w_c, 0), and ``logits``, all [B, C, h, w]; float32, or
        float64 for float64 features, under autocast too.

    Raises:
        TypeError: an argument that is no dense tensor, or a dtype that is not supported.
        ValueError: shapes or devices that do not fit; the message names the argument.
    """
    check_dense("feature", feature)
    check_dense("weight", weight)
    check_classifier(feature, weight)
    if bias is not None:
        check_dense("bias", bias)
        check_bias(weight, bias)
    batch, _, height, width = feature.shape
    dtype = result_type(feature)
    with _without_autocast(feature.device.type):
        weight = weight.to(dtype)
        parts = torch.cat([positive_part(weight), negative_part(weight)])
        scores = torch.bmm(parts.expand(batch, -1, -1), feature.to(dtype).flatten(2))
        positive, negative = scores.unflatten(2, (height, width)).chunk(2, dim=1)
        logits = positive + negative
        if bias is not None:
            logits = logits + bias.to(dtype)[:, None, None]
    return positive, negative, logits
