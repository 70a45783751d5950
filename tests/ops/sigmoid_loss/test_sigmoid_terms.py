"""The terms, alone and mixed, on enlarged logits, with labels of every kind."""

from __future__ import annotations

import pytest
import torch

TERMS = ("mbce", "kd", "ac")
MIXES = {
    "DKD": {"mbce": 1.0, "kd": 5.0, "ac": 1.0},
    "base step on VOC": {"mbce": 1.0, "ac": 1.0, "pos_weight": 2.0},
    "ADE20K": {"mbce": 1.0, "kd": 5.0, "ac": 1.0, "pos_weight": 35.0},
    "no auxiliary classifier": {"mbce": 0.7, "kd": 3.0},
    "no new class": {"kd": 2.0, "ac": 0.1},
}
PRECISIONS = [torch.float32, torch.float64]
LABEL_SIZES = [(32, 40), (4, 5)]  # enlarged, at label size


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("label_size", LABEL_SIZES)
@pytest.mark.parametrize("term", TERMS)
def test_alone(sigmoid_inputs, sigmoid_matches, term, label_size, align_corners) -> None:
    for dtype in PRECISIONS:
        for sequential in (False, True):
            inputs = sigmoid_inputs(label_size=label_size, sequential=sequential, dtype=dtype)
            sigmoid_matches(inputs, align_corners=align_corners, **{term: 1.0})


@pytest.mark.parametrize("label_size", LABEL_SIZES)
@pytest.mark.parametrize("mix", MIXES)
def test_mixes(sigmoid_inputs, sigmoid_matches, mix, label_size) -> None:
    for dtype in PRECISIONS:
        for sequential in (False, True):
            inputs = sigmoid_inputs(label_size=label_size, sequential=sequential, dtype=dtype)
            sigmoid_matches(inputs, align_corners=sequential, **MIXES[mix])


def label_maps(shape: tuple[int, int, int], old: int, classes: int) -> dict[str, torch.Tensor]:
    """Label maps of one kind each, for ``old`` channels before the new classes'."""
    generator = torch.Generator().manual_seed(2)
    values = torch.tensor([0, 255, *range(1, classes)])
    blobs = torch.full(shape, 0)
    blobs[:, 3:21, 2:33] = old
    blobs[:, 10:30, 20:] = old + 1
    blobs[0, 10:30, 20:23] = 255
    stripes = (torch.arange(shape[2]) % 2 * old).expand(shape).clone()
    last_pixel = torch.zeros(shape, dtype=torch.int64)
    last_pixel[-1, -1, -1] = classes - 1
    return {
        "blobs": blobs,
        "random pixels": values[torch.randint(len(values), shape, generator=generator)],
        "a new class": torch.full(shape, old),
        "the last class": torch.full(shape, classes - 1),
        "unlabelled": torch.full(shape, 0),
        "ignored": torch.full(shape, 255),
        "an old class": torch.full(shape, 1),
        "stripes": stripes,
        "one pixel": last_pixel,
        "a class an image": torch.arange(old, old + shape[0])[:, None, None].expand(shape).clone(),
    }


@pytest.mark.parametrize("pos_weight", [1.0, 2.0, 35.0, 0.5, 1e-3, 1e4])
@pytest.mark.parametrize(("size", "label_size"), [((2, 3), (32, 48)), ((8, 9), (24, 36)), ((6, 7), (6, 7))])
def test_labels(sigmoid_inputs, sigmoid_matches, size, label_size, pos_weight) -> None:
    for dtype in PRECISIONS:
        inputs = sigmoid_inputs(size=size, label_size=label_size, dtype=dtype)
        for label in label_maps((2, *label_size), 4, 7).values():
            for scale in (0.1, 1.0):  # nearly constant and rough logits
                changed = inputs._replace(student=scale * inputs.student, label=label)
                sigmoid_matches(changed, mbce=1.0, pos_weight=pos_weight)


