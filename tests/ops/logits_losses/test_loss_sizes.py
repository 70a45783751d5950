"""Logits and labels of any sizes: every ratio of the two, along each axis, and the smallest maps there are."""

from __future__ import annotations

import pytest
import torch

SIZES = [  # logits, labels
    ((3, 4), (48, 64)),  # ratio 16
    ((4, 3), (32, 24)),  # 8
    ((5, 7), (20, 28)),  # 4
    ((6, 9), (18, 27)),  # 3
    ((7, 9), (14, 18)),  # 2
    ((9, 11), (9, 11)),  # labels of the logits' size
    ((3, 7), (24, 50)),  # ratios that are no integers
    ((5, 3), (33, 50)),
    ((2, 33), (7, 513)),
    ((33, 2), (513, 7)),
    ((7, 8), (8, 9)),
    ((20, 40), (13, 7)),  # shrinking
    ((40, 20), (7, 13)),
    ((9, 9), (1, 1)),
    ((3, 20), (40, 13)),  # height grows, width shrinks
    ((20, 3), (13, 40)),
    ((5, 8), (5, 32)),  # one axis as it is
    ((8, 5), (32, 5)),
    ((5, 8), (5, 3)),
    ((1, 1), (17, 19)),  # a single vector of logits
    ((1, 1), (1, 1)),
    ((4, 5), (1, 1)),  # a single pixel
    ((1, 6), (16, 96)),  # one row, one column of logits
    ((6, 1), (96, 16)),
    ((1, 6), (1, 24)),  # of labels too
    ((6, 1), (24, 1)),
    ((2, 2), (3, 300)),  # more pixels between two columns than a vector of the kernel spans
    ((2, 3), (300, 2)),
    ((1, 2), (5, 1000)),
]


def case_id(sizes) -> str:
    return "x".join(map(str, sizes))


@pytest.mark.parametrize("align_corners", [False, True], ids=["centres", "corners"])
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=case_id)
def test_sizes(loss, size, label_size, align_corners) -> None:
    for dtype in (torch.float32, torch.float64):
        # A pixel or two may miss a region; a few images do not.
        batch = 12 if label_size == (1, 1) else 2
        inputs = loss.draw(batch=batch, size=size, label_size=label_size, sequential=True, dtype=dtype)
        loss.matches(inputs, align_corners=align_corners, **loss.everything)


@pytest.mark.parametrize("align_corners", [False, True], ids=["centres", "corners"])
def test_every_ratio_along_a_row(loss, align_corners) -> None:
    # Segments of every length, starting at every phase, in vectors that begin anywhere in a row.
    for width in range(1, 70):
        inputs = loss.draw(size=(2, 4), label_size=(3, width), sequential=True, seed=width)
        loss.matches(inputs, align_corners=align_corners, **loss.everything)


@pytest.mark.parametrize("align_corners", [False, True], ids=["centres", "corners"])
def test_every_ratio_along_a_column(loss, align_corners) -> None:
    for height in range(1, 40):
        inputs = loss.draw(size=(5, 3), label_size=(height, 4), sequential=True, seed=height)
        loss.matches(inputs, align_corners=align_corners, **loss.everything)


@pytest.mark.parametrize("batch", [1, 3, 70])
def test_batches(loss, batch) -> None:
    for label_size in ((16, 20), (4, 5)):
        loss.matches(loss.draw(batch=batch, label_size=label_size), **loss.mix)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("size", "label_size"),
    [((0, 4, 5), (0, 32, 40)), ((0, 4, 5), (0, 4, 5)), ((2, 4, 5), (2, 0, 40)), ((2, 0, 5), (2, 0, 5))],
    ids=case_id,
)
def test_nothing_to_do(loss, size, label_size, backend) -> None:
    batch, height, width = size
    inputs = loss.draw()
    inputs = inputs._replace(
        student=torch.ones(batch, 7, height, width),
        teacher=torch.ones(batch, 4, height, width),
        label=torch.zeros(label_size, dtype=torch.int64),
    )
    result = loss.evaluate(inputs, backend=backend, **loss.everything)
    assert float(result.total) == 0.0
    assert all(float(value) == 0 for value in result.terms.values())
    assert result.gradient.shape == inputs.student.shape and torch.count_nonzero(result.gradient) == 0


@pytest.mark.parametrize(("size", "label_size"), [((1, 1), (512, 512)), ((2, 1), (700, 300))], ids=case_id)
def test_hundreds_of_label_rows_per_row_of_logits(loss, size, label_size) -> None:
    # Sums over so many pixels must not lose digits one by one.
    inputs = loss.draw(batch=1, classes=4, old=2, size=size, label_size=label_size, scale=1.0, seed=3)
    loss.matches(inputs, **loss.everything)


@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [False, True], ids=["centres", "corners"])
@pytest.mark.parametrize(
    ("classes", "old", "size", "label_size"),
    [
        (21, 16, (32, 32), (512, 512)),
        (151, 101, (17, 13), (256, 200)),
        (21, 16, (33, 33), (513, 513)),
        (12, 6, (64, 48), (512, 384)),
        (5, 3, (128, 128), (256, 256)),
        (5, 3, (300, 200), (300, 200)),
        (5, 3, (300, 200), (41, 77)),
    ],
)
def test_sizes_of_real_maps(loss, classes, old, size, label_size, align_corners) -> None:
    inputs = loss.draw(batch=1, classes=classes, old=old, size=size, label_size=label_size, sequential=True)
    loss.matches(inputs, align_corners=align_corners, **loss.everything)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_random_sizes(loss, seed) -> None:
    generator = torch.Generator().manual_seed(seed)

    # With logits as large as these, which class a focal loss takes for its pseudo-label is a matter of rounding.
    options = {name: weight for name, weight in loss.everything.items() if name != "focal"}

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for trial in range(60):
        size, label_size = (draw(1, 12), draw(1, 24)), (draw(1, 80), draw(1, 120))
        old = draw(2, 7)
        inputs = loss.draw(
            batch=6 // old + 1,
            classes=old + draw(1, 6),
            old=old,
            size=size,
            label_size=label_size,
            sequential=trial % 2 == 0,
            scale=(0.5, 3.0, 30.0)[trial % 3],
            seed=1000 * seed + trial,
            dtype=(torch.float32, torch.float64)[trial % 4 == 0],
        )
        loss.matches(inputs, align_corners=trial % 5 < 2, **options)
