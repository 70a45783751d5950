"""`confusion`: counts by hand, against the labels of `predict`, and wrong label values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import ciss_fast


def draw_label(shape: tuple[int, ...], classes: int, ignore_index: int = 255, seed: int = 5) -> Tensor:
    """Every pixel drawn on its own from the classes and, one time in five, ``ignore_index``."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, shape, generator=generator)
    label[torch.rand(shape, generator=generator) < 0.2] = ignore_index
    return label


def count(label: Tensor, predicted: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Pixels by label and predicted class, one comparison for every cell."""
    valid = label.long() != ignore_index
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for i in range(num_classes):
        for j in range(num_classes):
            counts[i, j] = (valid & (label == i) & (predicted == j)).sum()
    return counts


def test_by_hand(backend) -> None:
    # Predictions [[0, 1], [1, 1]] and [[0, 0], [1, 0]].
    class_1 = torch.tensor([[[-1.0, 1.0], [2.0, 3.0]], [[-1.0, -1.0], [2.0, 0.0]]])
    logits = torch.stack([torch.zeros_like(class_1), class_1], dim=1)
    label = torch.tensor([[[0, 0], [1, 1]], [[1, 255], [0, 0]]])
    counts = ciss_fast.confusion(logits, label, 2, backend=backend)
    assert counts.dtype == torch.int64 and counts.tolist() == [[2, 2], [1, 2]]
    assert ciss_fast.confusion(logits[:1], label[:1], 3, backend=backend).tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    label[label == 255] = 1
    assert ciss_fast.confusion(logits, label, 2, ignore_index=0, backend=backend).tolist() == [[0, 0], [2, 2]]


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("label_size", [(32, 48), (4, 6), (3, 5), (25, 41), (1, 1)], ids=str)
def test_counts_what_predict_says(kind, align_corners, label_size, backend, label_map_logits) -> None:
    logits = label_map_logits(5, (4, 6))
    label = draw_label((2, *label_size), 5)
    options = {"kind": kind, "align_corners": align_corners, "backend": backend}
    counts = ciss_fast.confusion(logits, label, 5, **options)
    assert torch.equal(counts, count(label, ciss_fast.predict(logits, label_size, **options), 5))
    assert counts.sum() == (label != 255).sum()


def test_many_classes(backend, label_map_logits) -> None:
    logits, label = label_map_logits(300, (4, 4), batch=1), draw_label((1, 32, 32), 300, ignore_index=-1)
    counts = ciss_fast.confusion(logits, label, 310, ignore_index=-1, backend=backend)
    predicted = ciss_fast.predict(logits, (32, 32), backend=backend)
    valid = label >= 0
    cells, number = (label * 310 + predicted)[valid].unique(return_counts=True)
    assert counts.shape == (310, 310) and counts.sum() == valid.sum()
    assert torch.equal(counts.flatten()[cells], number)
    assert predicted.max() > 255 and label.max() > 255


def test_more_classes_than_channels(backend, label_map_logits) -> None:
    logits, label = label_map_logits(4, (4, 6)), draw_label((2, 20, 30), 9)
    counts = ciss_fast.confusion(logits, label, 9, backend=backend)
    assert torch.equal(counts, count(label, ciss_fast.predict(logits, (20, 30), backend=backend), 9))
    assert counts[4:].sum() > 0 and counts[:, 4:].sum() == 0


@pytest.mark.parametrize("ignore_index", [255, 0, 3, 7, -1, -100, 1000])
def test_ignore_index(ignore_index, backend, label_map_logits) -> None:
    logits, label = label_map_logits(5, (4, 6)), draw_label((2, 20, 30), 5, ignore_index)
    counts = ciss_fast.confusion(logits, label, 5, ignore_index=ignore_index, backend=backend)
    predicted = ciss_fast.predict(logits, (20, 30), backend=backend)
    assert torch.equal(counts, count(label, predicted, 5, ignore_index))
    assert counts.sum() == (label != ignore_index).sum() < label.numel()


def test_ignore_index_of_more_than_32_bits(backend, label_map_logits) -> None:
    # Kernels compare labels as 32-bit numbers.
    logits, label = label_map_logits(5, (4, 6)), draw_label((2, 20, 30), 5, 2**40)
    with pytest.raises(ValueError, match=f"^ignore_index: expected .*{2**40}"):
        ciss_fast.confusion(logits, label, 5, ignore_index=2**40, backend=backend)


def test_everything_ignored(backend, label_map_logits) -> None:
    label = torch.full((2, 20, 30), 255)
    assert ciss_fast.confusion(label_map_logits(5, (4, 6)), label, 5, backend=backend).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_label_dtypes_and_strides(dtype, backend, label_map_logits) -> None:
    logits, label = label_map_logits(5, (4, 6)), draw_label((2, 20, 30), 5)
    expected = ciss_fast.confusion(logits, label, 5, backend=backend)
    label = label.to(dtype)
    room = torch.full((4, 43, 60), 99, dtype=dtype)
    strided = room[::2, 3::2, ::2]
    strided.copy_(label)
    views = (label, strided, label.transpose(1, 2).contiguous().transpose(1, 2), label.permute(1, 2, 0).contiguous())
    for view in (*views[:3], views[3].permute(2, 0, 1)):
        assert torch.equal(view, label)
        assert torch.equal(ciss_fast.confusion(logits, view, 5, backend=backend), expected)
    repeated = label[:1].expand(2, -1, -1)
    assert torch.equal(
        ciss_fast.confusion(logits, repeated, 5, backend=backend),
        ciss_fast.confusion(logits, repeated.contiguous(), 5, backend=backend),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_logits_dtypes_and_strides(dtype, backend, label_map_logits) -> None:
    logits, label = label_map_logits(5, (4, 6), dtype=dtype), draw_label((2, 32, 45), 5)
    counts = ciss_fast.confusion(logits, label, 5, backend=backend)
    assert torch.equal(counts, count(label, ciss_fast.predict(logits, (32, 45), backend=backend), 5))
    channels_last = logits.to(memory_format=torch.channels_last)
    assert torch.equal(ciss_fast.confusion(channels_last, label, 5, backend=backend), counts)


def test_a_label_map_per_image(backend, label_map_logits) -> None:
    logits = label_map_logits(5, (4, 6), batch=4)
    sizes = [(30, 44), (1, 7), (0, 5), (4, 6)]
    labels = [draw_label(size, 5, seed=i) for i, size in enumerate(sizes)]
    labels[1] = labels[1].to(torch.uint8)
    for options in ({}, {"kind": "sigmoid", "align_corners": True}):
        counts = ciss_fast.confusion(logits, labels, 6, backend=backend, **options)
        maps = ciss_fast.predict(logits, sizes, backend=backend, **options)
        assert torch.equal(counts, sum(count(t, p, 6) for t, p in zip(labels, maps, strict=True)))


def test_options_reach_every_label_map(backend, label_map_logits) -> None:
    logits, label = label_map_logits(5, (4, 6), batch=3), draw_label((3, 20, 30), 5, ignore_index=7)
    for options in ({"kind": "sigmoid"}, {"align_corners": True}, {}):
        options |= {"ignore_index": 7, "backend": backend}
        counts = ciss_fast.confusion(logits, label, 5, **options)
        assert torch.equal(ciss_fast.confusion(logits, list(label), 5, **options), counts)


def test_nothing_to_count(backend, label_map_logits) -> None:
    logits = label_map_logits(5, (4, 6))
    for batch, size in ((0, (8, 12)), (2, (0, 12)), (2, (8, 0))):
        counts = ciss_fast.confusion(logits[:batch], draw_label((batch, *size), 5), 7, backend=backend)
        assert counts.shape == (7, 7) and counts.dtype == torch.int64 and counts.eq(0).all()
    assert ciss_fast.confusion(logits[:0], [], 7, backend=backend).eq(0).all()


@pytest.mark.parametrize(
    "dtype, value", [(torch.uint8, 5), (torch.uint8, 254), (torch.int32, -1), (torch.int64, 5), (torch.int64, 2**32)]
)
def test_wrong_label_value(dtype, value, backend, label_map_logits) -> None:
    logits = label_map_logits(5, (4, 6))
    for place in ((0, 0, 0), (1, 19, 29), (0, 7, 29), (1, 0, 0)):
        label = draw_label((2, 20, 30), 5).to(dtype)
        label[place] = value
        message = f"^label: expected class ids 0 to 4 or ignore_index 255, found {value}$"
        with pytest.raises(ValueError, match=message):
            ciss_fast.confusion(logits, label, 5, backend=backend)
        with pytest.raises(ValueError, match=message):
            ciss_fast.confusion(logits, list(label), 5, backend=backend)


def test_the_first_wrong_label_value_is_named(backend, label_map_logits) -> None:
    logits, label = label_map_logits(5, (4, 6)), draw_label((2, 40, 30), 5)
    places = [(0, 11, 17), (0, 11, 18), (0, 12, 0), (0, 30, 2), (1, 0, 0), (1, 11, 0)]
    for value, place in enumerate(places, start=100):
        label[place] = value
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for value, place in enumerate(places, start=100):
            broken = label.clone()
            for earlier in places[: value - 100]:
                broken[earlier] = 0
            assert broken[place] == value
            with pytest.raises(ValueError, match=f"found {value}$"):
                ciss_fast.confusion(logits, broken, 5, backend=backend)


def test_a_wrong_value_may_be_the_ignored_one_elsewhere(backend, label_map_logits) -> None:
    logits, label = label_map_logits(5, (4, 6)), draw_label((2, 20, 30), 5)
    with pytest.raises(ValueError, match="^label: expected class ids 0 to 4 or ignore_index -1, found 255$"):
        ciss_fast.confusion(logits, label, 5, ignore_index=-1, backend=backend)
