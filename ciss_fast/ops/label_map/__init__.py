"""Label maps and confusion matrices from network-resolution logits, without the full-resolution logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import backends, native, triton_runtime
from ..tensors import check_label_values
from . import operator  # noqa: F401  (registers the operators)
from .checks import (
    check_label,
    check_logits,
    check_num_classes,
    check_options,
    check_size,
    height_and_width,
    one_label_per_image,
    sizes_per_image,
)
from .reference import confusion_reference, predict_reference

__all__ = ["confusion", "predict"]

for _op in ("predict", "confusion"):
    backends.register(_op, reference=None, cpu=native.reason_without(_op), triton=triton_runtime.reason_without)


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
        backend: "cpu" (compiled kernel), "triton" (GPUs) or "reference"; default: the kernel that runs on the
            logits' device.

    Returns:
        Labels [B, H, W], uint8 (int64 for more than 256 classes); a list of [H, W] where ``size`` is given per image.
        Where the largest logits tie, the smaller class (ties within rounding may go either way).

    Raises:
        TypeError, ValueError: a dtype, shape, size or kind that does not fit; the message says what was expected.
        RuntimeError: ``backend`` names one that cannot run here.
    """
    check_logits(logits)
    check_options(kind)
    sizes = sizes_per_image(size, logits.shape[0])
    if sizes is not None:
        return [
            predict(logits[i : i + 1], one, kind=kind, align_corners=align_corners, backend=backend)[0]
            for i, one in enumerate(sizes)
        ]
    height, width = height_and_width(size)
    check_size(logits, height, width)
    sigmoid = kind == "sigmoid"
    backend = backends.choose("predict", backend, logits.device)
    if backend == "reference":
        return predict_reference(logits, (height, width), sigmoid, align_corners)
    return torch.ops.ciss_fast.predict(logits.detach(), height, width, sigmoid, align_corners, backend=backend)


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
            Values of labels on a GPU are not checked by kernels, which would have to wait for it: a pixel whose label
            is no class is not counted there.
        RuntimeError: ``backend`` names one that cannot run here.
    """
    check_logits(logits)
    check_options(kind, ignore_index)
    check_num_classes(logits, num_classes)
    if not isinstance(label, Tensor):
        counts = logits.new_zeros((num_classes, num_classes), dtype=torch.int64)
        for i, one in enumerate(one_label_per_image(label, logits.shape[0])):
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
    check_label(logits, label)
    sigmoid = kind == "sigmoid"
    backend = backends.choose("confusion", backend, logits.device)
    if backend == "reference":
        check_label_values(label, num_classes, ignore_index)
        return confusion_reference(logits.detach(), label, num_classes, sigmoid, align_corners, ignore_index)
    return torch.ops.ciss_fast.confusion(
        logits.detach(), label, num_classes, sigmoid, align_corners, ignore_index, backend=backend
    )
