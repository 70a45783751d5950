"""The definition against DKD's formulas, one pixel at a time in plain Python."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from interpolation import bilinear_matrix

TERMS = ("mbce", "kd", "ac")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross_entropy(z: float, target: float, weight: float) -> tuple[float, float]:
    """BCE of a logit and its derivative."""
    p = sigmoid(z)
    loss = -(weight * target * math.log(p) + (1 - target) * math.log(1 - p))
    return loss, p * (weight * target + 1 - target) - weight * target


def channels_of(term: str, classes: int, old: int) -> range:
    """Channels that a term reads, of ``classes``; ``old`` counts the auxiliary one."""
    return {"mbce": range(old, classes), "kd": range(1, old), "ac": range(1)}[term]


def by_hand(inputs, term: str, old: int, pos_weight: float, ignore_index: int = 255):
    """Loss and gradient for logits at label size."""
    batch, classes, height, width = inputs.student.shape
    pixels = batch * height * width
    loss, gradient = 0.0, torch.zeros(inputs.student.shape, dtype=torch.float64)
    for b, i, j in product(range(batch), range(height), range(width)):
        label = int(inputs.label[b, i, j])
        for c in channels_of(term, classes, old):
            target, weight = 0.0, 1.0
            if term == "mbce":
                target, weight = float(label == c and label != ignore_index), pos_weight
            elif term == "kd":
                target = sigmoid(float(inputs.teacher[b, c, i, j]))
            value, slope = cross_entropy(float(inputs.student[b, c, i, j]), target, weight)
            loss += value / pixels
            gradient[b, c, i, j] = slope / pixels
    return loss, gradient


def assert_as_by_hand(result, term, loss, gradient) -> None:
    assert float(result.total) == pytest.approx(loss, rel=1e-12)
    assert float(result.terms[term]) == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(result.gradient, gradient, rtol=0, atol=1e-12 * float(gradient.abs().max()))


@pytest.mark.parametrize("pos_weight", [1.0, 2.0, 35.0, 0.5])
@pytest.mark.parametrize("term", TERMS)
def test_formulas(sigmoid_inputs, sigmoid_evaluate, backend, term, pos_weight) -> None:
    inputs = sigmoid_inputs(size=(3, 4), label_size=(3, 4), sequential=True, dtype=torch.float64)
    result = sigmoid_evaluate(inputs, backend=backend, pos_weight=pos_weight, **{term: 1.0})
    assert_as_by_hand(result, term, *by_hand(inputs, term, 4, pos_weight))


@pytest.mark.parametrize("old", [1, 4])
@pytest.mark.parametrize("term", ["mbce", "ac"])
def test_without_a_teacher(sigmoid_inputs, sigmoid_evaluate, backend, term, old) -> None:
    sizes = {"size": (3, 4), "label_size": (3, 4)}
    inputs = sigmoid_inputs(**sizes, old=old, sequential=True, teacher=False, dtype=torch.float64)
    result = sigmoid_evaluate(inputs, backend=backend, old_classes=old - 1, pos_weight=2.0, **{term: 1.0})
    assert_as_by_hand(result, term, *by_hand(inputs, term, old, 2.0))


@pytest.mark.parametrize("ignore_index", [0, 2, 6, -1])
def test_ignored_pixels_are_negatives(sigmoid_inputs, sigmoid_evaluate, backend, ignore_index) -> None:
    # Whatever number stands for them, a class's own included.
    inputs = sigmoid_inputs(size=(5, 6), label_size=(5, 6), sequential=True, dtype=torch.float64)
    inputs = inputs._replace(label=torch.where(inputs.label == 255, ignore_index, inputs.label))
    result = sigmoid_evaluate(inputs, backend=backend, mbce=1.0, pos_weight=2.0, ignore_index=ignore_index)
    assert_as_by_hand(result, "mbce", *by_hand(inputs, "mbce", 4, 2.0, ignore_index))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("label_size", [(9, 13), (3, 2), (1, 7)])
def test_enlargement(sigmoid_inputs, sigmoid_evaluate, backend, label_size, align_corners) -> None:
    # The loss of logits is that of the enlarged logits, the gradient the enlargement's adjoint applied to theirs.
    inputs = sigmoid_inputs(label_size=label_size, sequential=True, dtype=torch.float64)
    rows, columns = (bilinear_matrix(*sizes, align_corners) for sizes in zip((4, 5), label_size, strict=True))
    enlarged = inputs._replace(
        student=rows @ inputs.student @ columns.T, teacher=rows @ inputs.teacher @ columns.T
    )
    options = {"mbce": 1.0, "kd": 5.0, "ac": 0.5, "pos_weight": 2.0}
    result = sigmoid_evaluate(inputs, backend=backend, align_corners=align_corners, **options)
    loss, gradient = 0.0, 0.0
    for term in TERMS:
        value, slope = by_hand(enlarged, term, 4, 2.0)
        assert float(result.terms[term]) == pytest.approx(value, rel=1e-12)
        loss, gradient = loss + options[term] * value, gradient + options[term] * slope
    assert float(result.total) == pytest.approx(loss, rel=1e-12)
    expected = rows.T @ gradient @ columns
    torch.testing.assert_close(result.gradient, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_single_precision_of_the_definition(sigmoid_inputs, sigmoid_evaluate, sigmoid_define) -> None:
    # Where the sigmoids are at their ends, the definition itself must not lose digits: it serves without a kernel.
    for level in (-30.0, -12.0, 0.0, 15.0, 1e4, -1e4):
        inputs = sigmoid_inputs(scale=0.5)
        inputs = inputs._replace(
            student=inputs.student + level,
            teacher=inputs.teacher + level,
            label=torch.full_like(inputs.label, 5),
        )
        for term in TERMS:
            result = sigmoid_evaluate(inputs, backend="reference", **{term: 1.0})
            expected = sigmoid_define(inputs, **{term: 1.0})
            tolerance = 1e-3 if abs(level) == 1e4 and term == "kd" else 1e-5  # z - z' of 1e4 keeps few digits
            assert float(result.total) == pytest.approx(float(expected.total), rel=tolerance, abs=1e-37)
