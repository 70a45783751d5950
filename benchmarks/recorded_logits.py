"""Logits of a trained network, for benchmarks: how much they change from place to place decides what a kernel does.

``data/dkd_logits.npz`` holds what DKD's student and teacher say of a few validation images of the embedded data set
(`record_logits` has made it): ``student`` [images, 1 + 6 + 6, 32, 32] after two steps of six classes, ``teacher``
[images, 1 + 6, 32, 32] after the first one, float16, channel 0 the auxiliary classifier's; and ``about``, which says
how the network was trained. The images have 512x512 pixels, the network's output stride is 16. It is a small network
trained for minutes (its mIoU is 43 % over old and new classes alike); neighbouring logits differ by 0.50 on average
(0.70 those of new classes), independent normal ones of deviation 3 by 3.4.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ciss_fast.errors import DataError

FILE = Path(__file__).with_name("data") / "dkd_logits.npz"


@functools.cache
def recorded() -> tuple[Tensor, Tensor]:
    """Student and teacher as they are in the file, in float32. Raises DataError if it is missing or damaged."""
    try:
        with np.load(FILE) as arrays:
            student, teacher = (torch.from_numpy(arrays[name]).float() for name in ("student", "teacher"))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{FILE.name}: expected arrays student and teacher, got {error}") from None
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise DataError(f"{FILE.name}: expected maps of the same images, got {student.shape} and {teacher.shape}")
    return student, teacher


def arrange(batch: int, channels: int, old: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Student [batch, channels, *size] and teacher [batch, old, *size] made of the recorded maps.

    Auxiliary, old and new channels are taken from recorded channels of their kind; an old class's student and teacher
    from the same image and channel. Where more are asked for than there are, other images' follow, then the same ones
    mirrored and transposed, which changes nothing about their smoothness. A larger map is a patch of mirror images
    (so neighbours differ as much as in the recorded ones: a network of a finer stride would give smoother logits), a
    smaller one a part.
    """
    student, teacher = recorded()
    known = teacher.shape[1]
    auxiliary = [_nth(student[:, :1], b, size) for b in range(batch)]
    kinds = {"student": student[:, 1:known], "teacher": teacher[:, 1:], "new": student[:, known:]}

    def maps(kind: str, count: int) -> list[Tensor]:
        return [
            torch.stack([_nth(kinds[kind], b * count + c, size) for c in range(count)])
            if count
            else torch.zeros(0, *size)
            for b in range(batch)
        ]

    olds, teachers, news = maps("student", old - 1), maps("teacher", old - 1), maps("new", channels - old)
    return (
        torch.stack([torch.cat([a[None], o, n]) for a, o, n in zip(auxiliary, olds, news, strict=True)]),
        torch.stack([torch.cat([a[None], t]) for a, t in zip(auxiliary, teachers, strict=True)]),
    )


def _nth(maps: Tensor, number: int, size: tuple[int, int]) -> Tensor:
    """The ``number``-th of maps [images, channels, h, w], at ``size``: channels first, then images, then symmetries."""
    images, channels = maps.shape[:2]
    symmetry, place = divmod(number, images * channels)
    image, channel = divmod(place, channels)
    result = maps[image, channel]
    if symmetry & 1:
        result = result.flip(1)
    if symmetry & 2:
        result = result.flip(0)
    if symmetry & 4:
        result = result.T
    for axis in (0, 1):
        while result.shape[axis] < size[axis]:
            result = torch.cat([result, result.flip(axis)], dim=axis)
    return result[: size[0], : size[1]]


def neighbour_difference(logits: Tensor) -> float:
    """Mean |difference| of logits [B, C, h, w] that are neighbours along a row or a column; 0 for a single one."""
    logits = logits.float()
    differences = [(logits[..., 1:, :] - logits[..., :-1, :]).flatten(), (logits[..., 1:] - logits[..., :-1]).flatten()]
    joined = torch.cat(differences).abs()
    return float(joined.mean()) if joined.numel() else 0.0
