"""`softmax_loss` inside torch.compile: one graph, the same bits."""

from __future__ import annotations

import pytest
import torch

import ciss_fast

ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}

pytestmark = pytest.mark.usefixtures("needs_kernel")


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Each test compiles for itself."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def run(function, inputs, *arguments):
    """Total, terms and gradient of a function of student, teacher, label and further arguments."""
    student = inputs.student.clone(memory_format=torch.preserve_format).requires_grad_()
    total, terms = function(student, inputs.teacher, inputs.label, *arguments)
    total.backward()
    return total.detach(), terms, student.grad


def assert_same(result, expected) -> None:
    assert torch.equal(result[0], expected[0])
    assert result[1].keys() == expected[1].keys()
    assert all(torch.equal(result[1][name], expected[1][name]) for name in expected[1])
    assert torch.equal(result[2], expected[2]) and result[2].stride() == expected[2].stride()


def alife(student, teacher, label):
    return ciss_fast.softmax_loss(student, teacher, label, **ALIFE)


def base_step(student, teacher, label):
    total, terms = ciss_fast.softmax_loss(student, None, label, ce=1.0, ce_average="valid")
    return 2 * total + student.square().sum(), terms


def alife_of_weights(student, teacher, label, weight):
    return ciss_fast.softmax_loss(student, teacher, label, ce=1.0, ali=weight, kd=1.0)


@pytest.mark.parametrize("function", [alife, base_step])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_graph(softmax_inputs, function, dtype) -> None:
    inputs = softmax_inputs(dtype=dtype)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert_same(run(compiled, inputs), run(function, inputs))


def test_layout_and_label_size(softmax_inputs) -> None:
    compiled = torch.compile(alife, backend="aot_eager", fullgraph=True)
    inputs = softmax_inputs(label_size=(4, 5))
    assert_same(run(compiled, inputs), run(alife, inputs))
    inputs = inputs._replace(student=inputs.student.contiguous(memory_format=torch.channels_last))
    assert_same(run(compiled, inputs), run(alife, inputs))


@pytest.mark.parametrize("dynamic", [None, True])
def test_changing_sizes(softmax_inputs, dynamic) -> None:
    compiled = torch.compile(alife, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for batch, size, label_size in ((2, (4, 5), (32, 40)), (2, (5, 6), (40, 48)), (3, (6, 7), (45, 49))):
        inputs = softmax_inputs(batch=batch, size=size, label_size=label_size)
        assert_same(run(compiled, inputs), run(alife, inputs))


def test_changing_weights(softmax_inputs) -> None:
    # A weight that follows a schedule: torch.compile makes it an input of the graph at its second value.
    compiled = torch.compile(alife_of_weights, backend="aot_eager", fullgraph=True)
    inputs = softmax_inputs()
    for weight in (3.0, 2.0, 1.5):
        assert_same(run(compiled, inputs, weight), run(alife_of_weights, inputs, weight))


def test_without_gradient(softmax_inputs) -> None:
    inputs = softmax_inputs()
    compiled = torch.compile(alife, backend="aot_eager", fullgraph=True)
    student = inputs.student.clone().requires_grad_()
    with torch.no_grad():
        total, _ = compiled(student, inputs.teacher, inputs.label)
    assert not total.requires_grad
    assert torch.equal(total, alife(student, inputs.teacher, inputs.label)[0].detach())
    assert_same(run(compiled, inputs), run(alife, inputs))  # and with it again


def test_wrong_arguments_are_errors_at_run_time_too(softmax_inputs) -> None:
    compiled = torch.compile(alife, backend="aot_eager", fullgraph=True)
    inputs = softmax_inputs()
    compiled(*inputs)
    with pytest.raises(ValueError, match="^label: .* found 9$"):
        compiled(inputs.student, inputs.teacher, torch.full_like(inputs.label, 9))


def test_in_a_network_under_autocast(softmax_inputs) -> None:
    inputs = softmax_inputs()
    torch.manual_seed(0)
    classifier = torch.nn.Conv2d(8, 7, 1)
    features = torch.randn(2, 8, 4, 5)

    def step(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return ciss_fast.softmax_loss(classifier(x), inputs.teacher, inputs.label, **ALIFE)[0]

    step(features).backward()
    expected = classifier.weight.grad.clone()
    classifier.weight.grad = None
    torch.compile(step, backend="aot_eager", fullgraph=True)(features).backward()
    torch.testing.assert_close(classifier.weight.grad, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_inductor(softmax_inputs) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs = softmax_inputs(dtype=dtype)
        compiled = torch.compile(base_step, backend="inductor", fullgraph=True)
        total, terms, gradient = run(compiled, inputs)
        expected_total, expected_terms, expected_gradient = run(base_step, inputs)
        torch.testing.assert_close(total, expected_total, rtol=1e-5, atol=0)
        assert torch.equal(terms["ce"], expected_terms["ce"])
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-2, atol=1e-5)
