"""`predict`: the kernel's labels against enlargement and argmax in double precision."""

from __future__ import annotations

import pytest
import torch

import ciss_fast

# Logits' size, labels' size.
SIZES = {
    "16 times": ((3, 4), (48, 64)),
    "8 times": ((4, 5), (32, 40)),
    "4 times": ((5, 6), (20, 24)),
    "2 times": ((7, 9), (14, 18)),
    "35 times": ((2, 3), (70, 105)),
    "odd sizes": ((5, 9), (65, 129)),
    "non-integer": ((5, 7), (33, 50)),
    "a little larger": ((13, 15), (14, 17)),
    "a little smaller": ((14, 17), (13, 15)),
    "shrinking": ((20, 23), (9, 8)),
    "shrinking 5 times": ((30, 35), (6, 7)),
    "rows shrink, columns grow": ((12, 3), (5, 31)),
    "columns shrink, rows grow": ((3, 12), (31, 5)),
    "equal": ((6, 37), (6, 37)),
    "equal rows": ((6, 5), (6, 37)),
    "one source pixel": ((1, 1), (9, 40)),
    "one source row": ((1, 6), (40, 50)),
    "one source column": ((6, 1), (50, 40)),
    "one pixel": ((1, 1), (1, 1)),
    "to one pixel": ((5, 6), (1, 1)),
    "to one row": ((5, 6), (1, 40)),
    "to one column": ((5, 6), (40, 1)),
    "very wide": ((2, 3), (4, 2000)),
    "very high": ((3, 2), (2000, 4)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", SIZES)
def test_sizes(name, dtype, label_map_logits, kernel_agrees) -> None:
    size, label_size = SIZES[name]
    kernel_agrees(label_map_logits(5, size, dtype=dtype), label_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("source", [1, 2, 3, 5, 8])
def test_every_small_label_size(source, dtype, label_map_logits, kernel_agrees) -> None:
    # Lanes of every length and every position of a vector's end within a row.
    wide, high = (label_map_logits(3, size, dtype=dtype) for size in ((2, source), (source, 2)))
    for output in [*range(1, 36), 63, 64, 65]:
        kernel_agrees(wide, (3, output))
        kernel_agrees(high, (output, 3))


@pytest.mark.parametrize("classes", [1, 2, 151, 256, 257, 300])
def test_classes(classes, label_map_logits, kernel_agrees) -> None:
    logits = label_map_logits(classes, (3, 4), batch=1)
    kernel_agrees(logits, (24, 33))
    kernel_agrees(logits, (3, 4))


def test_class_ids_beyond_a_byte(backend, label_map_logits) -> None:
    logits = label_map_logits(300, (2, 3), batch=1)
    logits[:, 299, :, :2] += 100
    labels = ciss_fast.predict(logits, (16, 24), backend=backend)
    assert labels.dtype == torch.int64
    assert (labels[:, :, :12] == 299).all() and labels[:, :, -4:].max() < 299


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes_and_strides(dtype, label_map_logits, kernel_agrees) -> None:
    logits = label_map_logits(5, (4, 6), dtype=dtype)
    kernel_agrees(logits, (30, 48))
    room = label_map_logits(11, (9, 18), batch=3, dtype=dtype, seed=1)
    strided = room[1:, 1::2, 1::2, ::3]
    strided.copy_(logits)
    views = {
        "channels_last": logits.to(memory_format=torch.channels_last),
        "strided": strided,
        "transposed": logits.transpose(2, 3).contiguous().transpose(2, 3),
    }
    for kind in ("softmax", "sigmoid"):
        for size in ((30, 48), (4, 6), (3, 2)):
            expected = ciss_fast.predict(logits, size, kind=kind, backend="cpu")
            for name, view in views.items():
                assert not view.is_contiguous() and torch.equal(view, logits)
                assert torch.equal(ciss_fast.predict(view, size, kind=kind, backend="cpu"), expected), name


def test_expanded_logits(backend, label_map_logits) -> None:
    one = label_map_logits(4, (3, 4), batch=1)
    labels = ciss_fast.predict(one.expand(3, -1, -1, -1), (12, 16), backend=backend)
    assert torch.equal(labels, ciss_fast.predict(one, (12, 16), backend=backend).expand(3, -1, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_of_exact_ties_the_smaller_class(dtype, backend, label_map_enlarge) -> None:
    # Small integers and weights that are binary fractions: nothing is rounded, many classes tie.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-2, 3, (2, 6, 4, 5), generator=generator).to(dtype)
    for kind in ("softmax", "sigmoid"):
        for factor in (1, 2, 4, 8, 16):
            size = (4 * factor, 5 * factor)
            enlarged = label_map_enlarge(logits, size, kind, False)
            tie = (enlarged == enlarged.amax(dim=1, keepdim=True)).sum(dim=1) > 1
            assert tie.float().mean() > 0.02
            smallest = (enlarged == enlarged.amax(dim=1, keepdim=True)).byte().argmax(dim=1)
            labels = ciss_fast.predict(logits, size, kind=kind, backend=backend)
            assert torch.equal(labels.long(), smallest)


def test_identical_classes_tie_at_every_ratio(backend, label_map_logits) -> None:
    logits = label_map_logits(3, (4, 5)).repeat_interleave(2, dim=1)  # classes 0 and 1, 2 and 3, 4 and 5
    for size in ((33, 47), (4, 5), (3, 2)):
        for align_corners in (False, True):
            labels = ciss_fast.predict(logits, size, align_corners=align_corners, backend=backend)
            assert labels.unique().tolist() == [0, 2, 4]


def test_ties_within_rounding(kernel_agrees) -> None:
    # Thirds and sevenths of small integers: what ties on paper may go either way, nothing else may.
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        logits = torch.randint(-2, 3, (2, 6, 5, 7), generator=generator).to(dtype)
        kernel_agrees(logits, (15, 49))
        kernel_agrees(logits, (31, 31))


def test_lowest_finite_logits(backend) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        lowest = torch.finfo(dtype).min
        logits = torch.tensor([lowest, 0.98 * lowest], dtype=dtype).reshape(1, 2, 1, 1)
        assert ciss_fast.predict(logits, (2, 2), backend=backend).eq(1).all(), dtype


def test_by_hand(backend) -> None:
    logits = torch.tensor([[0.0, 0.0], [-1.0, 3.0]]).reshape(1, 2, 1, 2)
    # Positions -1/4, 1/4, 3/4, 5/4, clamped to [0, 1]: class 1 has -1, 0 (a tie), 2, 3.
    assert ciss_fast.predict(logits, (1, 4), backend=backend).tolist() == [[[0, 0, 1, 1]]]
    # Positions 0, 1/3, 2/3, 1: class 1 has -1, 1/3, 5/3, 3.
    assert ciss_fast.predict(logits, (1, 4), align_corners=True, backend=backend).tolist() == [[[0, 1, 1, 1]]]
    # The same down a column, in two images of which the second is the first upside down.
    column = torch.cat([logits.transpose(2, 3), logits.transpose(2, 3).flip(2)])
    assert ciss_fast.predict(column, (4, 1), backend=backend).flatten(1).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_sigmoid_by_hand(backend) -> None:
    # Channel 0 is no class, however large; background where no other logit is above 0.
    logits = torch.tensor([[9.0, 9.0, 9.0, 9.0], [-1.0, 0.0, 1.0, 1.0], [-2.0, -0.5, 0.5, 2.0]]).reshape(1, 3, 1, 4)
    assert ciss_fast.predict(logits, (1, 4), kind="sigmoid", backend=backend).tolist() == [[[0, 0, 1, 2]]]
    assert ciss_fast.predict(logits, (1, 4), backend=backend).tolist() == [[[0, 0, 0, 0]]]
    auxiliary = logits[:, :1]
    assert ciss_fast.predict(auxiliary, (2, 9), kind="sigmoid", backend=backend).eq(0).all()


def test_a_size_per_image(backend, label_map_logits) -> None:
    logits = label_map_logits(5, (4, 6), batch=3).to(memory_format=torch.channels_last)
    sizes = [(30, 44), (1, 7), (4, 6)]
    for options in ({}, {"kind": "sigmoid", "align_corners": True}):
        maps = ciss_fast.predict(logits, sizes, backend=backend, **options)
        assert isinstance(maps, list) and [tuple(m.shape) for m in maps] == sizes
        for i, size in enumerate(sizes):
            whole_batch = ciss_fast.predict(logits, size, backend=backend, **options)
            assert torch.equal(maps[i], whole_batch[i])
    assert len(ciss_fast.predict(logits, [torch.Size([2, 3])] * 3, backend=backend)) == 3


def test_nothing_to_do(backend, label_map_logits) -> None:
    logits = label_map_logits(5, (4, 6))
    for batch, size in ((0, (8, 12)), (2, (0, 12)), (2, (8, 0)), (0, (0, 0))):
        labels = ciss_fast.predict(logits[:batch], size, backend=backend)
        assert labels.shape == (batch, *size) and labels.dtype == torch.uint8
    assert ciss_fast.predict(logits[:0], [], backend=backend) == []
