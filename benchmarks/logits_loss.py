"""What the benchmarks of the losses on logits share: cases, their tensors, and the work to be timed.

Forward and backward go through the public op, enlargement included. Traffic floor: student, teacher and labels read
once, gradient written once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from . import label_maps, recorded_logits
from .case import ON_CPU, Target, Workload
from .label_maps import IGNORED

LossFunction = Callable[[Tensor, Tensor | None, Tensor, bool], Tensor]
Result = tuple[Tensor, Tensor]  # total, gradient on the student


@dataclass(frozen=True)
class Mix:
    """Which terms are asked for, and the plain PyTorch formulation of their sum.

    Attributes:
        text: the terms.
        eager: the formulation; its arguments are student, teacher, label and ``align_corners``.
        options: arguments of the op.
        needs_teacher, needs_new_classes: what the terms read.
        base: a base step: all classes are new.
        background: the label map has pixels of no class of the step.
        border: the label map has ignored pixels.
    """

    text: str
    eager: LossFunction
    options: dict[str, Any]
    needs_teacher: bool = True
    needs_new_classes: bool = True
    base: bool = False
    background: bool = True
    border: bool = True


def our_loss(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    align_corners: bool,
    *,
    function: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    options: Mapping[str, Any],
) -> Tensor:
    """The total as a user asks for it."""
    return function(student, teacher, label, align_corners=align_corners, **options)[0]


@dataclass(frozen=True)
class LossCase:
    """One setting of a loss. Subclasses say of which.

    ``logits`` are "normal", with ``deviation`` and independent at every position of the small map, or "recorded":
    those of a trained network (`recorded_logits`).
    """

    name: str
    shape: tuple[int, int, int]  # batch, channels, channels of the teacher
    logits_size: tuple[int, int] = (32, 32)
    label_size: tuple[int, int] = (512, 512)
    mix: str = ""
    align_corners: bool = True
    dtype: torch.dtype = torch.float32
    labels: str = "blobs"
    logits: str = "normal"
    deviation: float = 3.0
    upstream: float = 1.0  # the gradient that reaches the loss; 1 is what total.backward() sends
    compiled: bool = False
    others: dict[str, LossFunction] = field(default_factory=dict)
    compared_with: str | None = None

    function: ClassVar[Callable[..., tuple[Tensor, dict[str, Tensor]]]]
    mixes: ClassVar[Mapping[str, Mix]]
    auxiliary: ClassVar[int]  # channels before the first class
    # Multiply-adds per pixel and class of student and teacher that enlarged logits need at least; 0: not bounded so.
    multiply_adds: ClassVar[int]

    @property
    def description(self) -> str:
        batch, channels, old = self.shape
        size = "x".join(map(str, self.logits_size))
        if self.logits_size != self.label_size:
            size += " to " + "x".join(map(str, self.label_size))
        parts = [f"{batch}x{channels}({old}) {size}", self.mixes[self.mix].text]
        if self.logits_size != self.label_size:
            parts.append(f"align_corners={self.align_corners}")
        if self.dtype != torch.float32:
            parts.append(str(self.dtype).removeprefix("torch."))
        if self.labels != "blobs":
            parts.append(f"{self.labels} labels")
        if self.logits == "recorded":
            parts.append("a trained network's logits")
        elif self.deviation != 3:
            parts.append(f"logits of deviation {self.deviation:g}")
        if self.upstream != 1:
            parts.append(f"upstream gradient {self.upstream:g}")
        return ", ".join(parts)

    def shrunk(self) -> LossCase:
        """A quarter of every side."""
        quarter = [tuple(-(-n // 4) for n in size) for size in (self.logits_size, self.label_size)]
        return replace(self, logits_size=quarter[0], label_size=quarter[1])

    def tiny(self) -> LossCase:
        """Three channels, a 2x2 map, the same ratio."""
        ratio = [max(1, big // small) for big, small in zip(self.label_size, self.logits_size, strict=True)]
        return replace(
            self,
            shape=(1, 3, 2),
            logits_size=(2, 2),
            label_size=(2 * ratio[0], 2 * ratio[1]),
            labels="random",
        )

    def options(self) -> dict[str, Any]:
        """Arguments of the op beside tensors and ``align_corners``."""
        mix = self.mixes[self.mix]
        return {"old_classes": 0 if mix.base else self.shape[2] - self.auxiliary, **mix.options}

    def tensors(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Student (asks for a gradient), teacher or None, labels: the same at every call."""
        batch, channels, old = self.shape
        mix = self.mixes[self.mix]
        if self.logits == "recorded":
            student, teacher = recorded_logits.arrange(batch, channels, old, self.logits_size)
            student, teacher = student.to(self.dtype), teacher.to(self.dtype)
        else:
            generator = torch.Generator().manual_seed(0)
            logits = torch.randn(batch, channels + old, *self.logits_size, generator=generator) * self.deviation
            student, teacher = (part.contiguous() for part in logits.to(self.dtype).split([channels, old], dim=1))
        shown = range(self.auxiliary if mix.base else old, channels)
        if self.labels == "blobs":
            label = label_maps.blobs(
                batch, self.label_size, shown, background=mix.background, border=mix.border
            )
        else:
            label = label_maps.random_pixels(batch, self.label_size, shown, background=mix.background)
            if not mix.border and mix.background:
                label = label.masked_fill(label == IGNORED, 0)
        return student.requires_grad_(), teacher if mix.needs_teacher else None, label

    def workload(self, target: Target = ON_CPU) -> Workload:
        mix = self.mixes[self.mix]
        _, channels, old = self.shape
        student, teacher, label = (None if x is None else x.detach().to(target.device) for x in self.tensors())
        student.requires_grad_()
        upstream = None if self.upstream == 1 else torch.tensor(self.upstream, device=target.device)

        def measured(loss: LossFunction) -> Callable[[], Result]:
            return partial(forward_backward, loss, student, teacher, label, self.align_corners, upstream)

        candidates = {
            "eager": measured(mix.eager),
            "ours": measured(
                partial(our_loss, function=type(self).function, options=self.options() | target.options)
            ),
        }
        candidates |= {name: measured(loss) for name, loss in self.others.items()}
        enlarged = self.logits_size != self.label_size
        channels_computed = (channels if mix.needs_new_classes else old) + (old if teacher is not None else 0)
        read = sum(t.nbytes for t in (student, teacher, label) if t is not None)
        return Workload(
            candidates=candidates,
            compiled=(lambda: measured(compile_loss(mix.eager))) if self.compiled else None,
            expected=lambda: self.expected(student, teacher, label),
            errors=relative_errors,
            allowed=self.allowed_errors(),
            pixels=label.numel(),
            traffic_bytes=read + student.nbytes,
            multiply_adds=self.multiply_adds * channels_computed * label.numel() if enlarged else 0,
            details={
                "pixels": label.numel(),
                "unlabelled": int((label == 0).sum()) if mix.background else 0,
                "ignored": int((label == IGNORED).sum()),
                "neighbour_difference": recorded_logits.neighbour_difference(student.detach()),
            },
        )

    def expected(self, student: Tensor, teacher: Tensor | None, label: Tensor) -> Result:
        """Total and gradient of the op's definition in float64."""
        exact = student.detach().double().requires_grad_()
        total, _ = type(self).function(
            exact,
            None if teacher is None else teacher.double(),
            label,
            align_corners=self.align_corners,
            backend="reference",
            **self.options(),
        )
        (gradient,) = torch.autograd.grad(total, exact)
        return total.detach(), gradient * self.upstream

    def allowed_errors(self) -> dict[str, float]:
        """1e-5, and for the gradient half-precision logits' own rounding."""
        rounding = 0.0 if self.dtype == torch.float32 else torch.finfo(self.dtype).eps / 2
        return {"loss": 1e-5, "gradient": 1e-5 + rounding}


