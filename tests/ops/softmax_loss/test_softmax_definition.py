"""The definition against the papers' formulas, one pixel at a time in plain Python, and what they imply."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

TERMS = ("ce", "cce", "kd", "ckd", "ali", "focal")
NEEDS_TEACHER = ("kd", "ckd", "ali", "focal")


def softmax(z: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in z)
    return [math.exp(x) / total for x in z]


def region_of(label: int, old: int) -> str:
    if label == 255:
        return "ignored"
    if old and label == 0:
        return "unlabelled"
    return "old" if label < old else "new"


REGION = {  # term: pixels it applies to
    "ce": ("old", "new"),
    "cce": ("unlabelled", "old", "new"),
    "ckd": ("unlabelled", "old", "new", "ignored"),
    "ali": ("unlabelled",),
    "focal": ("unlabelled", "old", "new"),
}
KD_REGION = {
    "all": ("unlabelled", "old", "new", "ignored"),
    "not_unlabelled": ("old", "new", "ignored"),
    "unlabelled": ("unlabelled",),
}


def pixel(term: str, z: list[float], teacher: list[float], label: int, old: int, alpha: float):
    """Loss and gradient of one term at one pixel inside the term's region."""
    classes, region = len(z), region_of(label, old)
    p = softmax(z)
    one_hot = [float(c == label) for c in range(classes)]
    if term == "ce" or (term == "cce" and region == "new"):
        return -math.log(p[label]), [p[c] - one_hot[c] for c in range(classes)]
    if term == "cce":
        q = softmax(z[:old])
        return -math.log(sum(p[:old])), [p[c] - q[c] if c < old else p[c] for c in range(classes)]
    p_teacher = softmax([alpha * x for x in teacher])
    if term == "kd":
        q = softmax(z[:old])
        loss = -sum(p_teacher[k] * math.log(q[k]) for k in range(old)) / old
        return loss, [(q[c] - p_teacher[c]) / old if c < old else 0.0 for c in range(classes)]
    if term == "ckd":
        s = p[0] + sum(p[old:])
        rest = sum(p_teacher[k] * math.log(p[k]) for k in range(1, old))
        loss = -(p_teacher[0] * math.log(s) + rest) / old
        background_or_new = [(s - p_teacher[0]) * p[c] / (s * old) for c in range(classes)]
        return loss, [(p[c] - p_teacher[c]) / old if 1 <= c < old else background_or_new[c] for c in range(classes)]
    if term == "ali":
        loss = math.log(sum(math.exp(x) for x in z)) - sum(p_teacher[k] * z[k] for k in range(old))
        return loss, [p[c] - p_teacher[c] if c < old else p[c] for c in range(classes)]
    target = teacher.index(max(teacher)) if region == "unlabelled" else label
    p_t = p[target]
    factor = (1 - p_t) ** 2 - 2 * p_t * (1 - p_t) * math.log(p_t)
    return -((1 - p_t) ** 2) * math.log(p_t), [factor * (p[c] - float(c == target)) for c in range(classes)]


def by_hand(inputs, term: str, average: str, kd_region: str, old: int, alpha: float):
    """Mean loss and its gradient for logits at label size."""
    batch, classes, height, width = inputs.student.shape
    regions = [region_of(int(y), old) for y in inputs.label.flatten()]
    applies = KD_REGION[kd_region] if term == "kd" else REGION[term]
    valid = sum(region != "ignored" for region in regions)
    count = {"all": len(regions), "valid": valid, "region": sum(region in applies for region in regions)}[average]
    loss, gradient = 0.0, torch.zeros(inputs.student.shape, dtype=torch.float64)
    for b, i, j in product(range(batch), range(height), range(width)):
        label = int(inputs.label[b, i, j])
        if region_of(label, old) not in applies:
            continue
        teacher = [] if inputs.teacher is None else inputs.teacher[b, :, i, j].tolist()
        value, slope = pixel(term, inputs.student[b, :, i, j].tolist(), teacher, label, old, alpha)
        loss += value / count
        gradient[b, :, i, j] = torch.tensor(slope, dtype=torch.float64) / count
    return loss, gradient


