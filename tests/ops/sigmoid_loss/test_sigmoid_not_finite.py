"""A NaN or an infinity anywhere in the logits comes out as NaN, in the loss and in the gradient."""

from __future__ import annotations

import pytest
import torch

DKD = {"mbce": 1.0, "kd": 5.0, "ac": 1.0}
VALUES = [float("nan"), float("inf"), float("-inf")]
SIZES = [((2, 3), (32, 48)), ((4, 5), (4, 5)), ((4, 5), (9, 13)), ((12, 15), (5, 4)), ((1, 1), (8, 8))]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def size_id(sizes) -> str:
    return "x".join(map(str, sizes))


def places(height: int, width: int) -> list[tuple[int, int]]:
    """Corners and middle."""
    return sorted({(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1), (height // 2, width // 2)})


@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize(("size", "label_size"), SIZES, ids=size_id)
def test_anywhere(sigmoid_inputs, sigmoid_evaluate, needs_kernel, size, label_size, value, which) -> None:
    for dtype in DTYPES:
        inputs = sigmoid_inputs(size=size, label_size=label_size, dtype=dtype)
        for i, j in places(*size):
            for channel in (2,) if which == "teacher" else (0, 2, 6):
                logits = getattr(inputs, which).clone()
                logits[1, channel, i, j] = value
                result = sigmoid_evaluate(inputs._replace(**{which: logits}), backend="cpu", **DKD)
                assert result.total.isnan(), (dtype, i, j)
                assert result.gradient.isnan().all(), (dtype, i, j)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("which", ["student", "teacher"])
def test_where_no_pixel_looks(sigmoid_inputs, sigmoid_evaluate, backend, which, align_corners) -> None:
    # A map that shrinks leaves out whole rows and columns of the logits.
    inputs = sigmoid_inputs(size=(24, 26), label_size=(5, 4))
    missed = []
    for i, j in [(i, 7) for i in range(24)] + [(7, j) for j in range(26)]:
        logits = getattr(inputs, which).clone()
        logits[1, 2, i, j] = float("nan")
        changed = inputs._replace(**{which: logits})
        if not sigmoid_evaluate(changed, backend=backend, align_corners=align_corners, kd=1.0).total.isnan():
            missed.append((i, j))
    assert not missed


@pytest.mark.parametrize("term", ["mbce", "kd", "ac"])
@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize(("size", "label_size"), SIZES[:4], ids=size_id)
def test_every_term(sigmoid_inputs, sigmoid_evaluate, backend, size, label_size, which, term) -> None:
    # Also in a channel that the term does not read; a teacher that it does not read leaves no trace.
    read = which == "student" or term == "kd"
    inputs = sigmoid_inputs(size=size, label_size=label_size)
    for label in (inputs.label, torch.full_like(inputs.label, 255), torch.zeros_like(inputs.label)):
        for channel in (1, 3) if which == "teacher" else (0, 3, 5):
            logits = getattr(inputs, which).clone()
            logits[0, channel, -1, 0] = float("nan")
            changed = inputs._replace(label=label, **{which: logits})
            result = sigmoid_evaluate(changed, backend=backend, **{term: 1.0})
            assert result.total.isnan() == read
            if backend == "cpu" and read:
                assert result.gradient.isnan().all()


@pytest.mark.parametrize("value", [*VALUES, 0.0, 1e30], ids=str)
def test_the_teachers_auxiliary_channel_is_not_read(sigmoid_inputs, sigmoid_evaluate, backend, value) -> None:
    for size, label_size in SIZES:
        for dtype in DTYPES:
            inputs = sigmoid_inputs(size=size, label_size=label_size, dtype=dtype)
            expected = sigmoid_evaluate(inputs, backend=backend, **DKD)
            teacher = inputs.teacher.clone()
            teacher[:, 0] = value
            result = sigmoid_evaluate(inputs._replace(teacher=teacher), backend=backend, **DKD)
            assert result.total.isfinite() and torch.equal(result.total, expected.total)
            assert torch.equal(result.gradient, expected.gradient)


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_all_logits(sigmoid_inputs, sigmoid_evaluate, needs_kernel, value) -> None:
    for size, label_size in SIZES:
        for dtype in DTYPES:
            inputs = sigmoid_inputs(size=size, label_size=label_size, dtype=dtype)
            inputs = inputs._replace(student=torch.full_like(inputs.student, value))
            result = sigmoid_evaluate(inputs, backend="cpu", **DKD)
            assert result.total.isnan() and result.gradient.isnan().all()


def test_overflow_of_half_precision(sigmoid_inputs, sigmoid_evaluate, backend) -> None:
    inputs = sigmoid_inputs()
    student = inputs.student.clone()
    student[0, 0, 0, 0] = 70000.0
    assert sigmoid_evaluate(inputs._replace(student=student), backend=backend, mbce=1.0).total.isfinite()
    assert sigmoid_evaluate(inputs._replace(student=student.half()), backend=backend, mbce=1.0).total.isnan()


def test_the_next_call_is_clean(sigmoid_inputs, sigmoid_evaluate, needs_kernel) -> None:
    for size, label_size in SIZES:
        inputs = sigmoid_inputs(size=size, label_size=label_size)
        expected = sigmoid_evaluate(inputs, backend="cpu", **DKD)
        broken = inputs._replace(student=inputs.student * float("nan"))
        assert sigmoid_evaluate(broken, backend="cpu", **DKD).total.isnan()
        result = sigmoid_evaluate(inputs, backend="cpu", **DKD)
        assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)