def enlarge(logits: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """Float32 logits at the label's size; half-precision ones are widened while they are small."""
    size = label.shape[1:]
    logits = logits.float()
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def forward_backward(
    loss: LossFunction,
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    align_corners: bool,
    upstream: Tensor | None,
) -> Result:
    """Total and gradient. As in a network, the logits' gradient is handed over, not added to a ``.grad``."""
    total = loss(student, teacher, label, align_corners)
    (gradient,) = torch.autograd.grad(total, student, upstream)
    return total.detach(), gradient


def compile_loss(loss: LossFunction) -> LossFunction:
    """``loss`` through torch.compile, for exactly these shapes and in one graph."""
    torch.compiler.reset()  # after several shapes of one function torch.compile would fall back to eager
    return torch.compile(loss, fullgraph=True, dynamic=False)


def relative_errors(result: Result, expected: Result) -> dict[str, float]:
    """Of the total, and of the gradient's entries relative to the largest."""
    (total, gradient), (exact_total, exact_gradient) = result, expected
    smallest = torch.finfo(torch.float64).tiny
    worst = (gradient.double() - exact_gradient).abs().max()
    return {
        "loss": float((total.double() - exact_total).abs() / exact_total.abs().clamp(min=smallest)),
        "gradient": float(worst / exact_gradient.abs().max().clamp(min=smallest)),
    }
