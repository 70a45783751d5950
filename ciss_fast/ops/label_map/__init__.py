"""Label maps and confusion matrices from network-resolution logits, without the full-resolution logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import backends, native
from ..tensors import FLOAT_TYPES, LABEL_TYPES, check_label_values
from . import operator  # noqa: F401  (registers the operators)
from .reference import confusion_reference, predict_reference

__all__ = ["confusion", "predict"]

backends.register("predict", reference=None, cpu=native.unavailable_reason)
backends.register("confusion", reference=None, cpu=native.unavailable_reason)

KINDS = ("softmax", "sigmoid")


def predict(
    logits: Tensor,
    size: Sequence[int] | Sequence[Sequence[int]],
    *,
    kind: str = "softmax",
    align_corners: bool = False,
    backend: str | None = None,
) -> Tensor | list[Tensor]:
    """The class of every pixel: logits enlarged bilinearly to ``size``, then the largest.

    Args:
        logits: [B, C, h, w], float32, bfloat16, float16 or float64, any strides.
        size: (H, W) of the label maps, or one (H, W) per image.
        kind: "softmax": argmax over all channels. "sigmoid" (DKD): channel c is class c, channel 0 (auxiliary) is
            no class; argmax over the classes, background (0) where no sigmoid exceeds 0.5.
        align_corners: as in ``torch.nn.functional.interpolate``.
        backend: "cpu" (compiled kernel) or "reference"; default: the kernel where it runs.

    Returns:
        Labels [B, H, W], uint8 (int64 for more than 256 classes); a list of [H, W] where ``size`` is given per image.
        Where the largest logits tie, the smaller class (ties within rounding may go either way).

    Raises:
        TypeError, ValueError: a dtype, shape, size or kind that does not fit; the message says what was expected.
        RuntimeError: ``backend`` names one that cannot run here.
    """
    _check_logits(logits, kind)
    if len(size) > 0 and isinstance(size[0], Sequence):
        if len(size) != logits.shape[0]:
            raise ValueError(f"size: expected one (H, W) for each of {logits.shape[0]} images, got {len(size)}")
        maps = (
            predict(logits[i : i + 1], tuple(s), kind=kind, align_corners=align_corners, backend=backend)[0]
            for i, s in enumerate(size)
        )
        return list(maps)
    if len(size) != 2 or min(size) < 0:
        raise ValueError(f"size: expected (H, W), got {tuple(size)}")
    height, width = size
    _check_map(logits, height, width)
    if backends.choose("predict", backend, logits.device) == "reference":
        return predict_reference(logits, (height, width), kind == "sigmoid", align_corners)
    return torch.ops.ciss_fast.predict(logits.detach(), height, width, kind == "sigmoid", align_corners)


def confusion(
    logits: Tensor,
    label: Tensor | Sequence[Tensor],
    num_classes: int,
    *,
    kind: str = "softmax",
    align_corners: bool = False,
    ignore_index: int = 255,
    backend: str | None = None,
) -> Tensor:
    """Confusion matrix of enlarged, maximised logits and labels.

    Args:
        logits: [B, C, h, w] with C <= ``num_classes``; see `predict` for dtypes and ``kind``.
        label: class ids [B, H, W], or one [H, W] per image (evaluation at each image's own size); uint8, int32 or
            int64. Pixels with ``ignore_index`` are not counted.
        num_classes: rows and columns of the matrix.
        align_corners, backend: see `predict`.

    Returns:
        int64 [num_classes, num_classes]: pixels by true class (row) and predicted class (column).

    Raises:
        TypeError, ValueError: a dtype, shape or label value that does not fit; the message says what was expected.
        RuntimeError: ``backend`` names one that cannot run here.
    """
    _check_logits(logits, kind)
    if logits.shape[1] > num_classes:
        raise ValueError(f"num_classes: expected at least the {logits.shape[1]} channels, got {num_classes}")
    if not isinstance(label, Tensor):
        if len(label) != logits.shape[0]:
            raise ValueError(f"label: expected one map for each of {logits.shape[0]} images, got {len(label)}")
        counts = logits.new_zeros((num_classes, num_classes), dtype=torch.int64)
        for i, one in enumerate(label):
            counts += confusion(
                logits[i : i + 1],
                one.unsqueeze(0),
                num_classes,
                kind=kind,
                align_corners=align_corners,
                ignore_index=ignore_index,
                backend=backend,
            )
        return counts
    if label.dtype not in LABEL_TYPES:
        raise TypeError(f"label: expected uint8, int32 or int64, got {label.dtype}")
    if label.dim() != 3 or label.shape[0] != logits.shape[0]:
        raise ValueError(
            f"label: expected [B, H, W] with B = {logits.shape[0]}, got shape {list(label.shape)}"
        )
    if label.device != logits.device:
        raise ValueError(f"label: expected device {logits.device} like the logits, got {label.device}")
    _check_map(logits, label.shape[1], label.shape[2])
    sigmoid = kind == "sigmoid"
    if backends.choose("confusion", backend, logits.device) == "reference":
        check_label_values(label, num_classes, ignore_index)
        return confusion_reference(logits.detach(), label, num_classes, sigmoid, align_corners, ignore_index)
    return torch.ops.ciss_fast.confusion(
        logits.detach(), label, num_classes, sigmoid, align_corners, ignore_index
    )


def _check_logits(logits: Tensor, kind: str) -> None:
    if logits.dtype not in FLOAT_TYPES:
        raise TypeError(f"logits: expected float32, bfloat16, float16 or float64, got {logits.dtype}")
    if logits.dim() != 4 or logits.shape[1] < 1:
        raise ValueError(f"logits: expected [B, C, h, w] with C >= 1, got shape {list(logits.shape)}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")


def _check_map(logits: Tensor, height: int, width: int) -> None:
    if height * width > 0 and logits.shape[2] * logits.shape[3] == 0:
        raise ValueError(f"logits: expected a map of at least 1x1, got shape {list(logits.shape)}")
