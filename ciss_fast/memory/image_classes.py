"""Which classes an image counts for when images are chosen for the memory (DKD-M, Baek et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

import ciss_fast
from ciss_fast.data.image_files import IGNORE
from ciss_fast.models import SegmentationModel


@torch.inference_mode()
def image_classes(
    batches: Iterable[tuple[Tensor, Tensor]],
    channel_order: Sequence[int],
    model: SegmentationModel | None = None,
    *,
    threshold: float = 0.9,
    align_corners: bool = False,
) -> list[tuple[int, ...]]:
    """The foreground class ids that every image shows, ascending, in the order of the batches.

    A class is shown if a pixel is labelled with it. With a model, unlabelled pixels (label 0) take the class
    that the model scores highest where that score, a sigmoid, reaches the threshold. Published: training crops
    of step t - 1; without a model at t = 1, where everything seen is labelled, and with the model of step
    t - 1 from t = 2 on.

    Args:
        batches: (images [B, 3, H, W], labels [B, H, W] in channels, 0 unlabelled, 255 ignored). One batch is
            in memory at a time, and its logits at the network's resolution only.
        channel_order: class id behind every channel (`Task.seen` of step t - 1), background first.
        model: a model of the sigmoid family with one channel for each of them; it is put into evaluation mode
            and runs on the device it is on, in the arithmetic of the surrounding autocast context.
        threshold: between 0 and 1.
        align_corners: how logits are enlarged to the label's size.

    Raises `ValueError` for labels or logits that do not fit ``channel_order``.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: expected a number between 0 and 1, got {threshold}")
    shown: list[tuple[int, ...]] = []
    if model is not None:
        model.eval()
    for images, label in batches:
        if model is not None:
            device = next(model.parameters()).device
            logits, label = model(images.to(device)).logits, label.to(device)
            if logits.shape[1] != len(channel_order):
                raise ValueError(f"model: expected {len(channel_order)} channels, got {logits.shape[1]}")
            size = (label.shape[-2], label.shape[-1])
            label = torch.where(label == 0, _confident_classes(logits, size, threshold, align_corners), label)
        shown += [_classes_in(one, channel_order) for one in label]
    return shown


def _confident_classes(
    logits: Tensor, size: tuple[int, int], threshold: float, align_corners: bool
) -> Tensor:
    """The channel of the highest score where it reaches the threshold, else 0: int64 [B, *size].

    Enlarging keeps a constant, so "the sigmoid of a logit exceeds the threshold" is "the sigmoid of the logit
    minus the threshold's own exceeds 1/2", which is the rule by which `predict` tells classes from background.
    """
    shifted = logits.float() - math.log(threshold / (1 - threshold))
    return ciss_fast.predict(shifted, size, kind="sigmoid", align_corners=align_corners).long()


def _classes_in(label: Tensor, channel_order: Sequence[int]) -> tuple[int, ...]:
    counts = torch.bincount(label.flatten(), minlength=IGNORE + 1).tolist()
    unknown = [channel for channel, count in enumerate(counts) if count and channel >= len(channel_order)]
    if unknown not in ([], [IGNORE]):
        raise ValueError(f"label: expected 0 to {len(channel_order) - 1} or {IGNORE}, got {unknown[0]}")
    return tuple(sorted(channel_order[channel] for channel in range(1, len(channel_order)) if counts[channel]))