def test_weights_scale_the_total_and_not_the_terms(sigmoid_inputs, sigmoid_evaluate, backend) -> None:
    inputs = sigmoid_inputs(dtype=torch.float64)
    once = sigmoid_evaluate(inputs, backend=backend, **dict.fromkeys(TERMS, 1.0))
    weights = {name: 0.5 + 0.3 * i for i, name in enumerate(TERMS)}
    weighted = sigmoid_evaluate(inputs, backend=backend, **weights)
    for name in TERMS:
        torch.testing.assert_close(weighted.terms[name], once.terms[name], rtol=1e-13, atol=0)
    expected = sum(weights[name] * float(once.terms[name]) for name in TERMS)
    assert float(weighted.total) == pytest.approx(expected, rel=1e-13)


def test_negative_weights(sigmoid_inputs, sigmoid_matches) -> None:
    sigmoid_matches(sigmoid_inputs(), mbce=1.0, kd=-0.5, ac=-2.0)


@pytest.mark.parametrize("label_size", LABEL_SIZES)
@pytest.mark.parametrize("term", TERMS)
def test_channels_of_other_terms_get_no_gradient(sigmoid_inputs, sigmoid_evaluate, backend, term, label_size) -> None:
    channels = {"mbce": range(4, 7), "kd": range(1, 4), "ac": range(1)}[term]
    for dtype in PRECISIONS:
        gradient = sigmoid_evaluate(
            sigmoid_inputs(label_size=label_size, dtype=dtype), backend=backend, **{term: 1.0}
        ).gradient
        for channel in range(7):
            assert bool(gradient[:, channel].any()) == (channel in channels)
            assert not gradient[:, channel].isnan().any()


def test_classes_do_not_depend_on_one_another(sigmoid_inputs, sigmoid_evaluate, backend) -> None:
    inputs = sigmoid_inputs(dtype=torch.float64)
    result = sigmoid_evaluate(inputs, backend=backend, mbce=1.0, kd=5.0, ac=1.0)
    student = inputs.student.clone()
    student[:, 2] -= 20.0
    changed = sigmoid_evaluate(inputs._replace(student=student), backend=backend, mbce=1.0, kd=5.0, ac=1.0)
    others = [0, 1, 3, 4, 5, 6]
    assert torch.equal(changed.gradient[:, others], result.gradient[:, others])
    assert not torch.equal(changed.gradient[:, 2], result.gradient[:, 2])
    assert torch.equal(changed.terms["mbce"], result.terms["mbce"])


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5), (3, 2)])
@pytest.mark.parametrize(
    ("classes", "old"), [(2, 1), (2, 2), (5, 1), (5, 5), (3, 2), (1, 1), (18, 3), (40, 20)], ids=str
)
def test_numbers_of_classes(sigmoid_inputs, sigmoid_matches, classes, old, label_size) -> None:
    # Without an old class, without a new one, with neither; a term without classes is 0.
    for dtype in PRECISIONS:
        inputs = sigmoid_inputs(classes=classes, old=old, label_size=label_size, dtype=dtype)
        label = torch.where(inputs.label < classes, inputs.label, 0)
        inputs = inputs._replace(label=label)
        result, _ = sigmoid_matches(inputs, mbce=1.0, kd=5.0, ac=1.0, pos_weight=2.0)
        assert (float(result.terms["mbce"]) == 0) == (old == classes)
        assert (float(result.terms["kd"]) == 0) == (old == 1)


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
@pytest.mark.parametrize(("classes", "old", "term"), [(4, 4, "mbce"), (4, 1, "kd"), (1, 1, "mbce")])
def test_terms_without_a_class(sigmoid_inputs, sigmoid_evaluate, backend, classes, old, term, label_size) -> None:
    inputs = sigmoid_inputs(classes=classes, old=old, label_size=label_size)
    inputs = inputs._replace(label=torch.zeros_like(inputs.label))
    result = sigmoid_evaluate(inputs, backend=backend, **{term: 1.0})
    assert float(result.total) == float(result.terms[term]) == 0.0
    assert torch.count_nonzero(result.gradient) == 0


