"""Argument checks of `predict` and `confusion`: one line that names the argument."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from operator import index

from torch import Tensor

from ..tensors import check_float_type, check_ignore_index, check_label_map

KINDS = ("softmax", "sigmoid")


def check_logits(logits: Tensor) -> None:
    """Raise TypeError or ValueError unless ``logits`` are [B, C, h, w] of a supported type."""
    if not isinstance(logits, Tensor):
        raise TypeError(f"logits: expected a Tensor, got {type(logits).__name__}")
    check_float_type("logits", logits)
    if logits.dim() != 4 or logits.shape[1] < 1:
        raise ValueError(f"logits: expected [B, C, h, w] with C >= 1, got shape {list(logits.shape)}")


def check_size(logits: Tensor, height: int, width: int) -> None:
    """Raise ValueError unless ``logits`` can be enlarged to ``height`` x ``width``."""
    if min(height, width) < 0:
        raise ValueError(f"size: expected (H, W), got {(height, width)}")
    if height * width > 0 and logits.shape[2] * logits.shape[3] == 0:
        raise ValueError(f"logits: expected a map of at least 1x1, got shape {list(logits.shape)}")


def check_label(logits: Tensor, label: Tensor) -> None:
    """Raise TypeError or ValueError unless ``label`` is a label map for every image of ``logits``."""
    check_label_map(label, logits, "logits")
    check_size(logits, label.shape[1], label.shape[2])


def check_num_classes(logits: Tensor, num_classes: int) -> None:
    """Raise TypeError or ValueError unless ``num_classes`` covers the channels of ``logits``."""
    if not isinstance(num_classes, Integral):
        raise TypeError(f"num_classes: expected an integer, got {num_classes!r}")
    if logits.shape[1] > num_classes:
        raise ValueError(f"num_classes: expected at least the {logits.shape[1]} channels, got {num_classes}")


def check_options(kind: str, ignore_index: int = 255) -> None:
    """Raise ValueError for a kind that does not exist or an ``ignore_index`` the kernels cannot compare."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    check_ignore_index(ignore_index)


def one_label_per_image(label: Sequence[Tensor], batch: int) -> Sequence[Tensor]:
    """``label`` if it is a tensor for each of ``batch`` images; TypeError or ValueError otherwise."""
    if not isinstance(label, Sequence):
        raise TypeError(f"label: expected a Tensor or one Tensor per image, got {type(label).__name__}")
    for one in label:
        if not isinstance(one, Tensor):
            raise TypeError(f"label: expected one Tensor per image, got a {type(one).__name__}")
    if len(label) != batch:
        raise ValueError(f"label: expected one map for each of {batch} images, got {len(label)}")
    return label


def sizes_per_image(size: Sequence, batch: int) -> list[tuple[int, int]] | None:
    """A size for each of ``batch`` images, or None where ``size`` is one (H, W) for all."""
    if not isinstance(size, (list, tuple)):
        return None
    if not any(isinstance(one, (list, tuple)) for one in size) and not len(size) == batch == 0:
        return None
    if len(size) != batch:
        raise ValueError(f"size: expected one (H, W) for each of {batch} images, got {len(size)}")
    return [height_and_width(one) for one in size]


def height_and_width(size: Sequence[int]) -> tuple[int, int]:
    """``size`` as two integers; ValueError for anything else."""
    try:
        height, width = (index(n) for n in size)
    except (TypeError, ValueError):
        raise ValueError(f"size: expected (H, W), got {size!r}") from None
    return height, width
