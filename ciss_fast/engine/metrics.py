"""Scores of a segmentation from a confusion matrix, and of a run from its steps; docs/scores.md defines them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
        base_foreground, all_foreground, harmonic_foreground: the same without the background class.
        pixel_accuracy_foreground: part of the pixels of all classes but the background that is right.
    """

    iou: tuple[float | None, ...]
    base: float | None
    new: float | None
    all: float | None
    harmonic: float | None
    pixel_accuracy: float | None
    groups: tuple[float | None, ...]
    base_foreground: float | None
    all_foreground: float | None
    harmonic_foreground: float | None
    pixel_accuracy_foreground: float | None

    def summary(self) -> dict[str, Any]:
        """The scores that are not per class, under their names in ``metrics.json``."""
        return {
            "miou_base": self.base,
            "miou_new": self.new,
            "miou_all": self.all,
            "hiou": self.harmonic,
            "pixel_accuracy": self.pixel_accuracy,
            "miou_base_foreground": self.base_foreground,
            "miou_all_foreground": self.all_foreground,
            "hiou_foreground": self.harmonic_foreground,
            "pixel_accuracy_foreground": self.pixel_accuracy_foreground,
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


def base_pixels(confusion: np.ndarray, base_classes: int) -> dict[str, float] | None:
    """What the test pixels of the base step's classes, background left out, are called: parts of them that add up to 1.

    ``confusion``: int [C, C] in channel order, rows the truth; the first ``base_classes`` channels are the base step's,
    background the first of them. "right", "background", "base": another of the base step's classes, "later": a class
    of a later step. None if there is no such pixel.
    """
    rows = confusion[1:base_classes].astype(np.float64)
    if not rows.sum():
        return None
    right, background, later = rows[:, 1:].trace(), rows[:, 0].sum(), rows[:, base_classes:].sum()
    parts = {"right": right, "background": background, "base": rows.sum() - right - background - later, "later": later}
    return {name: float(value / rows.sum()) for name, value in parts.items()}


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
    base_foreground = _mean(iou[1 : bounds[1]])
    return Scores(
        iou=tuple(None if math.isnan(value) else float(value) for value in iou),
        base=base,
        new=new,
        all=_mean(iou),
        harmonic=harmonic_mean(base, new),
        pixel_accuracy=_part_right(confusion, 0),
        groups=tuple(_mean(iou[low:high]) for low, high in zip(bounds[:-1], bounds[1:], strict=True)),
        base_foreground=base_foreground,
        all_foreground=_mean(iou[1:]),
        harmonic_foreground=harmonic_mean(base_foreground, new),
        pixel_accuracy_foreground=_part_right(confusion, 1),
    )


MEANS_OVER_STEPS = (
    "miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy", "miou_base_foreground", "miou_all_foreground",
    "hiou_foreground", "pixel_accuracy_foreground",
)  # fmt: skip


def run_scores(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all steps together say, under its names in ``metrics.json``.

    ``steps`` are the entries of the finished steps in order, each with what `Scores.summary` gives.

    - ``miou_matrix``: row t, column g is the mean IoU after step t of the classes that step g brought; None where
      they were not learnt yet.
    - ``forgetting``: see `forgetting`; ``mean_forgetting``: its mean.
    - ``mean_over_steps``: every score averaged over the steps that have it; ``mean_miou_all`` is the usual one.
    """
    rows = [list(entry["miou_by_step"]) for entry in steps]
    width = max(map(len, rows), default=0)
    matrix = [row + [None] * (width - len(row)) for row in rows]
    lost = forgetting(matrix)
    means = {name: mean_of(entry[name] for entry in steps) for name in MEANS_OVER_STEPS}
    return {
        "miou_matrix": matrix,
        "forgetting": lost,
        "mean_forgetting": mean_of(lost),
        "mean_over_steps": means,
        "mean_miou_all": means["miou_all"],
    }


def forgetting(matrix: Sequence[Sequence[float | None]]) -> list[float | None]:
    """How much of its best score after an earlier step every group of classes has lost after the last one.

    Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, section 4, with IoU in place of
    accuracy: max over t < T of a[t][g], minus a[T][g]. Negative where a group has gained. None for a group with no
    earlier score, as the last step's own, or none now.
    """
    if not matrix:
        return []
    lost: list[float | None] = []
    for group, last in enumerate(matrix[-1]):
        earlier = [row[group] for row in matrix[:-1] if row[group] is not None]
        lost.append(max(earlier) - last if earlier and last is not None else None)
    return lost


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that there are; None if there is none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _part_right(confusion: np.ndarray, first: int) -> float | None:
    """Part of the pixels whose true class is ``first`` or later that is right."""
    labelled = int(confusion[first:].sum())
    return float(np.diagonal(confusion)[first:].sum()) / labelled if labelled else None


def _mean(iou: np.ndarray) -> float | None:
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if len(present) else None
