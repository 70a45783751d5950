"""Losses inside torch.compile: one graph, the same bits."""

from __future__ import annotations

import pytest
import torch


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


def later_step(loss):
    """A step with a teacher, as a function of the tensors."""
    function, options = loss.function, loss.mix
    return lambda student, teacher, label: function(student, teacher, label, **options)


def base_step(loss):
    """A step without one, the loss being part of a larger graph."""
    function, options = loss.function, loss.base

    def step(student, teacher, label):
        total, terms = function(student, None, label, **options)
        return 2 * total + student.square().sum(), terms

    return step


def step_of_weight(loss):
    """A step with a teacher, as a function of the weight of KD besides."""
    function, options = loss.function, loss.mix
    return lambda student, teacher, label, weight: function(student, teacher, label, **{**options, "kd": weight})


@pytest.mark.parametrize("step", [later_step, base_step])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_graph(loss, step, dtype) -> None:
    inputs, function = loss.draw(dtype=dtype), step(loss)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    assert_same(run(compiled, inputs), run(function, inputs))


def test_layout_and_label_size(loss) -> None:
    function = later_step(loss)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    inputs = loss.draw(label_size=(4, 5))
    assert_same(run(compiled, inputs), run(function, inputs))
    inputs = inputs._replace(student=inputs.student.contiguous(memory_format=torch.channels_last))
    assert_same(run(compiled, inputs), run(function, inputs))


@pytest.mark.parametrize("dynamic", [None, True])
def test_changing_sizes(loss, dynamic) -> None:
    function = later_step(loss)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for batch, size, label_size in ((2, (4, 5), (32, 40)), (2, (5, 6), (40, 48)), (3, (6, 7), (45, 49))):
        inputs = loss.draw(batch=batch, size=size, label_size=label_size)
        assert_same(run(compiled, inputs), run(function, inputs))


def test_changing_weights(loss) -> None:
    # A weight that follows a schedule: torch.compile makes it an input of the graph at its second value.
    function = step_of_weight(loss)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    inputs = loss.draw()
    for weight in (3.0, 2.0, 1.5):
        assert_same(run(compiled, inputs, weight), run(function, inputs, weight))


def test_without_gradient(loss) -> None:
    function = later_step(loss)
    inputs = loss.draw()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    student = inputs.student.clone().requires_grad_()
    with torch.no_grad():
        total, _ = compiled(student, inputs.teacher, inputs.label)
    assert not total.requires_grad
    assert torch.equal(total, function(student, inputs.teacher, inputs.label)[0].detach())
    assert_same(run(compiled, inputs), run(function, inputs))  # and with it again


def test_wrong_arguments_are_errors_at_run_time_too(loss) -> None:
    function = later_step(loss)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    inputs = loss.draw()
    compiled(*inputs)
    with pytest.raises(ValueError, match="^label: .* found 9$"):
        compiled(inputs.student, inputs.teacher, torch.full_like(inputs.label, 9))


def test_in_a_network_under_autocast(loss) -> None:
    function = later_step(loss)
    inputs = loss.draw()
    torch.manual_seed(0)
    classifier = torch.nn.Conv2d(8, 7, 1)
    features = torch.randn(2, 8, 4, 5)

    def step(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return function(classifier(x), inputs.teacher, inputs.label)[0]

    step(features).backward()
    expected = classifier.weight.grad.clone()
    classifier.weight.grad = None
    torch.compile(step, backend="aot_eager", fullgraph=True)(features).backward()
    torch.testing.assert_close(classifier.weight.grad, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_inductor(loss) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs, function = loss.draw(dtype=dtype), base_step(loss)
        compiled = torch.compile(function, backend="inductor", fullgraph=True)
        total, terms, gradient = run(compiled, inputs)
        expected_total, expected_terms, expected_gradient = run(function, inputs)
        torch.testing.assert_close(total, expected_total, rtol=1e-5, atol=0)
        assert terms.keys() == expected_terms.keys()
        assert all(torch.equal(terms[name], expected_terms[name]) for name in terms)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-2, atol=1e-5)
