"""Cases of ``softmax_loss``: forward and backward through the public op, enlargement included.

Floors. Traffic: student, teacher and labels read once, gradient written once. Operations, where logits are
enlarged: four multiply-adds per pixel and class of student and teacher. That is the least the geometric form
needs: one step of the sequence and one addition to the sum on the way there, two Horner steps for the
gradient (the teacher's two give the terms that are linear in the student's logits). What is done per pixel,
per logit or per label (logarithms, weights, exponentials, masks) comes on top and is not part of the floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import ciss_fast

from . import eager, label_maps
from .case import Workload

LossFunction = Callable[[Tensor, Tensor | None, Tensor, bool], Tensor]
Result = tuple[Tensor, Tensor]  # total, gradient on the student


@dataclass(frozen=True)
class Mix:
    """Which terms are asked for, and the plain PyTorch formulation of their sum."""

    text: str
    eager: LossFunction
    options: dict[str, Any]
    needs_teacher: bool = True
    needs_new_classes: bool = True


MIXES = {
    "alife": Mix("CE + 3 ALI + KD", eager.alife, {"ce": 1.0, "ali": 3.0, "kd": 1.0}),
    "mib": Mix("CCE + 10 CKD", eager.mib, {"cce": 1.0, "ckd": 10.0, "cce_average": "all"}),
    "ce": Mix("CE", eager.ce, {"ce": 1.0}, needs_teacher=False),
    "kd": Mix("KD", eager.kd, {"kd": 1.0, "kd_region": "all"}, needs_new_classes=False),
    "focal": Mix("focal + 3 ALI", eager.focal_ali, {"focal": 1.0, "ali": 3.0}),
    "all": Mix(
        "all six terms",
        eager.all_terms,
        {"ce": 1.0, "cce": 1.0, "kd": 1.0, "ckd": 1.0, "ali": 1.0, "focal": 1.0},
    ),
    "base": Mix("CE, base step", eager.base_step, {"ce": 1.0, "old_classes": 0}, needs_teacher=False),
}


def our_loss(
    student: Tensor, teacher: Tensor | None, label: Tensor, align_corners: bool, *, old_classes: int, mix: str
) -> Tensor:
    """The total as a user asks for it."""
    options = {"old_classes": old_classes, **MIXES[mix].options}
    return ciss_fast.softmax_loss(student, teacher, label, align_corners=align_corners, **options)[0]


@dataclass(frozen=True)
class LossCase:
    """One setting. Logits are normal with ``deviation``, independent at every position of the small map."""

    name: str
    shape: tuple[int, int, int]  # batch, classes, old classes
    logits_size: tuple[int, int] = (32, 32)
    label_size: tuple[int, int] = (512, 512)
    mix: str = "alife"
    align_corners: bool = True
    dtype: torch.dtype = torch.float32
    labels: str = "blobs"
    deviation: float = 3.0
    upstream: float = 1.0  # the gradient that reaches the loss; 1 is what total.backward() sends
    compiled: bool = False
    others: dict[str, LossFunction] = field(default_factory=dict)
    compared_with: str | None = None

    @property
    def description(self) -> str:
        batch, classes, old = self.shape
        size = "x".join(map(str, self.logits_size))
        if self.logits_size != self.label_size:
            size += " to " + "x".join(map(str, self.label_size))
        parts = [f"{batch}x{classes}({old}) {size}", MIXES[self.mix].text]
        if self.logits_size != self.label_size:
            parts.append(f"align_corners={self.align_corners}")
        if self.dtype != torch.float32:
            parts.append(str(self.dtype).removeprefix("torch."))
        if self.labels != "blobs":
            parts.append(f"{self.labels} labels")
        if self.deviation != 3:
            parts.append(f"logits of deviation {self.deviation:g}")
        if self.upstream != 1:
            parts.append(f"upstream gradient {self.upstream:g}")
        return ", ".join(parts)

    def shrunk(self) -> LossCase:
        """A quarter of every side."""
        quarter = [tuple(-(-n // 4) for n in size) for size in (self.logits_size, self.label_size)]
        return replace(self, logits_size=quarter[0], label_size=quarter[1])

    def tiny(self) -> LossCase:
        """Three classes, a 2x2 map, the same ratio."""
        ratio = [max(1, big // small) for big, small in zip(self.label_size, self.logits_size, strict=True)]
        return replace(
            self,
            shape=(1, 3, 2),
            logits_size=(2, 2),
            label_size=(2 * ratio[0], 2 * ratio[1]),
            labels="random",
        )

    def tensors(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Student (asks for a gradient), teacher or None, labels: the same at every call."""
        batch, classes, old = self.shape
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(batch, classes + old, *self.logits_size, generator=generator) * self.deviation
        logits = logits.to(self.dtype)
        student, teacher = (part.contiguous() for part in logits.split([classes, old], dim=1))
        base = self.mix == "base"
        shown = range(0 if base else old, classes)
        if self.labels == "blobs":
            # At the base step every pixel is labelled; MiB turns 255 into 0.
            border = not base and self.mix != "mib"
            label = label_maps.blobs(batch, self.label_size, shown, background=not base, border=border)
        else:
            label = label_maps.random_pixels(batch, self.label_size, shown, background=not base)
            if self.mix == "mib":
                label = label.masked_fill(label == label_maps.IGNORED, 0)
        return student.requires_grad_(), teacher if MIXES[self.mix].needs_teacher else None, label

    def workload(self) -> Workload:
        mix = MIXES[self.mix]
        batch, classes, old = self.shape
        student, teacher, label = self.tensors()
        upstream = None if self.upstream == 1 else torch.tensor(self.upstream)

        def measured(loss: LossFunction) -> Callable[[], Result]:
            return partial(forward_backward, loss, student, teacher, label, self.align_corners, upstream)

        candidates = {
            "eager": measured(mix.eager),
            "ours": measured(partial(our_loss, old_classes=old, mix=self.mix)),
        }
        candidates |= {name: measured(loss) for name, loss in self.others.items()}
        enlarged = self.logits_size != self.label_size
        classes_computed = (classes if mix.needs_new_classes else old) + (old if teacher is not None else 0)
        read = sum(t.nbytes for t in (student, teacher, label) if t is not None)
        return Workload(
            candidates=candidates,
            compiled=(lambda: measured(compile_loss(mix.eager))) if self.compiled else None,
            expected=lambda: self.expected(student, teacher, label),
            errors=relative_errors,
            allowed=self.allowed_errors(),
            pixels=label.numel(),
            traffic_bytes=read + student.nbytes,
            multiply_adds=4 * classes_computed * label.numel() if enlarged else 0,
            details={
                "pixels": label.numel(),
                "unlabelled": 0 if self.mix == "base" else int((label == 0).sum()),
                "ignored": int((label == label_maps.IGNORED).sum()),
            },
        )

    def expected(self, student: Tensor, teacher: Tensor | None, label: Tensor) -> Result:
        """Total and gradient of the op's definition in float64."""
        exact = student.detach().double().requires_grad_()
        options = {"old_classes": self.shape[2], **MIXES[self.mix].options}
        total, _ = ciss_fast.softmax_loss(
            exact,
            None if teacher is None else teacher.double(),
            label,
            align_corners=self.align_corners,
            backend="reference",
            **options,
        )
        (gradient,) = torch.autograd.grad(total, exact)
        return total.detach(), gradient * self.upstream

    def allowed_errors(self) -> dict[str, float]:
        """1e-5, and for the gradient half-precision logits' own rounding."""
        rounding = 0.0 if self.dtype == torch.float32 else torch.finfo(self.dtype).eps / 2
        return {"loss": 1e-5, "gradient": 1e-5 + rounding}


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


