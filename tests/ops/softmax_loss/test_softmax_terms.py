"""The kernel's terms, alone and mixed, with every averaging and region, on enlarged logits."""

from __future__ import annotations

import pytest
import torch

TERMS = ("ce", "cce", "kd", "ckd", "ali", "focal")
AVERAGES = ("all", "valid", "region")
MIXES = {
    "ALIFE, stage 1": {"ce": 1.0, "ali": 3.0, "kd": 1.0},
    "ALIFE, stage 3": {"focal": 1.0, "ali": 3.0},
    "MiB": {"cce": 1.0, "ckd": 10.0, "cce_average": "all"},
    "CCE and KD": {"cce": 1.0, "kd": 10.0, "kd_region": "all", "kd_average": "all"},
    "CE and CKD": {"ce": 1.0, "ckd": 0.5},
    "ALI and CKD": {"ali": 0.1, "ckd": 2.0},
    "KD where ALI is": {"ali": 1.0, "kd": 1.0, "kd_region": "unlabelled"},
    "everything": {"ce": 1.0, "cce": 0.5, "kd": 2.0, "ckd": 3.0, "ali": 0.7, "focal": 1.5},
}
PRECISIONS = [torch.float32, torch.float64]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("term", TERMS)
def test_alone(softmax_inputs, softmax_matches, term, average) -> None:
    for dtype in PRECISIONS:
        for sequential in (False, True):
            inputs = softmax_inputs(sequential=sequential, dtype=dtype)
            softmax_matches(inputs, **{term: 1.0, f"{term}_average": average})


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kd_region", ["all", "not_unlabelled", "unlabelled"])
def test_regions_of_distillation(softmax_inputs, softmax_matches, kd_region, average) -> None:
    for dtype in PRECISIONS:
        inputs = softmax_inputs(sequential=True, dtype=dtype)
        softmax_matches(inputs, kd=1.0, kd_region=kd_region, kd_average=average)


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)], ids=["enlarged", "at label size"])
@pytest.mark.parametrize("mix", MIXES)
def test_mixes(softmax_inputs, softmax_matches, mix, label_size) -> None:
    for dtype in PRECISIONS:
        for sequential in (False, True):
            inputs = softmax_inputs(label_size=label_size, sequential=sequential, dtype=dtype)
            softmax_matches(inputs, align_corners=sequential, **MIXES[mix])


def test_weights_scale_the_total_and_not_the_terms(softmax_inputs, softmax_evaluate, needs_kernel) -> None:
    inputs = softmax_inputs(dtype=torch.float64)
    once = softmax_evaluate(inputs, backend="cpu", **dict.fromkeys(TERMS, 1.0))
    weights = {name: 0.5 + 0.3 * i for i, name in enumerate(TERMS)}
    weighted = softmax_evaluate(inputs, backend="cpu", **weights)
    for name in TERMS:
        torch.testing.assert_close(weighted.terms[name], once.terms[name], rtol=1e-13, atol=0)
    expected = sum(weights[name] * float(once.terms[name]) for name in TERMS)
    assert float(weighted.total) == pytest.approx(expected, rel=1e-13)


def test_negative_weights(softmax_inputs, softmax_matches) -> None:
    softmax_matches(softmax_inputs(), ce=1.0, ali=-0.5, kd=-2.0)


def test_large_weight_on_a_single_pixel(softmax_inputs, softmax_matches) -> None:
    inputs = softmax_inputs(size=(3, 3), label_size=(48, 48), scale=20.0)
    label = torch.full_like(inputs.label, 255)
    label[0, 20, 20], label[1, 40, 3] = 5, 0
    softmax_matches(inputs._replace(label=label), ce=1e5, ce_average="region", ali=1e5, kd=1e5)


@pytest.mark.parametrize("alpha", [0.25, 2.0])
@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
def test_factor_on_the_teachers_logits(softmax_inputs, softmax_matches, label_size, alpha) -> None:
    for dtype in PRECISIONS:
        inputs = softmax_inputs(label_size=label_size, dtype=dtype)
        softmax_matches(inputs, alpha=alpha, kd=1.0, ckd=1.0, ali=1.0, focal=1.0)


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
@pytest.mark.parametrize(("classes", "old"), [(4, 4), (1, 1), (2, 1), (5, 1), (3, 2)], ids=lambda number: str(number))
def test_few_classes(softmax_inputs, softmax_matches, classes, old, label_size) -> None:
    # Terms that are exactly 0 with so few classes (a softmax of one class is 1) are left to the next test.
    terms = {"focal": 1.0, "ali": 1.0, "ce": 1.0} if classes > 1 else {}
    if old > 1:
        terms |= {"kd": 1.0, "ckd": 1.0}
    if old < classes:
        terms |= {"cce": 1.0}
    for dtype in PRECISIONS:
        sequential = old > 1
        inputs = softmax_inputs(classes=classes, old=old, label_size=label_size, sequential=sequential, dtype=dtype)
        if terms:
            softmax_matches(inputs, **terms)


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
@pytest.mark.parametrize(
    ("classes", "old", "term"),
    [(4, 4, "cce"), (3, 1, "kd"), (3, 1, "ckd"), *((1, 1, term) for term in TERMS)],
)
def test_terms_that_vanish(softmax_inputs, softmax_evaluate, needs_kernel, classes, old, term, label_size) -> None:
    # CCE without a new class, KD over one class, CKD with the background alone, anything of one class: 0 by
    # definition, rounding apart.
    for dtype, rounding in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        inputs = softmax_inputs(classes=classes, old=old, label_size=label_size, dtype=dtype)
        result = softmax_evaluate(inputs, backend="cpu", **{term: 1.0})
        assert abs(float(result.total)) <= 10 * rounding
        assert float(result.gradient.abs().max()) <= rounding


