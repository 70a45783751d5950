"""`reasoning_scores`: the three scores, their gradients, types and layouts, wrong arguments."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

import ciss_fast

FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (6, 7), (30, 31)])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_values(reasoning_inputs, batch, size, memory_format) -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        inputs = reasoning_inputs(batch=batch, size=size, dtype=dtype, memory_format=memory_format)
        bias = torch.arange(5.0, dtype=dtype)
        positive, negative, logits = ciss_fast.reasoning_scores(inputs.feature, inputs.weight, bias)
        expected = [
            F.conv2d(inputs.feature, part[:, :, None, None])
            for part in (inputs.weight.clamp(min=0), inputs.weight.clamp(max=0))
        ]
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(positive, expected[0], **close)
        torch.testing.assert_close(negative, expected[1], **close)
        torch.testing.assert_close(logits, F.conv2d(inputs.feature, inputs.weight[:, :, None, None], bias), **close)
        assert torch.equal(positive + negative + bias[:, None, None], logits)
        plain = ciss_fast.reasoning_scores(inputs.feature, inputs.weight)[2]
        assert torch.equal(positive + negative, plain)


def test_sign_of_what_speaks_for_and_against(reasoning_inputs) -> None:
    inputs = reasoning_inputs()
    positive, negative, _ = ciss_fast.reasoning_scores(inputs.feature.abs(), inputs.weight)
    assert (positive > 0).all() and (negative < 0).all()


@pytest.mark.parametrize("memory_format", FORMATS)
def test_numerical_gradients(reasoning_inputs, memory_format) -> None:
    inputs = reasoning_inputs(
        channels=3, classes=2, size=(2, 3), dtype=torch.float64, memory_format=memory_format
    )
    bias = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    leaves = (inputs.feature.requires_grad_(), inputs.weight.requires_grad_(), bias)
    assert gradcheck(ciss_fast.reasoning_scores, leaves)
    assert gradgradcheck(ciss_fast.reasoning_scores, leaves)


def test_gradient_of_the_logits_at_a_weight_of_0(reasoning_inputs) -> None:
    # The derivative of w itself, although max and min have none there.
    inputs = reasoning_inputs(dtype=torch.float64)
    weight = torch.zeros_like(inputs.weight).requires_grad_()
    feature = inputs.feature.requires_grad_()
    upstream = torch.randn(2, 5, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(ciss_fast.reasoning_scores(feature, weight)[2], (feature, weight), upstream)
    expected = torch.autograd.grad(F.conv2d(feature, weight[:, :, None, None]), (feature, weight), upstream)
    for gradient, exact in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, exact)


@pytest.mark.parametrize("weight_type", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("feature_type", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_types(reasoning_inputs, feature_type, weight_type) -> None:
    inputs = reasoning_inputs(dtype=torch.bfloat16)
    feature = inputs.feature.to(feature_type).requires_grad_()
    weight = inputs.weight.to(weight_type).requires_grad_()
    bias = torch.ones(5, dtype=weight_type)
    expected = ciss_fast.reasoning_scores(inputs.feature.double(), inputs.weight.double(), bias.double())
    dtype = torch.float64 if feature_type == torch.float64 else torch.float32
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            scores = ciss_fast.reasoning_scores(feature, weight, bias)
        for values, exact in zip(scores, expected, strict=True):
            assert values.dtype == dtype
            torch.testing.assert_close(values.double(), exact, rtol=1e-5, atol=1e-5)
    sum(values.sum() for values in scores).backward()
    assert feature.grad.dtype == feature_type and weight.grad.dtype == weight_type


@pytest.mark.parametrize("memory_format", FORMATS)
def test_compiled(reasoning_inputs, memory_format) -> None:
    torch._dynamo.reset()
    inputs = reasoning_inputs(memory_format=memory_format)
    compiled = torch.compile(ciss_fast.reasoning_scores, backend="aot_eager", fullgraph=True)
    for values, exact in zip(
        compiled(*inputs[:2]), ciss_fast.reasoning_scores(*inputs[:2]), strict=True
    ):
        assert torch.equal(values, exact)
    torch._dynamo.reset()


FEATURE, WEIGHT = torch.zeros(2, 4, 3, 5), torch.zeros(6, 4)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([1.0], WEIGHT), TypeError, "feature: expected a torch.Tensor, got list"),
        ((FEATURE, None), TypeError, "weight: expected a torch.Tensor, got NoneType"),
        ((FEATURE.int(), WEIGHT), TypeError, "feature: expected float32, .* got torch.int32"),
        ((FEATURE, WEIGHT.bool()), TypeError, "weight: expected float32, .* got torch.bool"),
        ((FEATURE[0], WEIGHT), ValueError, r"feature: expected \[B, D, h, w\] with D >= 1, got shape \[4, 3, 5\]"),
        ((FEATURE[:, :0], WEIGHT), ValueError, r"feature: expected .*got shape \[2, 0, 3, 5\]"),
        ((FEATURE, WEIGHT[:, :3]), ValueError, r"weight: expected \[C, D\] .*D = 4 .*got shape \[6, 3\]"),
        ((FEATURE, WEIGHT[:0]), ValueError, r"weight: expected \[C, D\] with C >= 1 .*got shape \[0, 4\]"),
        ((FEATURE, WEIGHT[:, :, None, None]), ValueError, r"weight: .*got shape \[6, 4, 1, 1\]"),
        ((FEATURE, WEIGHT.to("meta")), ValueError, "weight: expected device cpu .*got meta"),
        ((FEATURE, WEIGHT, [0.0]), TypeError, "bias: expected a torch.Tensor, got list"),
        ((FEATURE, WEIGHT, torch.zeros(5)), ValueError, r"bias: expected \[C\] = \[6\], got shape \[5\]"),
        ((FEATURE, WEIGHT, torch.zeros(6, 1)), ValueError, r"bias: expected \[C\] = \[6\], got shape \[6, 1\]"),
        ((FEATURE, WEIGHT, torch.zeros(6).int()), TypeError, "bias: expected float32, .*got torch.int32"),
        ((FEATURE, WEIGHT, torch.zeros(6, device="meta")), ValueError, "bias: expected device cpu .*got meta"),
    ],
)
def test_message(arguments, kind, message) -> None:
    with pytest.raises(kind, match=f"^{message}") as caught:
        ciss_fast.reasoning_scores(*arguments)
    assert "\n" not in str(caught.value)