@pytest.mark.parametrize("label_size", [(10, 12), (5, 6)])
def test_a_thousand_classes(sigmoid_inputs, sigmoid_matches, label_size) -> None:
    inputs = sigmoid_inputs(batch=1, classes=1024, old=900, size=(5, 6), label_size=label_size)
    sigmoid_matches(inputs, mbce=1.0, kd=5.0, ac=1.0, pos_weight=2.0)


@pytest.mark.parametrize("label_size", [(40, 48), (5, 6)])
@pytest.mark.parametrize("old_classes", [None, 0, 3])
def test_without_a_teacher(sigmoid_inputs, sigmoid_matches, old_classes, label_size) -> None:
    for dtype in PRECISIONS:
        inputs = sigmoid_inputs(size=(5, 6), label_size=label_size, teacher=False, sequential=True, dtype=dtype)
        for terms in ({"mbce": 1.0}, {"ac": 1.0}, {"mbce": 0.5, "ac": 2.0, "pos_weight": 2.0}):
            sigmoid_matches(inputs, old_classes=old_classes, **terms)


def test_default_of_old_classes_is_the_teachers_channels_less_one(sigmoid_inputs, sigmoid_evaluate, backend) -> None:
    inputs = sigmoid_inputs(sequential=True)
    terms = {"mbce": 1.0, "kd": 5.0, "ac": 1.0}
    given = sigmoid_evaluate(inputs, old_classes=3, backend=backend, **terms)
    default = sigmoid_evaluate(inputs, backend=backend, **terms)
    assert torch.equal(default.total, given.total) and torch.equal(default.gradient, given.gradient)
    without = sigmoid_evaluate(inputs._replace(teacher=None), backend=backend, mbce=1.0)  # every class is new
    assert float(without.total) > float(given.terms["mbce"])


def test_a_teacher_that_is_not_read(sigmoid_inputs, sigmoid_evaluate, backend) -> None:
    inputs = sigmoid_inputs()
    expected = sigmoid_evaluate(inputs, backend=backend, mbce=1.0)
    broken = inputs._replace(teacher=inputs.teacher * float("nan"))
    result = sigmoid_evaluate(broken, backend=backend, mbce=1.0)
    assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)


def test_only_terms_asked_for_are_returned_and_detached(sigmoid_inputs, sigmoid_evaluate, backend) -> None:
    terms = sigmoid_evaluate(sigmoid_inputs(), backend=backend, ac=1.0, mbce=2.0, kd=0.0).terms
    assert list(terms) == ["mbce", "ac"]
    assert not any(value.requires_grad for value in terms.values())
    assert all(value.shape == () for value in terms.values())


@pytest.mark.parametrize("label_size", LABEL_SIZES)
@pytest.mark.parametrize("ignore_index", [-1, -100, 7, 200, 2**31 - 1, 0, 5])
def test_ignore_index(sigmoid_inputs, sigmoid_matches, ignore_index, label_size) -> None:
    inputs = sigmoid_inputs(label_size=label_size, sequential=True)
    label = torch.where(inputs.label == 255, ignore_index, inputs.label)
    sigmoid_matches(inputs._replace(label=label), ignore_index=ignore_index, mbce=1.0, pos_weight=35.0)


def test_labels_that_change_nothing(sigmoid_inputs, sigmoid_evaluate, backend) -> None:
    # 0, 255 and old classes are the same to every term.
    inputs = sigmoid_inputs(sequential=True)
    options = {"backend": backend, "mbce": 1.0, "kd": 5.0, "ac": 1.0, "pos_weight": 2.0}
    expected = sigmoid_evaluate(inputs, **options)
    for value in (0, 255, 1, 3):
        label = torch.where((inputs.label < 4) | (inputs.label == 255), value, inputs.label)
        result = sigmoid_evaluate(inputs._replace(label=label), **options)
        assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)