@pytest.mark.parametrize("label_size", [(10, 12), (5, 6)])
def test_a_thousand_classes(softmax_inputs, softmax_matches, label_size) -> None:
    inputs = softmax_inputs(batch=1, classes=1024, old=900, size=(5, 6), label_size=label_size)
    softmax_matches(inputs, ce=1.0, ali=3.0, kd=1.0, ckd=1.0, cce=1.0, focal=1.0)


@pytest.mark.parametrize("label_size", [(40, 48), (5, 6)])
@pytest.mark.parametrize("old_classes", [None, 0, 3])
def test_without_a_teacher(softmax_inputs, softmax_matches, old_classes, label_size) -> None:
    for dtype in PRECISIONS:
        inputs = softmax_inputs(size=(5, 6), label_size=label_size, teacher=False, sequential=True, dtype=dtype)
        for terms in ({"ce": 1.0}, {"cce": 1.0}, {"ce": 0.5, "cce": 2.0}):
            softmax_matches(inputs, old_classes=old_classes, **terms)
        if not old_classes:
            softmax_matches(inputs, focal=1.0, ce=1.0, ce_average="valid", old_classes=old_classes)


def test_default_of_old_classes_is_the_teachers_channels(softmax_inputs, softmax_evaluate) -> None:
    inputs = softmax_inputs(sequential=True)
    given = softmax_evaluate(inputs, old_classes=4, ce=1.0, cce=1.0)
    default = softmax_evaluate(inputs, ce=1.0, cce=1.0)
    assert torch.equal(default.total, given.total) and torch.equal(default.gradient, given.gradient)
    assert int(default.terms["pixels_unlabelled"]) > 0


def test_base_step_counts_class_0_as_a_class(softmax_inputs, softmax_evaluate) -> None:
    inputs = softmax_inputs(teacher=False)
    terms = softmax_evaluate(inputs, ce=1.0).terms
    assert int(terms["pixels_unlabelled"]) == int(terms["pixels_old"]) == 0
    assert int(terms["pixels_new"]) == int((inputs.label != 255).sum())


def test_counts_of_pixels(softmax_inputs, softmax_evaluate) -> None:
    inputs = softmax_inputs(sequential=True)
    terms = softmax_evaluate(inputs, ce=1.0).terms
    expected = {
        "unlabelled": inputs.label == 0,
        "old": (inputs.label > 0) & (inputs.label < 4),
        "new": (inputs.label >= 4) & (inputs.label < 7),
        "ignored": inputs.label == 255,
    }
    for name, where in expected.items():
        assert terms[f"pixels_{name}"].dtype == torch.int64
        assert int(terms[f"pixels_{name}"]) == int(where.sum()) > 0


def test_only_terms_asked_for_are_returned_and_detached(softmax_inputs, softmax_evaluate) -> None:
    terms = softmax_evaluate(softmax_inputs(), ali=1.0, ce=1.0, kd=0.0).terms
    assert list(terms) == ["ce", "ali", *(f"pixels_{name}" for name in ("unlabelled", "old", "new", "ignored"))]
    assert not any(value.requires_grad for value in terms.values())
    assert all(value.shape == () for value in terms.values())


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
@pytest.mark.parametrize(
    ("term", "absent"),
    [("ce", "labelled"), ("cce", "valid"), ("kd", "labelled or ignored"), ("ali", "unlabelled"), ("focal", "valid")],
)
@pytest.mark.parametrize("average", AVERAGES)
def test_empty_region(
    softmax_inputs, softmax_evaluate, needs_kernel, term, absent, average, label_size, backend
) -> None:
    value = {"labelled": 0, "valid": 255, "labelled or ignored": 0, "unlabelled": 5}[absent]
    for dtype in PRECISIONS:
        inputs = softmax_inputs(label_size=label_size, dtype=dtype)
        inputs = inputs._replace(label=torch.full_like(inputs.label, value))
        result = softmax_evaluate(inputs, backend=backend, **{term: 1.0, f"{term}_average": average})
        assert float(result.total) == float(result.terms[term]) == 0.0
        assert torch.count_nonzero(result.gradient) == 0


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
def test_all_pixels_ignored(softmax_inputs, softmax_matches, label_size) -> None:
    inputs = softmax_inputs(label_size=label_size)
    inputs = inputs._replace(label=torch.full_like(inputs.label, 255))
    result, _ = softmax_matches(inputs, **dict.fromkeys(TERMS, 1.0))
    assert {name for name in TERMS if float(result.terms[name]) != 0} == {"kd", "ckd"}


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
@pytest.mark.parametrize("ignore_index", [-1, -100, 7, 200, 2**31 - 1, 0, 5])
def test_ignore_index(softmax_inputs, softmax_matches, ignore_index, label_size) -> None:
    inputs = softmax_inputs(label_size=label_size, sequential=True)
    label = torch.where(inputs.label == 255, ignore_index, inputs.label)
    result, _ = softmax_matches(
        inputs._replace(label=label), ignore_index=ignore_index, **dict.fromkeys(TERMS[:5], 1.0)
    )
    assert int(result.terms["pixels_ignored"]) == int((label == ignore_index).sum()) > 0
