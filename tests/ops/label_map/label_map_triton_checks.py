"""Checks of the Triton kernels of `predict` and `confusion` (see triton_testing.py)."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from triton_inputs import conftest_of, fill_fresh_memory

import ciss_fast

label_maps = conftest_of(__file__)
KINDS = ("softmax", "sigmoid")


def predicted(logits: Tensor, size, device: torch.device, **options) -> Tensor:
    fill_fresh_memory(device)
    return ciss_fast.predict(logits.to(device), size, backend="triton", **options).cpu()


def counted(logits: Tensor, label: Tensor, num_classes: int, device: torch.device, **options) -> Tensor:
    return ciss_fast.confusion(logits.to(device), label.to(device), num_classes, backend="triton", **options).cpu()


def check_sizes(device: torch.device) -> None:
    sizes = [((3, 4), (20, 130)), ((3, 5), (16, 21)), ((4, 6), (4, 6)), ((5, 7), (3, 4))]
    for (source, size), (kind, align_corners) in zip(sizes, product(KINDS, (False, True)), strict=True):
        options = {"kind": kind, "align_corners": align_corners}
        logits = label_maps.draw_logits(4, source)
        label_maps.assert_same_labels(predicted(logits, size, device, **options), logits, size, **options)


def slow_check_sizes(device: torch.device) -> None:
    sizes = [((3, 4), (40, 130)), ((3, 5), (16, 21)), ((4, 6), (4, 6)), ((5, 7), (3, 4)), ((2, 3), (33, 50))]
    for source, size in sizes:
        logits = label_maps.draw_logits(4, source)
        for kind, align_corners in product(KINDS, (False, True)):
            options = {"kind": kind, "align_corners": align_corners}
            label_maps.assert_same_labels(predicted(logits, size, device, **options), logits, size, **options)


def check_next_to_nothing(device: torch.device) -> None:
    for source, size in (((1, 1), (5, 9)), ((1, 3), (1, 20)), ((3, 1), (7, 1)), ((4, 6), (1, 1))):
        for classes, align_corners in product((1, 3), (False, True)):
            logits = label_maps.draw_logits(classes, source, batch=1)
            options = {"kind": "softmax", "align_corners": align_corners}
            label_maps.assert_same_labels(predicted(logits, size, device, **options), logits, size, **options)
    logits = label_maps.draw_logits(3, (4, 6)).to(device)
    for batch, size in ((0, (8, 12)), (2, (0, 12)), (2, (8, 0))):
        labels = ciss_fast.predict(logits[:batch], size, backend="triton")
        assert labels.shape == (batch, *size) and labels.dtype == torch.uint8
        assert counted(logits[:batch], labels, 7, device).eq(0).all()


def check_types(device: torch.device) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        logits = label_maps.draw_logits(4, (3, 5), dtype=dtype)
        options = {"kind": "softmax", "align_corners": True}
        label_maps.assert_same_labels(predicted(logits, (27, 40), device, **options), logits, (27, 40), **options)


def check_ties(device: torch.device) -> None:
    # Logits of few bits at a ratio that is a power of two: nothing is rounded, and the smaller class wins.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-2, 3, (2, 6, 4, 5), generator=generator).float()
    for kind in KINDS:
        labels = predicted(logits, (32, 40), device, kind=kind)
        expected = ciss_fast.predict(logits.double(), (32, 40), kind=kind, backend="reference")
        assert torch.equal(labels, expected)
    enlarged = torch.nn.functional.interpolate(logits, size=(32, 40), mode="bilinear")
    assert (enlarged == enlarged.amax(dim=1, keepdim=True)).sum(dim=1).gt(1).any()


def check_strides(device: torch.device) -> None:
    logits = label_maps.draw_logits(3, (4, 6))
    expected = predicted(logits, (17, 33), device)
    wide = torch.full((2, 6, 8, 9), torch.nan)
    wide[:, ::2, ::2, :6] = logits
    layouts = (
        logits.contiguous(memory_format=torch.channels_last),
        logits.transpose(2, 3).contiguous().transpose(2, 3),
        wide[:, ::2, ::2, :6],
    )
    for one in layouts:
        assert torch.equal(one, logits)
        assert torch.equal(predicted(one, (17, 33), device), expected)
    repeated = predicted(logits[:1].expand(2, -1, -1, -1), (17, 33), device)
    assert torch.equal(repeated, expected[:1].expand(2, -1, -1))


def check_more_than_256_classes(device: torch.device) -> None:
    logits = label_maps.draw_logits(270, (2, 2), batch=1)
    logits[:, 260:] += 2.0
    labels = predicted(logits, (4, 8), device)
    label_maps.assert_same_labels(labels, logits, (4, 8), "softmax", False)
    assert labels.max() > 255
    label = torch.randint(270, (1, 4, 8), generator=torch.Generator().manual_seed(0))
    assert torch.equal(counted(logits, label, 280, device), count(label, labels, 280))


def count(label: Tensor, labels: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels by label and predicted class; labels that are no class are left out."""
    valid = (label.long() != ignore_index) & (label.long() >= 0) & (label.long() < num_classes)
    cells = (label.long() * num_classes + labels.long())[valid]
    counts = torch.zeros(num_classes * num_classes, dtype=torch.int64)
    for cell in cells.tolist():
        counts[cell] += 1
    return counts.reshape(num_classes, num_classes)


def check_counts(device: torch.device) -> None:
    # Regions of one class, whose tiles and columns are counted at once, and pixels drawn one by one.
    logits = label_maps.draw_logits(5, (4, 6))
    logits[0, 2] += 100.0
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(5, (2, 28, 150), generator=generator)
    label[0, :, :100] = 3
    label[:, 20:] = 1
    label[torch.rand(label.shape, generator=generator) < 0.1] = 255
    label[1, :, 64:] = 255
    for kind, align_corners in (("softmax", True), ("sigmoid", False)):
        options = {"kind": kind, "align_corners": align_corners}
        labels = predicted(logits, (28, 150), device, **options)
        counts = counted(logits, label, 7, device, **options)
        assert counts.dtype == torch.int64 and torch.equal(counts, count(label, labels, 7))
        assert counts.sum() == (label != 255).sum()


def check_label_types_and_values(device: torch.device) -> None:
    logits = label_maps.draw_logits(5, (4, 6))
    labels = predicted(logits, (8, 20), device)
    generator = torch.Generator().manual_seed(1)
    for dtype in (torch.uint8, torch.int32, torch.int64):
        label = torch.randint(0, 9, (2, 8, 20), generator=generator).to(dtype)
        label[0, 3, 4] = 255 if dtype == torch.uint8 else -5
        spread = torch.full((2, 20, 16), 1, dtype=dtype).transpose(1, 2)[:, ::2]
        spread.copy_(label)
        for ignore_index, one in ((3, label), (255, spread)):
            expected = count(label, labels, 5, ignore_index)
            assert torch.equal(counted(logits, one, 5, device, ignore_index=ignore_index), expected)


def check_a_size_for_every_image(device: torch.device) -> None:
    logits = label_maps.draw_logits(3, (4, 6))
    maps = ciss_fast.predict(logits.to(device), [(9, 14), (5, 3)], backend="triton")
    label = [one.clone() for one in maps]
    assert [tuple(one.shape) for one in maps] == [(9, 14), (5, 3)]
    counts = ciss_fast.confusion(logits.to(device), label, 3, backend="triton")
    assert counts.sum() == counts.diagonal().sum() == 9 * 14 + 5 * 3
