"""What a call of `softmax_loss` asks for: weights, averaging, regions; and the checks of its arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Integral, Real

import torch
from torch import Tensor

from ..tensors import check_float_type, check_ignore_index, check_label_map

TERMS = ("ce", "cce", "kd", "ckd", "ali", "focal")
AVERAGES = ("all", "valid", "region")
KD_REGIONS = ("not_unlabelled", "all", "unlabelled")
NEEDS_TEACHER = ("kd", "ckd", "ali")

# How the papers' code averages: CE and focal over all pixels, CCE over those not ignored, ALI and KD over the
# pixels they apply to, CKD over all.
DEFAULT_AVERAGE = {"ce": "all", "cce": "valid", "kd": "region", "ckd": "all", "ali": "region", "focal": "all"}


@dataclass(frozen=True)
class SoftmaxLossOptions:
    """Checked options of one call; see `ciss_fast.softmax_loss` for their meaning."""

    weights: dict[str, float]
    old_classes: int = 0
    align_corners: bool = False
    alpha: float = 1.0
    ignore_index: int = 255
    average: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_AVERAGE))
    kd_region: str = "not_unlabelled"
    check_labels: bool = True

    def active_weights(self) -> dict[str, float]:
        """The terms to compute, in the order of `TERMS`: those whose weight is not 0."""
        return {name: self.weights[name] for name in TERMS if self.weights[name] != 0}

    def reads_teacher(self) -> bool:
        """Whether a term to compute needs the teacher's logits, where there are any."""
        return any(name in self.active_weights() for name in (*NEEDS_TEACHER, "focal"))


def check_types(student: object, teacher: object, label: object, options: SoftmaxLossOptions) -> None:
    """Raise TypeError naming the first argument that is not of its kind at all."""
    for name, value in {"student": student, "teacher": teacher, "label": label}.items():
        if name == "teacher" and value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
        if value.layout != torch.strided:
            raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}")
    for name, number in {**options.weights, "alpha": options.alpha}.items():
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{name}: expected a number, got {number!r}")
    for name in ("old_classes", "ignore_index"):
        number = getattr(options, name)
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise TypeError(f"{name}: expected an integer, got {number!r}")
    for name in ("align_corners", "check_labels"):
        if not isinstance(getattr(options, name), bool):
            raise TypeError(f"{name}: expected True or False, got {getattr(options, name)!r}")


def check_options(options: SoftmaxLossOptions, has_teacher: bool) -> None:
    """Raise ValueError for values that do not exist or do not fit together."""
    for name, weight in options.weights.items():
        if not -math.inf < weight < math.inf:  # math.isfinite cannot be traced by torch.compile
            raise ValueError(f"{name}: expected a finite weight, got {weight}")
    active = options.active_weights()
    if not active:
        raise ValueError(f"weights: expected at least one of {', '.join(TERMS)} other than 0, got all 0")
    for name in TERMS:
        if options.average[name] not in AVERAGES:
            raise ValueError(
                f"{name}_average: expected one of {', '.join(AVERAGES)}, got {options.average[name]!r}"
            )
    if options.kd_region not in KD_REGIONS:
        raise ValueError(f"kd_region: expected one of {', '.join(KD_REGIONS)}, got {options.kd_region!r}")
    if not 0 < options.alpha < math.inf:
        raise ValueError(f"alpha: expected a finite number above 0, got {options.alpha}")
    check_ignore_index(options.ignore_index)
    if not has_teacher:
        wanting = [name for name in NEEDS_TEACHER if name in active]
        if "focal" in active and options.old_classes > 0:
            wanting.append("focal")  # unlabelled pixels take the teacher's pseudo-label
        if wanting:
            raise ValueError(f"teacher: expected logits for the terms {', '.join(wanting)}, got None")


def check_tensors(student: Tensor, teacher: Tensor | None, label: Tensor, old_classes: int) -> None:
    """Raise TypeError or ValueError when types, shapes or devices do not fit together."""
    check_float_type("student", student)
    if student.dim() != 4:
        raise ValueError(f"student: expected logits [B, C, h, w], got shape {list(student.shape)}")
    check_label_map(label, student, "student")
    classes = student.shape[1]
    if classes < 1:
        raise ValueError("student: expected at least one channel, got 0")
    if teacher is not None and teacher.dim() != 4:
        raise ValueError(f"teacher: expected logits [B, old_classes, h, w], got shape {list(teacher.shape)}")
    if teacher is not None and teacher.shape[1] > classes:
        raise ValueError(f"teacher: expected at most the student's {classes} channels, got shape {list(teacher.shape)}")
    if not 0 <= old_classes <= classes:
        raise ValueError(f"old_classes: expected 0 to {classes} (the student's channels), got {old_classes}")
    if label.shape[1] * label.shape[2] > 0 and student.shape[2] * student.shape[3] == 0:
        raise ValueError(f"student: expected a map of at least 1x1, got shape {list(student.shape)}")
    if teacher is None:
        return
    check_float_type("teacher", teacher)
    expected = [student.shape[0], old_classes, student.shape[2], student.shape[3]]
    if list(teacher.shape) != expected:
        raise ValueError(
            f"teacher: expected [B, old_classes, h, w] = {expected} (the student is {list(student.shape)}), "
            f"got shape {list(teacher.shape)}"
        )
    if teacher.device != student.device:
        raise ValueError(f"teacher: expected device {student.device} like the student, got {teacher.device}")
    if old_classes < 1:
        raise ValueError("teacher: expected at least one channel, got 0")
