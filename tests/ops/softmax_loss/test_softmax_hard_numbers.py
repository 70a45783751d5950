"""Logits that overflow, underflow or cancel in a careless kernel, compared with double precision.

The kernel's fast form multiplies powers of exp(slope) along a row; it must notice where those leave the range of
float, or where a sum of them is too small to be right, and take the exact form there. The patterns below sit on both
sides of every such limit, many of them per call: each image of a batch has its own distance.
"""

from __future__ import annotations

import pytest
import torch

ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}
MIB = {"cce": 1.0, "ckd": 10.0}
FOCAL = {"focal": 1.0}
ALL_REGIONS = {"ce": 1.0, "cce": 1.0, "kd": 1.0, "ckd": 1.0, "ali": 1.0, "kd_region": "all"}
ENLARGED = [((2, 4), (32, 64)), ((3, 4), (24, 32)), ((4, 4), (16, 16)), ((5, 6), (10, 12)), ((3, 4), (40, 30))]
AT_LABEL_SIZE = ((8, 9), (8, 9))
SHRUNK = ((15, 12), (8, 5))
SIZES = [*ENLARGED, AT_LABEL_SIZE, SHRUNK]
DISTANCES = {  # in nats; exp(87.3) is the largest float, 2^-60 = exp(-41.6), 2^-120 = exp(-83.2)
    "around the smallest sum": (36.0, 48.0),
    "around the lowest exponent": (75.0, 95.0),
    "in between": (48.0, 76.0),
    "beyond": (95.0, 150.0),
}


def size_id(sizes) -> str:
    return "x".join(map(str, sizes))


def options_id(options) -> str:
    return "+".join(name for name in options if name != "kd_region")


@pytest.mark.parametrize("options", [ALIFE, MIB, FOCAL], ids=options_id)
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
@pytest.mark.parametrize("bound", [30.0, 75.0, 130.0])
def test_wide_ranges(softmax_inputs, softmax_matches, bound, size, label_size, options) -> None:
    inputs = softmax_inputs(batch=4, size=size, label_size=label_size, sequential=True)
    generator = torch.Generator().manual_seed(0)
    student = bound * (2 * torch.rand(inputs.student.shape, generator=generator) - 1)
    teacher = bound * (2 * torch.rand(inputs.teacher.shape, generator=generator) - 1)
    softmax_matches(inputs._replace(student=student, teacher=teacher), **options)


@pytest.mark.parametrize("options", [ALIFE, MIB, FOCAL], ids=options_id)
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
@pytest.mark.parametrize("scale", [900.0, 1e4])
def test_huge_logits(softmax_inputs, softmax_matches, scale, size, label_size, options) -> None:
    # Rounding the logits themselves to single precision moves probabilities by up to |z| 2^-24.
    inputs = softmax_inputs(batch=4, size=size, label_size=label_size, scale=scale, seed=1)
    softmax_matches(inputs, gradient=1e-4, **options)


@pytest.mark.parametrize("scale", [900.0, 1e4])
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_huge_logits_in_double_precision(softmax_inputs, softmax_matches, scale, size, label_size) -> None:
    inputs = softmax_inputs(size=size, label_size=label_size, scale=scale, dtype=torch.float64)
    for options in (ALIFE, MIB):
        softmax_matches(inputs, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "label_size"), [ENLARGED[0], AT_LABEL_SIZE], ids=size_id)
def test_logits_beyond_all_bounds(softmax_inputs, softmax_matches, size, label_size, dtype) -> None:
    # No finite number takes the place of "lower than every logit".
    inputs = softmax_inputs(size=size, label_size=label_size, scale=1e32, dtype=dtype)
    for options in (ALIFE, MIB):
        softmax_matches(inputs, **options)


@pytest.mark.parametrize("shift", [-100.0, 100.0, 1e4])
@pytest.mark.parametrize(("size", "label_size"), [ENLARGED[0], AT_LABEL_SIZE, SHRUNK], ids=size_id)
def test_a_shift_of_all_logits(softmax_inputs, softmax_matches, shift, size, label_size) -> None:
    inputs = softmax_inputs(size=size, label_size=label_size, scale=2.0)
    tolerance = 1e-5 if abs(shift) <= 100 else 1e-3  # 2^-24 of the logits again
    inputs = inputs._replace(student=inputs.student + shift, teacher=inputs.teacher - shift)
    softmax_matches(inputs, loss=tolerance, gradient=tolerance, **ALIFE)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e4, -1e4])
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_constant_logits(softmax_inputs, softmax_matches, value, size, label_size) -> None:
    inputs = softmax_inputs(size=size, label_size=label_size)
    student, teacher = torch.full_like(inputs.student, value), torch.full_like(inputs.teacher, -value)
    tolerance = 1e-5 if abs(value) < 1e4 else 1e-3  # 2^-24 of the logits again
    changed = inputs._replace(student=student, teacher=teacher)
    result, _ = softmax_matches(changed, loss=tolerance, gradient=tolerance, **ALIFE)
    share = float(((inputs.label >= 4) & (inputs.label != 255)).float().mean())
    assert float(result.terms["ce"]) == pytest.approx(share * torch.tensor(7.0).log().item(), rel=tolerance)


