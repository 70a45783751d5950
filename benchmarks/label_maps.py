"""Label maps for benchmarks, generated from a seed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = 255


def blobs(
    batch: int,
    size: tuple[int, int],
    classes: range,
    *,
    background: bool = True,
    border: bool = True,
    seed: int = 0,
) -> Tensor:
    """Few large regions with smooth outlines, as in annotated photographs: int64 [B, H, W].

    Every image shows up to three of ``classes``, on about two thirds of 0 if ``background``. With ``border``
    the outlines are 255, five pixels wide, as in VOC.
    """
    generator = torch.Generator().manual_seed(seed)
    shown = min(3, len(classes))
    maps = []
    for _ in range(batch):
        chosen = torch.randperm(len(classes), generator=generator)[:shown] + classes.start
        fields = torch.randn(1, shown + background, 6, 6, generator=generator)
        if background:
            fields[:, -1] += 1.2
            chosen = torch.cat([chosen, torch.zeros(1, dtype=torch.int64)])
        smooth = F.interpolate(fields, size=size, mode="bicubic", align_corners=True)
        maps.append(chosen[smooth.argmax(dim=1)])
    label = torch.cat(maps)
    if border:
        values = label.unsqueeze(1).float()
        highest = F.max_pool2d(values, 5, stride=1, padding=2)
        lowest = -F.max_pool2d(-values, 5, stride=1, padding=2)
        label = label.masked_fill((highest != lowest).squeeze(1), IGNORED)
    return label


def random_pixels(
    batch: int, size: tuple[int, int], classes: range, *, background: bool = True, seed: int = 0
) -> Tensor:
    """Every pixel drawn on its own: 60 % 0 if ``background``, 5 % 255, the rest from ``classes``."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes.start, classes.stop, (batch, *size), generator=generator)
    chance = torch.rand(label.shape, generator=generator)
    if background:
        label[chance < 0.6] = 0
    label[chance > 0.95] = IGNORED
    return label
