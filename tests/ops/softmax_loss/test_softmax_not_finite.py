"""A NaN or an infinity anywhere in the logits comes out as NaN, in the loss and in the gradient."""

from __future__ import annotations

import pytest
import torch

TERMS = ("ce", "cce", "kd", "ckd", "ali", "focal")
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
def test_anywhere(softmax_inputs, softmax_evaluate, needs_kernel, size, label_size, value, which) -> None:
    for dtype in DTYPES:
        inputs = softmax_inputs(size=size, label_size=label_size, dtype=dtype)
        for i, j in places(*size):
            logits = getattr(inputs, which).clone()
            logits[1, 2, i, j] = value
            result = softmax_evaluate(inputs._replace(**{which: logits}), backend="cpu", ali=1.0, ce=1.0)
            assert result.total.isnan(), (dtype, i, j)
            assert result.gradient.isnan().all(), (dtype, i, j)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("which", ["student", "teacher"])
def test_where_no_pixel_looks(softmax_inputs, softmax_evaluate, needs_kernel, which, align_corners, backend) -> None:
    # A map that shrinks leaves out whole rows and columns of the logits.
    inputs = softmax_inputs(size=(24, 26), label_size=(5, 4))
    places = [(i, 7) for i in range(24)] + [(7, j) for j in range(26)]
    missed = []
    for i, j in places:
        logits = getattr(inputs, which).clone()
        logits[1, 2, i, j] = float("nan")
        changed = inputs._replace(**{which: logits})
        result = softmax_evaluate(changed, backend=backend, align_corners=align_corners, ali=1.0)
        if not result.total.isnan():
            missed.append((i, j))
    assert not missed


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize(("size", "label_size"), SIZES[:3], ids=size_id)
def test_every_term(softmax_inputs, softmax_evaluate, needs_kernel, size, label_size, which, term, backend) -> None:
    # Also in a class without labels and in images without a pixel of the term's region; a teacher that the term does
    # not read leaves no trace.
    read = which == "student" or term not in ("ce", "cce")
    inputs = softmax_inputs(size=size, label_size=label_size)
    for label in (inputs.label, torch.full_like(inputs.label, 255), torch.zeros_like(inputs.label)):
        for channel in (0, 3):
            logits = getattr(inputs, which).clone()
            logits[0, channel, -1, 0] = float("nan")
            changed = inputs._replace(label=label, **{which: logits})
            assert softmax_evaluate(changed, backend=backend, **{term: 1.0}).total.isnan() == read


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_all_logits(softmax_inputs, softmax_evaluate, needs_kernel, value) -> None:
    for size, label_size in SIZES:
        for dtype in DTYPES:
            inputs = softmax_inputs(size=size, label_size=label_size, dtype=dtype)
            inputs = inputs._replace(student=torch.full_like(inputs.student, value))
            result = softmax_evaluate(inputs, backend="cpu", **dict.fromkeys(TERMS, 1.0))
            assert result.total.isnan() and result.gradient.isnan().all()


def test_overflow_of_half_precision(softmax_inputs, softmax_evaluate, needs_kernel) -> None:
    inputs = softmax_inputs()
    student = inputs.student.clone()
    student[0, 0, 0, 0] = 70000.0
    assert softmax_evaluate(inputs._replace(student=student), backend="cpu", ce=1.0).total.isfinite()
    assert softmax_evaluate(inputs._replace(student=student.half()), backend="cpu", ce=1.0).total.isnan()


def test_the_next_call_is_clean(softmax_inputs, softmax_evaluate, needs_kernel) -> None:
    for size, label_size in SIZES:
        inputs = softmax_inputs(size=size, label_size=label_size)
        expected = softmax_evaluate(inputs, backend="cpu", **dict.fromkeys(TERMS, 1.0))
        broken = inputs._replace(student=inputs.student * float("nan"))
        assert softmax_evaluate(broken, backend="cpu", **dict.fromkeys(TERMS, 1.0)).total.isnan()
        result = softmax_evaluate(inputs, backend="cpu", **dict.fromkeys(TERMS, 1.0))
        assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)
