"""Scoring a model on test images, each at its own size."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

import ciss_fast
from ciss_fast.engine.precision import Precision


@torch.inference_mode()
def confusion_matrix(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    precision: Precision,
    *,
    align_corners: bool,
    kind: str = "softmax",
) -> np.ndarray:
    """Confusion matrix of ``model`` over all batches: int64 [num_classes, num_classes], rows the truth.

    ``batches`` gives (images float [B, 3, H, W], label int64 [B, H, W] in channel order, 255 ignored); H and
    W may differ from batch to batch. The logits are enlarged to the label's size and become classes inside
    `ciss_fast.confusion`, which ``kind`` ("softmax" or "sigmoid") is meant for. The model is put into evaluation
    mode.
    """
    model.eval()
    total = np.zeros((num_classes, num_classes), dtype=np.int64)
    for images, label in batches:
        with precision.autocast():
            logits = model(precision.place_images(images)).logits
        counts = ciss_fast.confusion(
            logits.float(), label.to(precision.device), num_classes, kind=kind, align_corners=align_corners
        )
        total += counts.cpu().numpy()
    return total


@torch.inference_mode()
def predict_images(
    model: nn.Module, images: Iterable[Tensor], precision: Precision, *, align_corners: bool, kind: str = "softmax"
) -> list[np.ndarray]:
    """The predicted channel of every pixel of every image (float [3, H, W]), each int [H, W]."""
    model.eval()
    predictions = []
    for image in images:
        with precision.autocast():
            logits = model(precision.place_images(image[None])).logits
        size = tuple(image.shape[-2:])
        labels = ciss_fast.predict(logits.float(), size, kind=kind, align_corners=align_corners)
        predictions.append(labels[0].cpu().numpy())
    return predictions