@pytest.mark.parametrize("options", [ALIFE, MIB, FOCAL], ids=options_id)
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
@pytest.mark.parametrize("channel", [0, 2, 6])
def test_one_class_dominates(softmax_inputs, softmax_matches, channel, size, label_size, options) -> None:
    inputs = softmax_inputs(batch=16, size=size, label_size=label_size, scale=0.5, sequential=True)
    distance = torch.linspace(30, 120, 16)[:, None, None]
    student, teacher = inputs.student.clone(), inputs.teacher.clone()
    student[:, channel] += distance
    teacher[:, channel % 4] += distance.flip(0)
    softmax_matches(inputs._replace(student=student, teacher=teacher), absolute=1e-6, **options)


@pytest.mark.parametrize(("size", "label_size"), [((2, 2), (200, 200)), ((3, 3), (96, 96))], ids=size_id)
def test_small_differences_of_large_sums(softmax_inputs, softmax_matches, size, label_size) -> None:
    # KD's loss is the difference of two numbers as large as the old classes' logits are far below the new ones'. What
    # rounding leaves of it, 2^-24 of those numbers, must not grow with the number of pixels.
    for margin in (20.0, 60.0, 100.0):
        inputs = softmax_inputs(batch=1, classes=4, old=2, size=size, label_size=label_size, scale=0.5, seed=3)
        student = inputs.student.clone()
        student[:, :2] -= margin
        softmax_matches(inputs._replace(student=student), loss=5e-5, gradient=5e-5, kd=1.0)


@pytest.mark.parametrize("options", [ALIFE, MIB, ALL_REGIONS], ids=options_id)
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_old_classes_far_below_new_ones(softmax_inputs, softmax_matches, size, label_size, options) -> None:
    # KD and CCE need the old classes' own sum however small its share of the whole.
    inputs = softmax_inputs(batch=16, size=size, label_size=label_size, scale=0.5, sequential=True)
    student = inputs.student.clone()
    student[:, :4] -= torch.linspace(30, 90, 16)[:, None, None, None]
    softmax_matches(inputs._replace(student=student), absolute=1e-6, **options)


@pytest.mark.parametrize("options", [ALIFE, MIB, FOCAL], ids=options_id)
@pytest.mark.parametrize("pattern", ["columns", "rows", "checkerboard"])
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_neighbours_with_opposite_logits(softmax_inputs, softmax_matches, size, label_size, pattern, options) -> None:
    # From node to node two classes swap places: one falls by the distance where the other rises.
    distance = torch.cat([torch.linspace(*bounds, 5) for bounds in DISTANCES.values()])[:, None, None]
    inputs = softmax_inputs(batch=len(distance), size=size, label_size=label_size, scale=0.5, sequential=True)
    i, j = torch.arange(size[0])[:, None], torch.arange(size[1])[None, :]
    odd = {"columns": j % 2 + 0 * i, "rows": i % 2 + 0 * j, "checkerboard": (i + j) % 2}[pattern].float()
    student, teacher = inputs.student.clone(), inputs.teacher.clone()
    for first, second in ((1, 5), (0, 2)):
        student[:, first] -= distance * odd
        student[:, second] -= distance * (1 - odd)
    if "focal" not in options:  # the teacher's argmax has to be the same in both precisions
        teacher[:, 0] -= distance * odd
        teacher[:, 3] -= distance * (1 - odd)
    softmax_matches(inputs._replace(student=student, teacher=teacher), **options)


@pytest.mark.parametrize("distances", DISTANCES)
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_every_class_at_its_own_distance(softmax_inputs, softmax_matches, size, label_size, distances) -> None:
    low, high = DISTANCES[distances]
    inputs = softmax_inputs(batch=6, size=size, label_size=label_size, scale=0.5)
    generator = torch.Generator().manual_seed(0)
    moved = []
    for logits in inputs[:2]:
        distance = low + (high - low) * torch.rand(logits.shape, generator=generator)
        level = torch.randint(-1, 2, logits.shape, generator=generator)
        moved.append(logits + level * distance)
    inputs = inputs._replace(student=moved[0], teacher=moved[1])
    for options in (ALIFE, MIB):
        softmax_matches(inputs, **options)


