"""What all operators share about their tensors: types, the enlargement's definition, checks, the way to a kernel."""

from __future__ import annotations

from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

# The order is that of the type codes in csrc/core/elements.h.
FLOAT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LABEL_TYPES = (torch.uint8, torch.int32, torch.int64)


def enlarge(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Logits [B, C, h, w] at ``size`` = (H, W), bilinearly, in float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    if 0 in (logits.shape[1], *size):  # interpolate makes no empty maps
        return logits.new_zeros((*logits.shape[:2], *size))
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def tensor_arguments(name: str, tensor: Tensor | None) -> dict[str, object]:
    """``tensor``, logits or a label map, as the native library takes it: address (0 for None), type and strides."""
    if tensor is None:
        return {name: 0, f"{name}_type": 0, f"{name}_strides": ()}
    types = FLOAT_TYPES if tensor.is_floating_point() else LABEL_TYPES
    return {name: tensor.data_ptr(), f"{name}_type": types.index(tensor.dtype), f"{name}_strides": tensor.stride()}


def label_error(value: int, classes: int, ignore_index: int) -> str:
    """The one-line message for a label value that is no class."""
    return f"label: expected class ids 0 to {classes - 1} or ignore_index {ignore_index}, found {value}"


def poison(*logits: Tensor) -> Tensor:
    """0, or NaN where some logit is NaN or infinite: added to a total, it hides none that a region leaves out."""
    return sum((x * 0).sum() for x in logits)


def check_dense(name: str, tensor: object) -> None:
    """Raise TypeError unless ``tensor`` is a dense tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {tensor.layout}")


def check_float_type(name: str, tensor: Tensor) -> None:
    """Raise TypeError unless ``tensor`` has a type that logits may have."""
    if tensor.dtype not in FLOAT_TYPES:
        raise TypeError(f"{name}: expected float32, bfloat16, float16 or float64, got {tensor.dtype}")


def check_single_precision(name: str, *logits: Tensor | None) -> None:
    """Raise TypeError for double precision, which the GPU kernels do not offer."""
    for x in logits:
        if x is not None and x.dtype == torch.float64:
            raise TypeError(
                f"{name}: GPU kernels take float32, bfloat16 or float16, got float64 (backend='reference' takes it)"
            )


def check_label_map(label: Tensor, logits: Tensor, name: str) -> None:
    """Raise TypeError or ValueError unless ``label`` is [B, H, W] for the logits [B, C, h, w] called ``name``."""
    if label.dtype not in LABEL_TYPES:
        raise TypeError(f"label: expected uint8, int32 or int64, got {label.dtype}")
    if label.dim() != 3 or label.shape[0] != logits.shape[0]:
        raise ValueError(f"label: expected [B, H, W] with B = {logits.shape[0]}, got shape {list(label.shape)}")
    if label.device != logits.device:
        raise ValueError(f"label: expected device {logits.device} like the {name}, got {label.device}")


def check_student_and_teacher(
    student: Tensor, teacher: Tensor | None, label: Tensor, old_classes: int, *, auxiliary: int = 0
) -> None:
    """Raise TypeError or ValueError when types, shapes or devices do not fit together.

    Args:
        student: logits [B, C, h, w]; the first ``auxiliary`` channels are no classes, old classes come next.
        teacher: logits [B, auxiliary + old_classes, h, w], or None.
        label: [B, H, W].
        old_classes: number of old classes.
        auxiliary: number of channels that are neither old nor new classes.
    """
    check_float_type("student", student)
    if student.dim() != 4:
        raise ValueError(f"student: expected logits [B, C, h, w], got shape {list(student.shape)}")
    check_label_map(label, student, "student")
    channels = student.shape[1]
    if channels < 1:
        raise ValueError("student: expected at least one channel, got 0")
    layout = "[B, old_classes, h, w]" if auxiliary == 0 else f"[B, {auxiliary} + old_classes, h, w]"
    if teacher is not None and teacher.dim() != 4:
        raise ValueError(f"teacher: expected logits {layout}, got shape {list(teacher.shape)}")
    if teacher is not None and teacher.shape[1] > channels:
        raise ValueError(
            f"teacher: expected at most the student's {channels} channels, got shape {list(teacher.shape)}"
        )
    if not 0 <= old_classes <= channels - auxiliary:
        which = "the student's channels" if auxiliary == 0 else f"the student's channels less {auxiliary}"
        raise ValueError(f"old_classes: expected 0 to {channels - auxiliary} ({which}), got {old_classes}")
    if label.shape[1] * label.shape[2] > 0 and student.shape[2] * student.shape[3] == 0:
        raise ValueError(f"student: expected a map of at least 1x1, got shape {list(student.shape)}")
    if teacher is None:
        return
    check_float_type("teacher", teacher)
    expected = [student.shape[0], auxiliary + old_classes, student.shape[2], student.shape[3]]
    if list(teacher.shape) != expected:
        raise ValueError(
            f"teacher: expected {layout} = {expected} (the student is {list(student.shape)}), "
            f"got shape {list(teacher.shape)}"
        )
    if teacher.device != student.device:
        raise ValueError(f"teacher: expected device {student.device} like the student, got {teacher.device}")
    if teacher.shape[1] < 1:
        raise ValueError("teacher: expected at least one channel, got 0")


def check_ignore_index(ignore_index: int) -> None:
    """Raise ValueError for a value the kernels, which compare labels as 32-bit numbers, cannot tell from a label."""
    if not isinstance(ignore_index, (int, Integral)) or not -(2**31) < ignore_index < 2**31:
        raise ValueError(f"ignore_index: expected a 32-bit integer, got {ignore_index!r}")


def check_label_values(label: Tensor, classes: int, ignore_index: int) -> None:
    """Raise ValueError naming the first label that is neither a class nor ``ignore_index``.

    Reads the data: not possible, and left out, on the meta device and while torch.compile traces.
    """
    if label.device.type == "meta" or torch.compiler.is_compiling():
        return
    wrong = ((label < 0) | (label >= classes)) & (label != ignore_index)
    if wrong.any():
        raise ValueError(label_error(int(label[wrong][0]), classes, ignore_index))
