"""The definition against the formulas of the paper, and what a user relies on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import ciss_fast

BACKENDS = ["reference", "cpu"]


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    if request.param == "cpu":
        request.getfixturevalue("needs_kernel")
    return request.param


def scores_by_hand(feature, weight):
    """z+ and z- as 1x1 convolutions of the features."""
    return [F.conv2d(feature, part[:, :, None, None]) for part in (weight.clamp(min=0), weight.clamp(max=0))]


@pytest.mark.parametrize("options", [{"pos": 1.0}, {"neg": 1.0}, {"pos": 5.0, "neg": 3.0}, {"pos": -1.0, "neg": 2.0}])
def test_value_and_gradients(reasoning_inputs, reasoning_evaluate, backend, options) -> None:
    inputs = reasoning_inputs(channels_old=6, dtype=torch.float64)
    feature, weight = (x.clone().requires_grad_() for x in inputs[:2])
    terms = []
    for z, z_old in zip(scores_by_hand(feature, weight), scores_by_hand(*inputs[2:]), strict=True):
        values = F.binary_cross_entropy_with_logits(z, z_old.sigmoid(), reduction="none")
        terms.append(values.mean(dim=(0, 2, 3)).sum())
    expected = options.get("pos", 0) * terms[0] + options.get("neg", 0) * terms[1]
    gradients = torch.autograd.grad(expected, (feature, weight))
    result = reasoning_evaluate(inputs, backend=backend, **options)
    torch.testing.assert_close(result.total, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(result.feature, gradients[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.weight, gradients[1], rtol=1e-9, atol=1e-12)
    assert list(result.terms) == list(options)
    for name, value in zip(("pos", "neg"), terms, strict=True):
        if name in options:
            torch.testing.assert_close(result.terms[name], value.detach(), rtol=1e-10, atol=0)


def test_terms_carry_no_gradient(reasoning_inputs, backend) -> None:
    inputs = reasoning_inputs()
    total, terms = ciss_fast.reasoning_loss(
        inputs.feature.requires_grad_(), *inputs[1:], pos=1.0, neg=2.0, backend=backend
    )
    assert total.requires_grad and not any(term.requires_grad for term in terms.values())
    assert float(total.detach()) == pytest.approx(float(terms["pos"] + 2 * terms["neg"]), rel=1e-6)


def test_least_where_student_and_teacher_agree(reasoning_inputs, reasoning_evaluate, backend) -> None:
    inputs = reasoning_inputs(dtype=torch.float64)
    same = inputs._replace(feature_old=inputs.feature, weight_old=inputs.weight)
    result = reasoning_evaluate(same, backend=backend, pos=1.0, neg=1.0)
    assert float(result.feature.abs().max()) < 1e-15 and float(result.weight.abs().max()) < 1e-15
    other = reasoning_evaluate(inputs._replace(feature_old=inputs.feature), backend=backend, pos=1.0, neg=1.0)
    assert float(other.total) > float(result.total) > 0


def test_a_weight_of_0_gets_the_mean_of_both_sides(reasoning_inputs, reasoning_evaluate, backend) -> None:
    inputs = reasoning_inputs(dtype=torch.float64)
    gradients = {}
    for value in (1e-9, 0.0, -0.0, -1e-9):
        weight = inputs.weight.clone()
        weight[1, 2] = value
        gradients[str(value)] = reasoning_evaluate(inputs._replace(weight=weight), backend=backend).weight
    mean = (gradients["1e-09"] + gradients["-1e-09"]) / 2
    assert abs(float(gradients["1e-09"][1, 2] - mean[1, 2])) > 1e-4
    for zero in ("0.0", "-0.0"):
        torch.testing.assert_close(gradients[zero], mean, rtol=0, atol=1e-7)


@pytest.mark.parametrize("term", ["pos", "neg"])
def test_one_term_alone_at_a_weight_of_0(reasoning_inputs, reasoning_evaluate, backend, term) -> None:
    # Half of what it is on the term's own side.
    inputs = reasoning_inputs(dtype=torch.float64)
    side = 1.0 if term == "pos" else -1.0
    gradients = []
    for value in (side * 1e-9, 0.0, -side * 1e-9):
        weight = inputs.weight.clone()
        weight[0, 0] = value
        result = reasoning_evaluate(inputs._replace(weight=weight), backend=backend, **{term: 1.0})
        gradients.append(float(result.weight[0, 0]))
    assert gradients[2] == 0
    assert gradients[1] == pytest.approx(gradients[0] / 2, rel=1e-6)


@pytest.mark.parametrize("shape", [(0, 6, 7), (2, 0, 7), (2, 6, 0), (0, 0, 0)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_without_a_pixel(reasoning_inputs, reasoning_evaluate, backend, shape, memory_format) -> None:
    batch, height, width = shape
    inputs = reasoning_inputs(batch=batch, size=(height, width), memory_format=memory_format)
    result = reasoning_evaluate(inputs, backend=backend)
    assert float(result.total) == 0 and result.terms == {"pos": 0.0, "neg": 0.0}
    assert result.feature.shape == inputs.feature.shape
    assert torch.count_nonzero(result.weight) == 0 and result.weight.shape == inputs.weight.shape


def test_bias_has_no_part(reasoning_inputs) -> None:
    inputs = reasoning_inputs()
    bias = torch.full((5,), 100.0)
    with_bias = ciss_fast.reasoning_scores(inputs.feature, inputs.weight, bias)
    without = ciss_fast.reasoning_scores(inputs.feature, inputs.weight)
    assert torch.equal(with_bias[0], without[0]) and torch.equal(with_bias[1], without[1])
