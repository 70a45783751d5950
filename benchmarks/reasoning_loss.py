"""Cases of ``reasoning_loss``: forward and backward of DKD+ and DKD- from features and classifiers.

Floors. Operations: the multiply-adds of the four products (scores of student and teacher, gradients on features and
weights) with the elements of the weights' parts that are not 0, 4 x pixels x classes x channels, at the rate of
torch's matrix product; plain PyTorch does twice as many. What is done per score comes on top. Traffic: features read
once, their gradient written once.

"eager" is the fastest plain PyTorch formulation found: both parts of the weights in one product, a linear layer where
pixels are rows (channels last), else a batched product; one cross-entropy of all scores. "term by term" makes each
score by a 1x1 convolution of its own, as the paper's code does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import ciss_fast

from .case import ON_CPU, Target, Workload

WEIGHT = 5.0  # of both terms, as in DKD
Result = tuple[Tensor, Tensor, Tensor]  # total, gradients on feature and weight
LossFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def our_loss(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor, **options: str) -> Tensor:
    """The total as a user asks for it."""
    return ciss_fast.reasoning_loss(feature, weight, feature_old, weight_old, pos=WEIGHT, neg=WEIGHT, **options)[0]


def parts(weight: Tensor) -> Tensor:
    """The positive part above the negative one: [2C, D]."""
    return torch.cat([weight.clamp(min=0), weight.clamp(max=0)])


def eager_rows(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> Tensor:
    """Scores [B, h, w, 2C]: for channels-last features."""
    scores = F.linear(feature.float().permute(0, 2, 3, 1), parts(weight))
    target = F.linear(feature_old.float().permute(0, 2, 3, 1), parts(weight_old)).sigmoid()
    return WEIGHT * F.binary_cross_entropy_with_logits(scores, target, reduction="sum") / feature[:, 0].numel()


def eager_columns(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> Tensor:
    """Scores [B, 2C, h * w]: for contiguous features."""
    batch = len(feature)
    scores = torch.bmm(parts(weight).expand(batch, -1, -1), feature.float().flatten(2))
    target = torch.bmm(parts(weight_old).expand(batch, -1, -1), feature_old.float().flatten(2)).sigmoid()
    return WEIGHT * F.binary_cross_entropy_with_logits(scores, target, reduction="sum") / feature[:, 0].numel()


def term_by_term(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> Tensor:
    """Each term with convolutions of its own."""
    feature, feature_old = feature.float(), feature_old.float()
    total = feature.new_zeros(())
    for clamp in ({"min": 0}, {"max": 0}):
        scores = F.conv2d(feature, weight.clamp(**clamp)[:, :, None, None])
        target = F.conv2d(feature_old, weight_old.clamp(**clamp)[:, :, None, None]).sigmoid()
        values = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
        total = total + WEIGHT * values.mean(dim=(0, 2, 3)).sum()
    return total


@dataclass(frozen=True)
class ReasoningCase:
    """One setting. Features are normal behind a ReLU, classifiers normal; the teacher's are a little different."""

    name: str
    batch: int
    classes: int
    size: tuple[int, int] = (32, 32)
    channels: int = 256
    channels_last: bool = True
    feature_type: torch.dtype = torch.float32
    compiled: bool = False
    compared_with: str | None = None

    @property
    def description(self) -> str:
        text = [
            f"{self.batch}x{self.channels}x{self.size[0]}x{self.size[1]}, {self.classes} old classes",
            "channels last" if self.channels_last else "contiguous",
        ]
        if self.feature_type != torch.float32:
            text.append(str(self.feature_type).removeprefix("torch."))
        return ", ".join(text)

    def shrunk(self) -> ReasoningCase:
        """A quarter of every side."""
        return replace(self, size=(-(-self.size[0] // 4), -(-self.size[1] // 4)))

    def tiny(self) -> ReasoningCase:
        """A few numbers of everything."""
        return replace(self, batch=1, classes=2, channels=3, size=(2, 3))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Feature and weight (ask for gradients), the teacher's: the same at every call."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        shape = (self.batch, self.channels, *self.size)
        feature, weight = normal(*shape), 0.1 * normal(self.classes, self.channels)
        feature_old, weight_old = feature + 0.2 * normal(*shape), weight + 0.02 * normal(*weight.shape)
        feature, feature_old = (
            x.relu().to(self.feature_type).contiguous(memory_format=memory_format) for x in (feature, feature_old)
        )
        return feature.requires_grad_(), weight.requires_grad_(), feature_old, weight_old

    def workload(self, target: Target = ON_CPU) -> Workload:
        feature, weight, *fixed = (x.detach().to(target.device) for x in self.tensors())
        tensors = (feature.requires_grad_(), weight.requires_grad_(), *fixed)
        eager = eager_rows if self.channels_last else eager_columns
        feature_old = tensors[2]
        pixels = feature[:, 0].numel()
        return Workload(
            candidates={
                "eager": partial(forward_backward, eager, tensors),
                "ours": partial(forward_backward, partial(our_loss, **target.options), tensors),
                "eager, term by term": partial(forward_backward, term_by_term, tensors),
            },
            compiled=(lambda: partial(forward_backward, compile_loss(eager), tensors)) if self.compiled else None,
            expected=lambda: expected(tensors),
            errors=relative_errors,
            allowed=allowed_errors(self.feature_type),
            pixels=pixels,
            traffic_bytes=2 * feature.nbytes + feature_old.nbytes,
            multiply_adds=4 * pixels * weight.numel(),
            details={"pixels": pixels},
        )


def forward_backward(loss: LossFunction, tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> Result:
    """Total and gradients, which are handed over as in a network, not added to a ``.grad``."""
    total = loss(*tensors)
    return total.detach(), *torch.autograd.grad(total, tensors[:2])


def compile_loss(loss: LossFunction) -> LossFunction:
    """``loss`` through torch.compile, for exactly these shapes and in one graph."""
    torch.compiler.reset()
    return torch.compile(loss, fullgraph=True, dynamic=False)


def expected(tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> Result:
    """Total and gradients of the op's definition in float64."""
    exact = [x.detach().double() for x in tensors]
    leaves = [x.requires_grad_() for x in exact[:2]]
    total, _ = ciss_fast.reasoning_loss(*exact, pos=WEIGHT, neg=WEIGHT, backend="reference")
    return total.detach(), *torch.autograd.grad(total, leaves)


def allowed_errors(feature_type: torch.dtype) -> dict[str, float]:
    """1e-5, and for half-precision features their gradient's own rounding."""
    rounding = 0.0 if feature_type == torch.float32 else torch.finfo(feature_type).eps / 2
    return {"loss": 1e-5, "feature": 1e-5 + rounding, "weight": 1e-5}


def relative_errors(result: Result, exact: Result) -> dict[str, float]:
    """Of the total, and of each gradient's entries relative to the largest."""
    return {
        name: float((value.double() - right).abs().max() / right.abs().max())
        for name, value, right in zip(("loss", "feature", "weight"), result, exact, strict=True)
    }


def _cases() -> list[ReasoningCase]:
    cases = []
    for data, batch, classes in (("voc", 4, 15), ("ade", 4, 100), ("ade-one-image", 1, 100)):
        headline = ReasoningCase(data, batch, classes, compiled=True)
        case = partial(replace, headline, compiled=False, compared_with=data)
        cases += [
            headline,
            case(name=f"{data}-contiguous", channels_last=False, compiled=data != "ade-one-image"),
            case(name=f"{data}-bfloat16", feature_type=torch.bfloat16),
        ]
    cases += [
        ReasoningCase("voc-bfloat16-contiguous", 4, 15, channels_last=False, feature_type=torch.bfloat16,
                      compared_with="voc"),
        ReasoningCase("voc-33x33", 4, 15, (33, 33), compared_with="voc"),
        ReasoningCase("voc-64x64", 4, 15, (64, 64), compared_with="voc"),
        ReasoningCase("call-overhead", 1, 2, (2, 3), channels=4),  # next to no work
    ]  # fmt: skip
    return cases


_GPU = ReasoningCase("gpu-ade", 12, 100, compiled=True)

CASES = tuple(_cases())
GPU_CASES = (_GPU, replace(_GPU, name="gpu-ade-bfloat16", feature_type=torch.bfloat16, compared_with=_GPU.name))
