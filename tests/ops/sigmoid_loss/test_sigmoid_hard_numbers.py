"""Logits whose sigmoids overflow, underflow or cancel in a careless kernel, compared with double precision.

The kernel has several forms and chooses by how much a logit changes between its neighbours: the patterns below put
every form where its numbers are the hardest. The sigmoid itself is hard at both ends: of 1 + e^z a small e^z keeps few
digits, and so does 1 - sigmoid(z) for large z.
"""

from __future__ import annotations

import pytest
import torch

DKD = {"mbce": 1.0, "kd": 5.0, "ac": 1.0}
WEIGHTED = {"mbce": 1.0, "kd": 5.0, "ac": 1.0, "pos_weight": 35.0}
TERMS = ("mbce", "kd", "ac")
ENLARGED = [((2, 4), (32, 64)), ((3, 4), (24, 32)), ((4, 4), (16, 16)), ((5, 6), (10, 12)), ((3, 4), (40, 30))]
AT_LABEL_SIZE = ((8, 9), (8, 9))
SHRUNK = ((15, 12), (8, 5))
SIZES = [*ENLARGED, AT_LABEL_SIZE, SHRUNK]
SLOPES = [0.03, 0.3, 1.0, 2.0, 3.5, 5.0, 8.0, 12.0, 25.0, 60.0]  # change of a logit between neighbours


def size_id(sizes) -> str:
    return "x".join(map(str, sizes))


every_size = pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
some_sizes = pytest.mark.parametrize(("size", "label_size"), [ENLARGED[0], AT_LABEL_SIZE, SHRUNK], ids=size_id)


def at_level(inputs, student: float, teacher: float | None = None, value: int | None = None):
    """The same inputs, moved; with one label everywhere if ``value`` is given."""
    label = inputs.label if value is None else torch.full_like(inputs.label, value)
    moved = inputs.teacher + (student if teacher is None else teacher)
    return inputs._replace(student=inputs.student + student, teacher=moved, label=label)


@pytest.mark.parametrize("options", [DKD, WEIGHTED], ids=["DKD", "weighted"])
@every_size
@pytest.mark.parametrize("bound", [30.0, 75.0, 130.0])
def test_wide_ranges(sigmoid_inputs, sigmoid_matches, bound, size, label_size, options) -> None:
    inputs = sigmoid_inputs(batch=4, size=size, label_size=label_size, sequential=True)
    generator = torch.Generator().manual_seed(0)
    student = bound * (2 * torch.rand(inputs.student.shape, generator=generator) - 1)
    teacher = bound * (2 * torch.rand(inputs.teacher.shape, generator=generator) - 1)
    sigmoid_matches(inputs._replace(student=student, teacher=teacher), **options)


@every_size
@pytest.mark.parametrize("scale", [50.0, 1000.0, 1e4])
def test_huge_logits(sigmoid_inputs, sigmoid_matches, scale, size, label_size) -> None:
    # Rounding the logits themselves to single precision moves sigmoids by up to |z| 2^-24.
    inputs = sigmoid_inputs(batch=4, size=size, label_size=label_size, scale=scale, seed=1)
    for options in (DKD, WEIGHTED):
        sigmoid_matches(inputs, gradient=1e-5 if scale < 100 else 1e-4, **options)


