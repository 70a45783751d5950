"""Scores of a segmentation from a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Scores after one step, as fractions between 0 and 1; None where there is nothing to average.

    Attributes:
        iou: per class in channel order; None for a class with no pixel in the ground truth.
        base: mean IoU of the base step's classes, background included.
        new: mean IoU of all classes learnt later.
        all: mean IoU of all classes seen so far.
        harmonic: hIoU = 2 base new / (base + new).
        pixel_accuracy: part of the labelled pixels that is right.
        groups: mean IoU of each step's classes, from which forgetting can be read.
    """

    iou: tuple[float | None, ...]
    base: float | None
    new: float | None
    all: float | None
    harmonic: float | None
    pixel_accuracy: float | None
    groups: tuple[float | None, ...]

    def summary(self) -> dict[str, Any]:
        """The scores that are not per class, under their names in ``metrics.json``."""
        return {
            "miou_base": self.base,
            "miou_new": self.new,
            "miou_all": self.all,
            "hiou": self.harmonic,
            "pixel_accuracy": self.pixel_accuracy,
            "miou_by_step": list(self.groups),
        }


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """IoU per class, float64 [C]; NaN for a class with no pixel in the ground truth.

    ``confusion`` is int [C, C], rows the truth, columns the prediction.
    """
    hits = np.diagonal(confusion).astype(np.float64)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    union = (truth + predicted).astype(np.float64) - hits
    iou = np.full(len(hits), np.nan)
    present = truth > 0
    iou[present] = hits[present] / union[present]
    return iou


def harmonic_mean(base: float | None, new: float | None) -> float | None:
    """2 base new / (base + new); None if one is missing, 0 if both are 0."""
    if base is None or new is None:
        return None
    return 2 * base * new / (base + new) if base + new > 0 else 0.0


def compute_scores(confusion: np.ndarray, classes_per_step: Sequence[int]) -> Scores:
    """All scores of a confusion matrix over the classes seen so far, in channel order.

    Args:
        confusion: int [C, C], rows the truth, columns the prediction.
        classes_per_step: classes that each step so far brought, background counted in the first; sums to C.

    Classes with no pixel in the ground truth are left out of every mean. Raises ValueError if the shapes do
    not fit.
    """
    channels = sum(classes_per_step)
    if confusion.shape != (channels, channels):
        raise ValueError(
            f"confusion: expected shape ({channels}, {channels}) for classes_per_step "
            f"{list(classes_per_step)}, got {confusion.shape}"
        )
    iou = intersection_over_union(confusion)
    bounds = np.cumsum([0, *classes_per_step])
    base, new = _mean(iou[: bounds[1]]), _mean(iou[bounds[1] :])
    labelled = int(confusion.sum())
    return Scores(
        iou=tuple(None if math.isnan(value) else float(value) for value in iou),
        base=base,
        new=new,
        all=_mean(iou),
        harmonic=harmonic_mean(base, new),
        pixel_accuracy=float(np.trace(confusion)) / labelled if labelled else None,
        groups=tuple(_mean(iou[low:high]) for low, high in zip(bounds[:-1], bounds[1:], strict=True)),
    )


def _mean(iou: np.ndarray) -> float | None:
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if len(present) else None
