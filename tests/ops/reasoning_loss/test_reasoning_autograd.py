"""`reasoning_loss` as a PyTorch operator: registration, gradients, second derivatives, use inside larger graphs."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

import ciss_fast

BOTH = {"pos": 5.0, "neg": 3.0}
SIZES = {"small": (3, (6, 7)), "large": (2, (40, 41))}
FORMATS = [torch.contiguous_format, torch.channels_last]

pytestmark = pytest.mark.usefixtures("needs_kernel")


def loss_of(inputs, options):
    """Function of feature and weight."""

    def loss(feature: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return ciss_fast.reasoning_loss(feature, weight, *inputs[2:], backend="cpu", **options)[0]

    return loss


def leaves_of(inputs) -> list[torch.Tensor]:
    return [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs[:2]]


ARGUMENTS = {  # of the inputs, weights, gradients of feature and weight
    "both": ({}, [1.0, 2.0], True, True),
    "channels last, pos": ({"memory_format": torch.channels_last}, [1.0, 0.0], True, True),
    "feature alone, neg": ({}, [0.0, 1.0], True, False),
    "weight alone": ({"memory_format": torch.channels_last}, [1.0, 1.0], False, True),
    "no gradient": ({}, [1.0, 1.0], False, False),
    "bfloat16": ({"dtype": torch.bfloat16, "size": (24, 25)}, [1.0, 1.0], True, True),
    "float64": ({"dtype": torch.float64}, [1.0, 1.0], True, True),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_operator(reasoning_inputs, case) -> None:
    options, weights, feature_gradient, weight_gradient = ARGUMENTS[case]
    inputs = reasoning_inputs(channels_old=3, **options)
    arguments = (
        inputs.feature.detach().requires_grad_(feature_gradient),
        inputs.weight.detach().requires_grad_(weight_gradient),
        *(inputs.feature_old, inputs.weight_old, weights, feature_gradient, weight_gradient),
    )
    torch.library.opcheck(torch.ops.ciss_fast.reasoning_loss.default, arguments)


def test_operator_without_a_pixel(reasoning_inputs) -> None:
    inputs = reasoning_inputs(batch=0)
    arguments = (*leaves_of(inputs), *inputs[2:], [1.0, 1.0], True, True)
    torch.library.opcheck(torch.ops.ciss_fast.reasoning_loss.default, arguments)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("options", [BOTH, {"pos": 1.0}, {"neg": 1.0}], ids=["both", "pos", "neg"])
def test_numerical_gradients(reasoning_inputs, options, memory_format) -> None:
    for batch, size in ((1, (2, 3)), (3, (1, 1)), (1, (1, 600))):
        inputs = reasoning_inputs(
            batch=batch, channels=2, classes=2, size=size, dtype=torch.float64, memory_format=memory_format
        )
        inputs = inputs._replace(feature_old=inputs.feature_old.float(), weight_old=inputs.weight_old.float())
        fast = {"fast_mode": size[1] > 10, "check_batched_grad": False}
        assert gradcheck(loss_of(inputs, options), leaves_of(inputs), **fast)


def test_only_the_gradients_asked_for(reasoning_inputs, reasoning_evaluate) -> None:
    for batch, size in SIZES.values():
        inputs = reasoning_inputs(batch=batch, size=size)
        both = reasoning_evaluate(inputs, backend="cpu", **BOTH)
        feature, weight = leaves_of(inputs)
        loss = loss_of(inputs, BOTH)
        assert torch.equal(torch.autograd.grad(loss(feature, weight.detach()), feature)[0], both.feature)
        assert torch.equal(torch.autograd.grad(loss(feature.detach(), weight), weight)[0], both.weight)
        assert not loss(feature.detach(), weight.detach()).requires_grad
        # Both could be had, one is taken.
        assert torch.equal(torch.autograd.grad(loss(feature, weight), weight)[0], both.weight)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_second_derivative_is_an_error(reasoning_inputs, factor) -> None:
    inputs = reasoning_inputs()
    leaves = leaves_of(inputs)
    gradients = torch.autograd.grad(factor * loss_of(inputs, BOTH)(*leaves), leaves, create_graph=True)
    for gradient in gradients:
        assert gradient.requires_grad  # not a constant that would make a penalty on it vanish
        with pytest.raises(RuntimeError, match="^reasoning_loss: expected a single backward pass"):
            gradient.square().sum().backward(retain_graph=True)


def test_gradients_add_up_over_backward_passes(reasoning_inputs, reasoning_evaluate) -> None:
    inputs = reasoning_inputs()
    once = reasoning_evaluate(inputs, backend="cpu", **BOTH)
    feature, weight = leaves_of(inputs)
    total = loss_of(inputs, BOTH)(feature, weight)
    for passes in (1, 2, 3):
        total.backward(retain_graph=True)
        torch.testing.assert_close(feature.grad, passes * once.feature, rtol=1e-6, atol=0)
        torch.testing.assert_close(weight.grad, passes * once.weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_a_gradient_changed_in_place_does_not_come_back(reasoning_inputs, reasoning_evaluate, factor) -> None:
    inputs = reasoning_inputs()
    once = factor * reasoning_evaluate(inputs, backend="cpu", **BOTH).feature
    feature, weight = leaves_of(inputs)
    total = factor * loss_of(inputs, BOTH)(feature, weight)
    (gradient,) = torch.autograd.grad(total, feature, retain_graph=True)
    assert torch.equal(gradient, once)
    gradient.zero_()
    try:
        (again,) = torch.autograd.grad(total, feature)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:
        assert torch.equal(again, once)


def test_two_losses_of_the_same_features(reasoning_inputs, reasoning_evaluate) -> None:
    first, second = reasoning_inputs(seed=1), reasoning_inputs(seed=2)
    second = second._replace(feature=first.feature, weight=first.weight)
    feature, weight = leaves_of(first)
    (loss_of(first, BOTH)(feature, weight) + 0.5 * loss_of(second, {"pos": 1.0})(feature, weight)).backward()
    results = reasoning_evaluate(first, backend="cpu", **BOTH), reasoning_evaluate(second, backend="cpu", pos=1.0)
    torch.testing.assert_close(feature.grad, results[0].feature + 0.5 * results[1].feature)
    torch.testing.assert_close(weight.grad, results[0].weight + 0.5 * results[1].weight)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_some_classes_of_a_network(reasoning_inputs, reasoning_define, memory_format) -> None:
    # As DKD has it: features from a layer, the old classes' rows of a larger classifier.
    inputs = reasoning_inputs(dtype=torch.float64)
    torch.manual_seed(0)
    head = torch.nn.Conv2d(4, 8, 1).double().to(memory_format=memory_format)
    classifier = torch.nn.Conv2d(8, 9, 1).double().to(memory_format=memory_format)
    images = torch.randn(2, 4, 6, 7, dtype=torch.float64).to(memory_format=memory_format)
    features = head(images)
    ciss_fast.reasoning_loss(
        features, classifier.weight.flatten(1)[2:7], *inputs[2:], pos=5.0, neg=3.0, backend="cpu"
    )[0].backward()
    rows = classifier.weight.detach().flatten(1)[2:7]
    expected = reasoning_define(inputs._replace(feature=features.detach(), weight=rows), **BOTH)
    torch.testing.assert_close(classifier.weight.grad.flatten(1)[2:7], expected.weight)
    assert torch.count_nonzero(classifier.weight.grad.flatten(1)[[0, 1, 7, 8]]) == 0
    assert classifier.bias.grad is None
    torch.testing.assert_close(head.bias.grad, expected.feature.sum((0, 2, 3)))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputed_in_the_backward_pass(reasoning_inputs, reasoning_evaluate, use_reentrant) -> None:
    inputs = reasoning_inputs()
    leaves = leaves_of(inputs)
    loss = loss_of(inputs, BOTH)
    checkpoint(lambda x, w: loss(x * 1.0, w * 1.0), *leaves, use_reentrant=use_reentrant).backward()
    expected = reasoning_evaluate(inputs, backend="cpu", **BOTH)
    assert torch.equal(leaves[0].grad, expected.feature) and torch.equal(leaves[1].grad, expected.weight)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_teacher_gets_no_gradient(reasoning_inputs, backend) -> None:
    inputs = reasoning_inputs()
    old = [x.clone().requires_grad_() for x in inputs[2:]]
    leaves = leaves_of(inputs)
    ciss_fast.reasoning_loss(*leaves, *old, backend=backend, **BOTH)[0].backward()
    assert all(x.grad is None for x in old) and all(x.grad is not None for x in leaves)
    # With a student that needs none, nothing does.
    assert not ciss_fast.reasoning_loss(*inputs[:2], *old, backend=backend, **BOTH)[0].requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradient(reasoning_inputs, reasoning_evaluate, mode) -> None:
    for batch, size in SIZES.values():
        inputs = reasoning_inputs(batch=batch, size=size)
        expected = reasoning_evaluate(inputs, backend="cpu", **BOTH)
        leaves = leaves_of(inputs)
        with mode():
            total, terms = ciss_fast.reasoning_loss(*leaves, *inputs[2:], backend="cpu", **BOTH)
        assert not total.requires_grad and torch.equal(total, expected.total)
        assert all(torch.equal(terms[name], expected.terms[name]) for name in expected.terms)


def test_teacher_made_in_inference_mode(reasoning_inputs, reasoning_evaluate) -> None:
    inputs = reasoning_inputs()
    with torch.inference_mode():
        old = [x * 1.0 for x in inputs[2:]]
    result = reasoning_evaluate(type(inputs)(*inputs[:2], *old), backend="cpu", **BOTH)
    assert torch.equal(result.feature, reasoning_evaluate(inputs, backend="cpu", **BOTH).feature)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_changes_nothing(reasoning_inputs, reasoning_evaluate, dtype, memory_format) -> None:
    for batch, size in SIZES.values():
        inputs = reasoning_inputs(batch=batch, size=size, memory_format=memory_format)
        inputs = inputs._replace(feature=inputs.feature.to(dtype))
        expected = reasoning_evaluate(inputs, backend="cpu", **BOTH)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = reasoning_evaluate(inputs, backend="cpu", **BOTH)
            reference, _ = ciss_fast.reasoning_loss(*inputs, backend="reference", **BOTH)
        assert result.total.dtype == reference.dtype == torch.float32
        assert result.feature.dtype == dtype and result.weight.dtype == torch.float32
        for name in ("total", "feature", "weight"):
            assert torch.equal(getattr(result, name), getattr(expected, name)), name
        assert torch.equal(reference, ciss_fast.reasoning_loss(*inputs, backend="reference", **BOTH)[0])


def test_loss_scaler(reasoning_inputs, reasoning_evaluate) -> None:
    # What torch.amp's scaler sends: a large incoming gradient; and it finds NaN where the features overflowed.
    inputs = reasoning_inputs(dtype=torch.float16)
    scaled = reasoning_evaluate(inputs, backend="cpu", upstream=2.0**14, pos=0.01).feature
    plain = reasoning_evaluate(inputs.to(torch.float32), backend="cpu", pos=0.01).feature
    torch.testing.assert_close(scaled.float() / 2**14, plain, rtol=1e-3, atol=2**-38)
    feature = inputs.feature.clone()
    feature[0, 0, 0, 0] = float("inf")
    assert reasoning_evaluate(inputs._replace(feature=feature), backend="cpu").feature.isnan().any()