@every_size
@pytest.mark.parametrize("scale", [1000.0, 1e4])
def test_huge_logits_in_double_precision(sigmoid_inputs, sigmoid_matches, scale, size, label_size) -> None:
    inputs = sigmoid_inputs(size=size, label_size=label_size, scale=scale, dtype=torch.float64)
    sigmoid_matches(inputs, **DKD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@some_sizes
def test_logits_beyond_all_bounds(sigmoid_inputs, sigmoid_matches, size, label_size, dtype) -> None:
    inputs = sigmoid_inputs(size=size, label_size=label_size, scale=1e30, dtype=dtype)
    sigmoid_matches(inputs, **DKD)


@pytest.mark.parametrize("level", [-5.0, -8.0, -12.0, -16.0, -20.0, -30.0, -40.0, -60.0, -80.0])
@every_size
def test_all_logits_far_below_0(sigmoid_inputs, sigmoid_matches, size, label_size, level) -> None:
    # The loss is as small as e^level, and right. No pixel is labelled, for a label would make the loss. A student like
    # its teacher would have no gradient to speak of. Around -80 numbers have so few digits that only the loss counts.
    for scale in (0.0, 0.3, 2.0):
        inputs = sigmoid_inputs(size=size, label_size=label_size, scale=scale)
        inputs = at_level(inputs, level, level - 2, value=0)
        for term in TERMS:
            sigmoid_matches(inputs, gradient=1e-5 if level > -70 else 1.0, **{term: 1.0})


@every_size
def test_logits_from_5_to_40_below_0(sigmoid_inputs, sigmoid_matches, size, label_size) -> None:
    inputs = sigmoid_inputs(batch=4, size=size, label_size=label_size)
    generator = torch.Generator().manual_seed(0)
    student = -5 - 35 * torch.rand(inputs.student.shape, generator=generator)
    teacher = -5 - 35 * torch.rand(inputs.teacher.shape, generator=generator)
    inputs = inputs._replace(student=student, teacher=teacher, label=torch.zeros_like(inputs.label))
    for term in TERMS:
        sigmoid_matches(inputs, **{term: 1.0})


@pytest.mark.parametrize("level", [5.0, 10.0, 15.0, 20.0, 40.0, 80.0])
@every_size
def test_sure_and_right(sigmoid_inputs, sigmoid_evaluate, sigmoid_define, backend, size, label_size, level) -> None:
    # Labelled pixels with large logits, old classes as sure as the teacher: losses as small as e^-level.
    natural = 1 / (2 * size[0] * size[1])  # a logit's gradient if every pixel gave 1
    for scale in (0.0, 0.3):
        inputs = sigmoid_inputs(classes=5, size=size, label_size=label_size, scale=scale)
        inputs = at_level(inputs, level, value=4)
        for term in ("mbce", "kd"):
            result = sigmoid_evaluate(inputs, backend=backend, **{term: 1.0})
            expected = sigmoid_define(inputs, **{term: 1.0})
            assert float(result.total) == pytest.approx(float(expected.total), rel=1e-5)
            error = float((result.gradient.double() - expected.gradient).abs().max())
            assert error <= 1e-5 * float(expected.gradient.abs().max()) + 1.2e-7 * natural


@pytest.mark.parametrize("level", [-30.0, -12.0, 0.0, 12.0, 30.0])
@every_size
def test_student_like_the_teacher(
    sigmoid_inputs, sigmoid_evaluate, sigmoid_define, backend, size, label_size, level
) -> None:
    # KD's value is the teacher's entropy, its gradient 0 but for rounding.
    natural = 1 / (2 * size[0] * size[1])
    for scale in (0.1, 2.0):
        inputs = at_level(sigmoid_inputs(size=size, label_size=label_size, scale=scale), level)
        student = inputs.student.clone()
        student[:, 1:4] = inputs.teacher[:, 1:]
        inputs = inputs._replace(student=student)
        result = sigmoid_evaluate(inputs, backend=backend, kd=1.0)
        expected = sigmoid_define(inputs, kd=1.0)
        assert float(result.total) == pytest.approx(float(expected.total), rel=1e-5)
        assert float(result.gradient.abs().max()) <= 2.4e-7 * natural


@every_size
@pytest.mark.parametrize("difference", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("scale", [100.0, 1000.0, 1e4])
def test_huge_logits_like_the_teacher(
    sigmoid_inputs, sigmoid_evaluate, sigmoid_define, backend, size, label_size, scale, difference
) -> None:
    # Nearly all pixels have loss 0; what is left comes from where a logit crosses 0, which rounding the logits moves.
    generator = torch.Generator().manual_seed(3)
    inputs = sigmoid_inputs(batch=4, size=size, label_size=label_size, scale=scale, seed=3)
    noise = torch.randn(inputs.teacher.shape, generator=generator)
    inputs = inputs._replace(teacher=inputs.student[:, : noise.shape[1]] + difference * noise)
    expected, found = sigmoid_define(inputs, kd=1.0), sigmoid_evaluate(inputs, kd=1.0, backend=backend)
    assert float(found.total) == pytest.approx(float(expected.total), rel=1e-5 + scale * 2**-22, abs=1e-9)


@some_sizes
def test_sure_and_wrong(sigmoid_inputs, sigmoid_matches, size, label_size) -> None:
    for level in (15.0, 40.0, 1000.0):
        inputs = sigmoid_inputs(size=size, label_size=label_size, scale=0.5)
        sigmoid_matches(at_level(inputs, level, -level, value=0), **DKD)
        sigmoid_matches(at_level(inputs, -level, level, value=5), **DKD)


@pytest.mark.parametrize("value", [0.0, -3.0, 3.0, 50.0, -50.0, 1e4, -1e4])
@every_size
def test_constant_logits(sigmoid_inputs, sigmoid_matches, sigmoid_evaluate, backend, size, label_size, value) -> None:
    inputs = sigmoid_inputs(size=size, label_size=label_size)
    inputs = inputs._replace(
        student=torch.full_like(inputs.student, value), teacher=torch.full_like(inputs.teacher, -value)
    )
    sigmoid_matches(inputs, absolute=1e-37, **WEIGHTED)
    if value == 0:
        terms = sigmoid_evaluate(inputs, backend=backend, **DKD).terms
        for term, classes in (("mbce", 3), ("kd", 3), ("ac", 1)):
            assert float(terms[term]) == pytest.approx(classes * torch.tensor(2.0).log().item(), rel=1e-6)


def pattern_of(name: str, size: tuple[int, int]) -> torch.Tensor:
    """Which of two levels each logit has, [h, w]; "ramp" goes on from column to column."""
    i, j = torch.arange(size[0])[:, None], torch.arange(size[1])[None, :]
    return {
        "columns": j % 2 + 0 * i,
        "rows": i % 2 + 0 * j,
        "checkerboard": (i + j) % 2,
        "ramp": j + 0 * i,
        "slope": i + j,
    }[name].float()


@pytest.mark.parametrize("pattern", ["columns", "rows", "checkerboard", "ramp", "slope"])
@pytest.mark.parametrize("level", [-40.0, -16.0, -5.0, 0.0, 10.0])
@every_size
def test_every_slope(sigmoid_inputs, sigmoid_matches, size, label_size, level, pattern) -> None:
    # Each image has its own change between neighbours, the classes their own among them.
    change = torch.tensor(SLOPES)[:, None, None, None] * torch.linspace(0.8, 1.2, 7)[:, None, None]
    inputs = sigmoid_inputs(batch=len(SLOPES), size=size, label_size=label_size, scale=0.01, sequential=True)
    steps = pattern_of(pattern, size) - 0.5
    inputs = inputs._replace(
        student=inputs.student + level + change * steps,
        teacher=inputs.teacher + level - change[:, :4] * steps,
    )
    sigmoid_matches(inputs, **WEIGHTED)


@pytest.mark.parametrize("change", SLOPES)
@pytest.mark.parametrize("pattern", ["columns", "checkerboard", "ramp"])
def test_every_slope_alone(sigmoid_inputs, sigmoid_matches, pattern, change) -> None:
    # Far below 0 and without labels nothing larger hides an error.
    for size, label_size in SIZES:
        inputs = sigmoid_inputs(size=size, label_size=label_size, scale=0.01)
        steps = change * (pattern_of(pattern, size) - 0.5)
        for level in (-30.0, -14.0):
            moved = at_level(inputs, level, level - 3, value=0)
            moved = moved._replace(student=moved.student + steps, teacher=moved.teacher - steps)
            for term in TERMS:
                sigmoid_matches(moved, **{term: 1.0})


@pytest.mark.parametrize("height", [1.0, 10.0, 50.0])
@every_size
def test_edges(sigmoid_inputs, sigmoid_matches, size, label_size, height) -> None:
    # A region's outline: logits jump from -height to height between two neighbours and stay there.
    inputs = sigmoid_inputs(batch=3, size=size, label_size=label_size, scale=0.1, sequential=True)
    inside = torch.zeros(3, 1, *size)
    inside[0, :, :, size[1] // 2 :] = 1
    inside[1, :, size[0] // 2 :, :] = 1
    inside[2, :, size[0] // 2 :, size[1] // 2 :] = 1
    edge = height * (2 * inside - 1)
    for student, teacher in ((edge, edge), (edge, -edge), (-edge, edge)):
        moved = inputs._replace(student=inputs.student + student, teacher=inputs.teacher + teacher)
        # KD of a student as sure as its teacher on both sides is the small difference of sums as large as the logits.
        rounding = 2e-8 * height if student is teacher else 0.0
        for options in (DKD, WEIGHTED):
            sigmoid_matches(moved, absolute=rounding, **options)


@every_size
def test_one_logit_above_a_plain(sigmoid_inputs, sigmoid_matches, size, label_size) -> None:
    # Rare tall logits make the loss; and where there is none, the plain's must be right all the same.
    for level in (-10.0, -20.0, -40.0):
        inputs = sigmoid_inputs(batch=4, size=size, label_size=label_size, scale=0.1)
        inputs = at_level(inputs, level, level - 2, value=0)
        for height in (0.0, 5.0, 20.0, 100.0):
            student, teacher = inputs.student.clone(), inputs.teacher.clone()
            student[0, :, -1, 0] += height
            teacher[1, :, 0, -1] += height
            # Interpolation rounds a logit on the way up to the tall one by 2^-24 of that.
            loss = 1e-5 if height < 50 else 5e-5
            for term in TERMS:
                sigmoid_matches(inputs._replace(student=student, teacher=teacher), loss=loss, **{term: 1.0})


@every_size
def test_classes_of_all_kinds_side_by_side(sigmoid_inputs, sigmoid_matches, size, label_size) -> None:
    # Classes that are calculated together must not lose for one another's range.
    levels = torch.tensor([-30.0, 0.0, 15.0, -12.0, 1.0, -80.0, 40.0] * 3)[:20, None, None]
    roughness = torch.tensor([0.01, 3.0, 0.1, 30.0, 0.0] * 4)[:, None, None]
    inputs = sigmoid_inputs(classes=20, old=12, size=size, label_size=label_size, scale=1.0, sequential=True)
    student = inputs.student * roughness + levels
    teacher = inputs.teacher * roughness[:12].flip(0) + levels[:12]
    inputs = inputs._replace(student=student, teacher=teacher)
    for options in (DKD, WEIGHTED):
        result, expected = sigmoid_matches(inputs, **options)
        for channel in range(20):  # each by its own largest entry
            exact = expected.gradient[:, channel]
            error = float((result.gradient[:, channel].double() - exact).abs().max())
            assert error <= 1e-5 * float(exact.abs().max()) + 1e-7 / (2 * size[0] * size[1]), channel


@every_size
def test_large_weights_on_few_pixels(sigmoid_inputs, sigmoid_matches, size, label_size) -> None:
    for pixel in range(6):
        inputs = sigmoid_inputs(batch=1, size=size, label_size=label_size, scale=20.0, seed=pixel)
        label = torch.zeros_like(inputs.label)
        label[:, -1 - pixel % 2, pixel * (label_size[1] - 1) // 5] = 5
        sigmoid_matches(inputs._replace(label=label), mbce=1e5, pos_weight=1e3)


@pytest.mark.parametrize(("size", "label_size"), [((2, 2), (200, 200)), ((1, 1), (512, 512))], ids=size_id)
def test_many_pixels_of_one_cell(sigmoid_inputs, sigmoid_matches, size, label_size) -> None:
    # Sums over so many pixels must not lose digits one by one.
    for level in (-30.0, 0.0):
        inputs = sigmoid_inputs(batch=1, size=size, label_size=label_size, scale=0.5)
        inputs = at_level(inputs, level, level - 2, value=0)
        for term in TERMS:
            sigmoid_matches(inputs, **{term: 1.0})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_patterns(sigmoid_inputs, sigmoid_matches, seed) -> None:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    for trial in range(36):
        size, label_size = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
        inputs = sigmoid_inputs(
            batch=8, size=size, label_size=label_size, scale=1.0, sequential=True, seed=1000 * seed + trial
        )
        moved = []
        for logits in inputs[:2]:
            roughness = 10 ** (3 * uniform(8, logits.shape[1], 1, 1) - 1.5)  # 0.03 to 30
            level = 40 * uniform(8, logits.shape[1], 1, 1) - 25
            moved.append(logits * roughness + level)
        inputs = inputs._replace(student=moved[0], teacher=moved[1])
        sigmoid_matches(inputs, align_corners=trial % 2 == 0, **(DKD, WEIGHTED)[trial % 3 == 0])