@pytest.mark.parametrize("options", [ALIFE, MIB, ALL_REGIONS], ids=options_id)
@pytest.mark.parametrize("width", [12, 24, 48, 64, 40])
def test_small_sums_all_along_a_row(softmax_inputs, softmax_matches, width, options) -> None:
    # The one label row lies halfway between two rows of nodes where classes swap places: every exponential is small
    # there, and another class, itself about as small at one column, counts although it is negligible at the next.
    distance = torch.cat([torch.linspace(76, 84, 9), torch.linspace(90, 170, 9)])
    distance, below = torch.meshgrid(distance, torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0]), indexing="ij")
    distance, below = distance.reshape(-1, 1, 1), below.reshape(-1, 1, 1)
    size = (2, 4)
    inputs = softmax_inputs(batch=len(distance), size=size, label_size=(1, width), scale=0.2, sequential=True)
    odd_row, odd_column = torch.tensor([[0.0], [1.0]]).expand(size), (torch.arange(4) % 2.0).expand(size)
    moved = []
    for logits, (first, second) in zip(inputs[:2], ((1, 5), (0, 2)), strict=True):
        logits = logits - (distance / 2 + below + 85 * odd_column)[:, None]
        logits[:, first] = -distance * odd_row
        logits[:, second] = -distance * (1 - odd_row)
        moved.append(logits)
    softmax_matches(inputs._replace(student=moved[0], teacher=moved[1]), absolute=1e-6, **options)


@pytest.mark.parametrize("term", ["ce", "cce", "kd", "ckd", "ali"])
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_large_weights_on_few_pixels(softmax_inputs, softmax_matches, size, label_size, term) -> None:
    # Exponentials near the largest float, times weights that no number of pixels divides.
    for pixel in range(6):
        inputs = softmax_inputs(batch=8, size=size, label_size=label_size, scale=0.5, seed=pixel)
        odd = (torch.arange(size[1]) % 2).float()
        distance = torch.linspace(60, 170, 8)[:, None, None]
        student, teacher = inputs.student.clone(), inputs.teacher.clone()
        for logits, (first, second) in ((student, (1, 5)), (teacher, (0, 2))):
            logits[:, first] -= distance * odd
            logits[:, second] -= distance * (1 - odd)
        label = torch.full_like(inputs.label, 255)
        label[:, -1 - pixel % 2, pixel * (label_size[1] - 1) // 5] = 0 if term in ("ali", "cce") else 5
        inputs = inputs._replace(student=student, teacher=teacher, label=label)
        # Each image by itself: its pixel alone makes the loss.
        for image in range(8):
            one = type(inputs)(*(x[image : image + 1] for x in inputs))
            softmax_matches(one, absolute=1e-5, **{term: 1e4, f"{term}_average": "region"})


@pytest.mark.parametrize("factor", [1.0, 4.0, 20.0])
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_sharp_teacher(softmax_inputs, softmax_matches, size, label_size, factor) -> None:
    inputs = softmax_inputs(size=size, label_size=label_size, scale=10.0)
    softmax_matches(inputs, alpha=factor, ali=1.0, kd=1.0, ckd=1.0)


@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_tiny_losses(softmax_inputs, softmax_evaluate, softmax_define, needs_kernel, size, label_size) -> None:
    # The label's class wins by a margin: the loss is exp(-margin), 1 + exp(-margin) is rounded. That much, an
    # epsilon a pixel, is lost in any single precision; no more may be.
    for margin in (2.0, 6.0, 10.0, 14.0, 18.0, 40.0, 90.0):
        inputs = softmax_inputs(size=size, label_size=label_size, scale=0.2, teacher=False)
        student = inputs.student.clone()
        student[:, 5] += margin
        inputs = inputs._replace(student=student, label=torch.full_like(inputs.label, 5))
        result, expected = softmax_evaluate(inputs, backend="cpu", ce=1.0), softmax_define(inputs, ce=1.0)
        assert float(result.total) >= 0
        assert abs(float(result.total) - float(expected.total)) <= 1.2e-7 + 1e-5 * float(expected.total)
        error = (result.gradient.double() - expected.gradient).abs()
        natural = 1 / (inputs.student.shape[0] * size[0] * size[1])  # a node's gradient if every pixel gave 1
        assert float(error.max()) <= 1.2e-6 * natural + 1e-5 * float(expected.gradient.abs().max())
        # All other classes' gradients are small and yet right.
        others = [c for c in range(7) if c != 5]
        largest = float(expected.gradient[:, others].abs().max())
        if largest > 1e-25:
            assert float(error[:, others].max()) <= 1e-5 * largest


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_patterns(softmax_inputs, softmax_matches, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    for trial in range(36):
        size, label_size = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
        low, high = list(DISTANCES.values())[trial % 4]
        inputs = softmax_inputs(
            batch=8, size=size, label_size=label_size, scale=0.5, sequential=True, seed=1000 * seed + trial
        )
        moved = []
        for logits in inputs[:2]:
            distance = torch.linspace(low, high, 8)[:, None, None, None]
            per_class = torch.randint(-1, 2, (8, logits.shape[1], 1, 1), generator=generator)
            per_node = torch.randint(-1, 2, logits.shape, generator=generator)
            moved.append(logits + distance * (per_class if trial % 3 == 0 else per_node))
        inputs = inputs._replace(student=moved[0], teacher=moved[1])
        softmax_matches(inputs, gradient=2e-5, align_corners=trial % 2 == 0, **(ALIFE, MIB, ALL_REGIONS)[trial % 3])
