"""`reasoning_loss` inside torch.compile: one graph, the same bits."""

from __future__ import annotations

import pytest
import torch

import ciss_fast

FORMATS = [torch.contiguous_format, torch.channels_last]

pytestmark = pytest.mark.usefixtures("needs_kernel")


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Each test compiles for itself."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def both(feature, weight, feature_old, weight_old):
    return ciss_fast.reasoning_loss(feature, weight, feature_old, weight_old, pos=5.0, neg=3.0)


def some_rows(feature, weight, feature_old, weight_old):
    total, terms = ciss_fast.reasoning_loss(feature, weight[1:], feature_old, weight_old[1:], pos=1.0)
    return 2 * total + feature.float().square().sum(), terms


def weighted(feature, weight, feature_old, weight_old, pos):
    return ciss_fast.reasoning_loss(feature, weight, feature_old, weight_old, pos=pos, neg=1.0)


def run(function, inputs, *arguments):
    """Total, terms and gradients."""
    leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs[:2]]
    total, terms = function(*leaves, *inputs[2:], *arguments)
    total.backward()
    return total.detach(), terms, leaves[0].grad, leaves[1].grad


def assert_same(result, expected) -> None:
    assert torch.equal(result[0], expected[0])
    assert result[1].keys() == expected[1].keys()
    assert all(torch.equal(result[1][name], expected[1][name]) for name in expected[1])
    for gradient, exact in zip(result[2:], expected[2:], strict=True):
        assert torch.equal(gradient, exact) and gradient.stride() == exact.stride()


@pytest.mark.parametrize(
    ("function", "dtype", "memory_format"),
    [
        (both, torch.float32, torch.channels_last),
        (both, torch.bfloat16, torch.contiguous_format),
        (some_rows, torch.bfloat16, torch.channels_last),
    ],
)
def test_one_graph(reasoning_inputs, dtype, function, memory_format) -> None:
    inputs = reasoning_inputs(memory_format=memory_format)
    inputs = inputs._replace(feature=inputs.feature.to(dtype))
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert_same(run(compiled, inputs), run(function, inputs))


@pytest.mark.parametrize("dynamic", [None, True])
def test_changing_sizes(reasoning_inputs, dynamic) -> None:
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for batch, classes, size in ((2, 5, (6, 7)), (2, 5, (7, 9)), (3, 6, (24, 25)), (2, 7, (40, 41))):
        inputs = reasoning_inputs(batch=batch, classes=classes, size=size)
        assert_same(run(compiled, inputs), run(both, inputs))


def test_changing_weights(reasoning_inputs) -> None:
    # A weight that follows a schedule: torch.compile makes it an input of the graph at its second value.
    compiled = torch.compile(weighted, backend="aot_eager", fullgraph=True)
    inputs = reasoning_inputs()
    for weight in (3.0, 2.0, 1.5):
        assert_same(run(compiled, inputs, weight), run(weighted, inputs, weight))


def test_without_gradient(reasoning_inputs) -> None:
    inputs = reasoning_inputs()
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        total, _ = compiled(*inputs)
    assert not total.requires_grad and torch.equal(total, both(*inputs)[0])
    assert_same(run(compiled, inputs), run(both, inputs))  # and with it again


def test_wrong_arguments_are_errors_when_traced(reasoning_inputs) -> None:
    inputs = reasoning_inputs()
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="weight_old: expected C = 5 rows like the weight"):
        compiled(*inputs[:3], inputs.weight_old[:4])


@pytest.mark.slow
def test_inductor(reasoning_inputs) -> None:
    for memory_format in FORMATS:
        inputs = reasoning_inputs(memory_format=memory_format)
        compiled = torch.compile(some_rows, backend="inductor", fullgraph=True)
        result, expected = run(compiled, inputs), run(some_rows, inputs)
        torch.testing.assert_close(result[0], expected[0], rtol=1e-5, atol=0)
        assert torch.equal(result[1]["pos"], expected[1]["pos"])
        for gradient, exact in zip(result[2:], expected[2:], strict=True):
            torch.testing.assert_close(gradient, exact, rtol=1e-5, atol=1e-6)
