"""Cases of ``reasoning_loss``: DKD+ and DKD- from features and classifiers, forward and backward.

Floors. Operations: the multiply-adds of the matrix products, two scores for every old class of student and teacher,
and the gradients on features and weights: 8 positions x classes x dimension. Traffic: both features read once, the
feature's gradient written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import ciss_fast

from .case import Workload

Result = tuple[Tensor, Tensor, Tensor]  # total, gradients on feature and weight
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
WEIGHT = 5.0


def our_loss(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> Tensor:
    """The total as a user asks for it."""
    return ciss_fast.reasoning_loss(feature, weight, feature_old, weight_old, pos=WEIGHT, neg=WEIGHT)[0]


def eager(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> Tensor:
    """A convolution for each score, as one writes it in plain PyTorch; float32."""
    total = torch.zeros(())
    feature, feature_old = feature.float(), feature_old.float()
    for part in (torch.relu, lambda w: -torch.relu(-w)):
        score = F.conv2d(feature, part(weight)[:, :, None, None])
        target = F.conv2d(feature_old, part(weight_old)[:, :, None, None]).sigmoid()
        loss = F.binary_cross_entropy_with_logits(score, target, reduction="none")
        total = total + WEIGHT * loss.mean(dim=(0, 2, 3)).sum()
    return total


@dataclass(frozen=True)
class ReasoningCase:
    """One setting. Features are normal behind ReLU, classifiers normal; the teacher's differ a little."""

    name: str
    batch: int
    classes: int
    size: tuple[int, int] = (32, 32)
    dimension: int = 256
    dtype: torch.dtype = torch.float32
    channels_last: bool = True
    compiled: bool = False
    compared_with: str | None = None

    @property
    def description(self) -> str:
        layout = "channels last" if self.channels_last else "contiguous"
        kind = str(self.dtype).removeprefix("torch.")
        shape = "x".join(map(str, (self.batch, self.dimension, *self.size)))
        return f"features {shape} {kind}, {layout}, {self.classes} old classes"

    def shrunk(self) -> ReasoningCase:
        """A quarter of every side."""
        return replace(self, size=(self.size[0] // 4, self.size[1] // 4))

    def tiny(self) -> ReasoningCase:
        """Three classes, a 2x2 map."""
        return replace(self, batch=1, classes=3, size=(2, 2), dimension=8)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Feature and weight (ask for gradients), and the teacher's: the same at every call."""
        generator = torch.Generator().manual_seed(0)

        def near(x: Tensor) -> Tensor:
            return x + 0.5 * torch.randn(x.shape, generator=generator)

        feature = torch.randn(self.batch, self.dimension, *self.size, generator=generator)
        weight = torch.randn(self.classes, self.dimension, generator=generator)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        maps = [x.relu().to(self.dtype).contiguous(memory_format=layout) for x in (feature, near(feature))]
        return maps[0].requires_grad_(), (weight / 4).requires_grad_(), maps[1], near(weight) / 4

    def workload(self) -> Workload:
        tensors = self.tensors()
        feature, weight = tensors[:2]
        positions = feature.numel() // self.dimension
        rounding = 0.0 if self.dtype == torch.float32 else torch.finfo(self.dtype).eps / 2
        return Workload(
            candidates={
                "eager": partial(forward_backward, eager, *tensors),
                "ours": partial(forward_backward, our_loss, *tensors),
            },
            compiled=(lambda: partial(forward_backward, compile_loss(eager), *tensors)) if self.compiled else None,
            expected=lambda: expected(*tensors),
            errors=relative_errors,
            # Eager's own errors come to some 1e-5: differences of sigmoids close to 1.
            allowed={"loss": 1e-4, "feature": 1e-4 + rounding, "weight": 1e-4},
            pixels=positions,
            traffic_bytes=3 * feature.nbytes + 3 * weight.nbytes,
            multiply_adds=8 * positions * self.classes * self.dimension,
            details={"pixels": positions},
        )


def forward_backward(loss: Loss, feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> Result:
    """Total and both gradients."""
    total = loss(feature, weight, feature_old, weight_old)
    return (total.detach(), *torch.autograd.grad(total, (feature, weight)))


def compile_loss(loss: Loss) -> Loss:
    """``loss`` through torch.compile, for exactly these shapes and in one graph."""
    torch.compiler.reset()
    return torch.compile(loss, fullgraph=True, dynamic=False)


def expected(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> Result:
    """Total and gradients of the op's definition in float64."""
    exact = [x.detach().double().requires_grad_() for x in (feature, weight)]
    total, _ = ciss_fast.reasoning_loss(
        *exact, feature_old.double(), weight_old.double(), pos=WEIGHT, neg=WEIGHT, backend="reference"
    )
    return (total.detach(), *torch.autograd.grad(total, exact))


def relative_errors(result: Result, exact: Result) -> dict[str, float]:
    """Of the total, and of the gradients' entries relative to the largest."""
    return {
        name: float((value.double() - right).abs().max() / right.abs().max())
        for name, value, right in zip(("loss", "feature", "weight"), result, exact, strict=True)
    }


_VOC = ReasoningCase("voc", 4, 15, compiled=True)
_ADE = ReasoningCase("ade", 4, 100, compiled=True)
CASES = tuple(
    case
    for headline in (_VOC, _ADE)
    for case in (
        headline,
        replace(headline, name=f"{headline.name}-contiguous", channels_last=False, compiled=False,
                compared_with=headline.name),
        replace(headline, name=f"{headline.name}-bfloat16", dtype=torch.bfloat16, compiled=False,
                compared_with=headline.name),
    )
)  # fmt: skip
