"""``ciss_fast::predict`` and ``ciss_fast::confusion`` as PyTorch operators: schema, kernels, fake kernels, autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import native
from ..device_kernels import implement, with_backend, without_backend
from ..tensors import LABEL_TYPES, label_error, tensor_arguments
from .checks import check_label, check_logits, check_num_classes, check_size
from .reference import label_dtype

library = torch.library.Library("ciss_fast", "FRAGMENT")
_SCHEMAS = {
    "predict": "(Tensor logits, int height, int width, bool sigmoid, bool align_corners) -> Tensor",
    "confusion": (
        "(Tensor logits, Tensor label, int num_classes, bool sigmoid, bool align_corners, int ignore_index) -> Tensor"
    ),
}
for _name, _schema in _SCHEMAS.items():
    library.define(f"{_name}{with_backend(_schema)}")


def _logits_arguments(logits: Tensor, height: int, width: int, sigmoid: bool, align_corners: bool) -> dict:
    return {
        **tensor_arguments("logits", logits),
        "sizes": (*logits.shape, height, width),
        "background_is_zero": sigmoid,
        "align_corners": align_corners,
        "threads": torch.get_num_threads(),
    }


def _predict_cpu(logits: Tensor, height: int, width: int, sigmoid: bool, align_corners: bool) -> Tensor:
    kernel = native.function("predict")
    check_logits(logits)
    check_size(logits, height, width)
    labels = logits.new_empty((logits.shape[0], height, width), dtype=label_dtype(logits.shape[1]))
    kernel(
        **_logits_arguments(logits, height, width, sigmoid, align_corners),
        labels=labels.data_ptr(),
        label_type=LABEL_TYPES.index(labels.dtype),
    )
    return labels


def _confusion_cpu(
    logits: Tensor, label: Tensor, num_classes: int, sigmoid: bool, align_corners: bool, ignore_index: int
) -> Tensor:
    kernel = native.function("confusion")
    check_logits(logits)
    check_label(logits, label)
    check_num_classes(logits, num_classes)
    counts = logits.new_zeros((num_classes, num_classes), dtype=torch.int64)
    result = kernel(
        **_logits_arguments(logits, label.shape[1], label.shape[2], sigmoid, align_corners),
        **tensor_arguments("label", label),
        ignore_index=ignore_index,
        num_classes=num_classes,
        counts=counts.data_ptr(),
    )
    if result["invalid_labels"]:
        raise ValueError(label_error(int(label[result["first_invalid"]]), num_classes, ignore_index))
    return counts


def _predict_triton(*arguments: Any) -> Tensor:
    from .triton_launch import predict_triton  # triton need not be installed

    return predict_triton(*arguments)


def _confusion_triton(*arguments: Any) -> Tensor:
    from .triton_launch import confusion_triton

    return confusion_triton(*arguments)


implement(library, "predict", cpu=_predict_cpu, triton=_predict_triton)
implement(library, "confusion", cpu=_confusion_cpu, triton=_confusion_triton)
torch.library.register_fake(
    "ciss_fast::predict",
    without_backend(
        lambda logits, height, width, sigmoid, align_corners: logits.new_empty(
            (logits.shape[0], height, width), dtype=label_dtype(logits.shape[1])
        )
    ),
    lib=library,
)
torch.library.register_fake(
    "ciss_fast::confusion",
    without_backend(
        lambda logits, label, num_classes, sigmoid, align_corners, ignore_index: logits.new_empty(
            (num_classes, num_classes), dtype=torch.int64
        )
    ),
    lib=library,
)
for _key in ("AutocastCPU", "AutocastCUDA"):  # every dtype is taken as it comes
    library.impl("predict", torch.library.fallthrough_kernel, _key)
    library.impl("confusion", torch.library.fallthrough_kernel, _key)