def compare(inputs, evaluate, backend, term, average, kd_region, old, alpha) -> None:
    options = {term: 1.0, f"{term}_average": average, "kd_region": kd_region, "alpha": alpha, "old_classes": old}
    loss, gradient = by_hand(inputs, term, average, kd_region, old, alpha)
    result = evaluate(inputs, backend=backend, **options)
    assert float(result.total) == pytest.approx(loss, rel=1e-12)
    assert float(result.terms[term]) == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(result.gradient, gradient, rtol=0, atol=1e-12 * float(gradient.abs().max()))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("average", ["all", "valid", "region"])
@pytest.mark.parametrize("term", TERMS)
def test_formulas(needs_kernel, softmax_inputs, softmax_evaluate, term, average, backend) -> None:
    inputs = softmax_inputs(size=(3, 4), label_size=(3, 4), sequential=True, dtype=torch.float64)
    compare(inputs, softmax_evaluate, backend, term, average, "not_unlabelled", 4, 1.0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("average", ["all", "valid", "region"])
@pytest.mark.parametrize("kd_region", ["all", "not_unlabelled", "unlabelled"])
def test_regions_of_distillation(needs_kernel, softmax_inputs, softmax_evaluate, kd_region, average, backend) -> None:
    inputs = softmax_inputs(size=(3, 4), label_size=(3, 4), sequential=True, dtype=torch.float64)
    compare(inputs, softmax_evaluate, backend, "kd", average, kd_region, 4, 1.0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("term", ["kd", "ckd", "ali"])
def test_factor_on_the_teachers_logits(needs_kernel, softmax_inputs, softmax_evaluate, term, backend) -> None:
    inputs = softmax_inputs(size=(3, 4), label_size=(3, 4), dtype=torch.float64)
    compare(inputs, softmax_evaluate, backend, term, "all", "all", 4, 0.6)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("old", [0, 4])
@pytest.mark.parametrize("term", ["ce", "cce", "focal"])
def test_without_a_teacher(needs_kernel, softmax_inputs, softmax_evaluate, term, old, backend) -> None:
    if term == "focal" and old:
        pytest.skip("unlabelled pixels need the teacher's pseudo-labels")
    inputs = softmax_inputs(size=(3, 4), label_size=(3, 4), sequential=True, teacher=False, dtype=torch.float64)
    compare(inputs, softmax_evaluate, backend, term, "valid", "all", old, 1.0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("label_size", [(5, 6), (40, 48)])
def test_unbiased_cross_entropy_never_lowers_old_classes(
    needs_kernel, softmax_inputs, softmax_evaluate, label_size, backend
) -> None:
    # Proposition 1 of ALIFE: q_c >= p_c, so where nothing is labelled the gradient p_c - q_c of CCE is at most 0
    # for every old class, right or wrong, and at least 0 for the new ones.
    for seed in range(5):
        inputs = softmax_inputs(size=(5, 6), label_size=label_size, scale=4.0, seed=seed, dtype=torch.float64)
        inputs = inputs._replace(label=torch.zeros_like(inputs.label))
        gradient = softmax_evaluate(inputs, backend=backend, cce=1.0).gradient
        rounding = 1e-15 * float(gradient.abs().max())
        assert float(gradient[:, :4].max()) <= rounding
        assert float(gradient[:, 4:].min()) >= -rounding
        assert float(gradient[:, :4].min()) < 0 < float(gradient[:, 4:].max())
        # ALI has no such bias: it pulls old classes to the teacher's probabilities, up and down.
        gradient = softmax_evaluate(inputs, backend=backend, ali=1.0).gradient
        assert float(gradient[:, :4].min()) < 0 < float(gradient[:, :4].max())


@pytest.mark.parametrize("ignore_index", [0, 2, 6])
def test_ignore_index_may_be_a_class(softmax_inputs, softmax_define, softmax_close, ignore_index) -> None:
    # Only the labels say what is ignored: a pseudo-label that happens to be that number is a class as ever.
    inputs = softmax_inputs(sequential=True)
    label = inputs.label.where(inputs.label != ignore_index, torch.tensor(255))
    expected = softmax_define(inputs._replace(label=label), ce=1.0, ali=1.0, focal=1.0)
    label = label.where(label != 255, torch.tensor(ignore_index))
    result = softmax_define(inputs._replace(label=label), ce=1.0, ali=1.0, focal=1.0, ignore_index=ignore_index)
    softmax_close(result, expected, {"ce": 1.0, "ali": 1.0, "focal": 1.0}, 1e-12, 1e-12)
