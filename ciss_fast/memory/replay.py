"""Training the classifiers on memorised features (ALIFE, Oh et al. 2022, stage 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ciss_fast.models import SegmentationModel

ROWS = 1024
"""Features classified at a time."""


def memory_cross_entropy(weight: Tensor, bias: Tensor, memory: Tensor) -> Tensor:
    """Mean cross-entropy of a 1x1 classifier over all memorised features, each one its row's class.

    Args:
        weight, bias: [C, D] and [C], C >= K; both get the gradient.
        memory: float32 [K, S, D]; the features of row k belong to channel k. No gradient.

    The gradient is made together with the loss, from `ROWS` features at a time, so that the logits [K S, C] never
    exist as a whole.
    """
    return _MemoryCrossEntropy.apply(weight, bias, memory.detach())


class _MemoryCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, bias: Tensor, memory: Tensor) -> Tensor:  # type: ignore[override]
        classes, per_class, dimension = memory.shape
        count = classes * per_class
        features = memory.reshape(count, dimension)
        total = torch.zeros((), dtype=torch.float64, device=memory.device)
        # Double precision over the blocks: single precision would add up as many terms as there are features.
        grad_weight, grad_bias = (torch.zeros_like(entry, dtype=torch.float64) for entry in (weight, bias))
        for start in range(0, count, ROWS):
            rows = features[start : start + ROWS]
            targets = torch.arange(start, start + len(rows), device=memory.device)[:, None] // per_class
            scores = torch.log_softmax(torch.addmm(bias, rows, weight.T), dim=1)
            total -= scores.gather(1, targets).sum(dtype=torch.float64)
            # The gradient on the logits is softmax minus one-hot.
            scores.exp_().scatter_add_(1, targets, torch.full_like(targets, -1, dtype=scores.dtype))
            grad_weight += scores.T @ rows
            grad_bias += scores.sum(dim=0)
        ctx.save_for_backward((grad_weight / count).to(weight.dtype), (grad_bias / count).to(bias.dtype))
        return (total / count).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        grad_weight, grad_bias = ctx.saved_tensors
        return grad * grad_weight, grad * grad_bias, None


def train_classifiers_only(model: SegmentationModel) -> list[nn.Parameter]:
    """Freeze everything but the classifiers, old and new, and return their parameters.

    The whole model is put into evaluation mode: batch norms keep their statistics and dropout is off.
    """
    model.eval().requires_grad_(False)
    model.classifiers.requires_grad_(True)
    return list(model.classifiers.parameters())


def joint_classifier(model: SegmentationModel) -> tuple[Tensor, Tensor]:
    """All classifiers as one: weight [C, D] and bias [C], through which the gradient reaches each of them."""
    weight = torch.cat([classifier.weight for classifier in model.classifiers]).flatten(1)
    return weight, torch.cat([classifier.bias for classifier in model.classifiers])