def _cases() -> list[LossCase]:
    cases = []
    for data, shape in {"voc": (4, 21, 16), "ade": (1, 151, 101)}.items():
        headline = LossCase(
            f"{data}-alife", shape, compiled=True, others={"eager, term by term": eager.alife_term_by_term}
        )
        case = partial(replace, headline, compiled=False, others={}, compared_with=headline.name)
        cases += [
            headline,
            case(name=f"{data}-half-pixel", align_corners=False),
            case(name=f"{data}-ratio-8", logits_size=(64, 64)),
            case(name=f"{data}-ratio-4", logits_size=(128, 128)),
            case(name=f"{data}-33-to-513", logits_size=(33, 33), label_size=(513, 513)),
            case(name=f"{data}-30-to-500", logits_size=(30, 30), label_size=(500, 500)),
            case(name=f"{data}-mib", mix="mib", compiled=True),
            case(name=f"{data}-ce", mix="ce"),
            case(name=f"{data}-kd", mix="kd"),
            case(name=f"{data}-focal-ali", mix="focal"),
            case(name=f"{data}-all-terms", mix="all"),
            case(name=f"{data}-base-step", mix="base"),
            case(name=f"{data}-bfloat16", dtype=torch.bfloat16),
            case(name=f"{data}-random-labels", labels="random"),
            case(name=f"{data}-large-logits", deviation=50.0),
        ]
    ade = LossCase("label-size-ade-mib", (2, 151, 101), (128, 128), (128, 128), mix="mib", compiled=True)
    cases += [
        ade,
        replace(ade, name="label-size-ade-alife", mix="alife", compiled=False),
        replace(ade, name="label-size-ade-scaled", compiled=False, upstream=0.5),
        LossCase("label-size-voc-alife", (2, 21, 16), (256, 256), (256, 256), compiled=True),
        LossCase("call-overhead", (1, 3, 2), (1, 1), (16, 16), labels="random"),  # next to no work
    ]
    return cases


CASES = tuple(_cases())
