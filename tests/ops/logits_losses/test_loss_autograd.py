"""Losses as PyTorch operators: incoming gradients, second derivatives, use inside larger graphs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

SIZES = [(9, 13), (4, 5), (3, 2)]  # enlarged, at label size, shrunk


def total_of(loss, inputs, options):
    """Function of the student alone."""

    def total(student: torch.Tensor) -> torch.Tensor:
        return loss.function(student, inputs.teacher, inputs.label, backend="cpu", **options)[0]

    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operator_of_the_backward_pass(dtype) -> None:
    gradient, logits = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5, dtype=dtype)
    torch.library.opcheck(torch.ops.ciss_fast.scale_gradient.default, (gradient, torch.tensor(2.0), logits))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_second_derivative_is_an_error(loss, factor) -> None:
    inputs = loss.draw()
    student = inputs.student.clone().requires_grad_()
    total = factor * total_of(loss, inputs, loss.mix)(student)
    (gradient,) = torch.autograd.grad(total, student, create_graph=True)
    assert gradient.requires_grad  # not a constant that would make a penalty on it vanish
    with pytest.raises(RuntimeError, match=f"^{loss.name}: expected a single backward pass"):
        gradient.square().sum().backward()


def test_backward_with_create_graph_is_an_error_later(loss) -> None:
    inputs = loss.draw()
    student = inputs.student.clone().requires_grad_()
    total = total_of(loss, inputs, loss.mix)(student)
    (gradient,) = torch.autograd.grad(total, student, grad_outputs=torch.tensor(1.0), create_graph=True)
    with pytest.raises(RuntimeError, match="single backward pass"):
        torch.autograd.grad(gradient.sum(), student)


def test_gradients_add_up_over_backward_passes(loss) -> None:
    inputs = loss.draw()
    once = loss.evaluate(inputs, backend="cpu", **loss.mix).gradient
    student = inputs.student.clone().requires_grad_()
    total = total_of(loss, inputs, loss.mix)(student)
    for passes in (1, 2, 3):
        total.backward(retain_graph=True)
        torch.testing.assert_close(student.grad, passes * once, rtol=1e-6, atol=0)
    student.grad.zero_()
    total.backward(retain_graph=True)
    assert torch.equal(student.grad, once)
    student.grad = None
    total.backward()
    assert torch.equal(student.grad, once)


@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_a_gradient_changed_in_place_does_not_come_back(loss, factor) -> None:
    # As gradient clipping might do. For an incoming gradient of 1 the one made in the forward pass is handed out
    # without a copy: a second pass through the same graph is then an error of PyTorch's, never a wrong number.
    inputs = loss.draw()
    once = factor * loss.evaluate(inputs, backend="cpu", **loss.mix).gradient
    student = inputs.student.clone().requires_grad_()
    total = total_of(loss, inputs, loss.mix)(student)
    (gradient,) = torch.autograd.grad(total, student, torch.tensor(factor), retain_graph=True)
    assert torch.equal(gradient, once)
    gradient.mul_(0)
    try:
        (gradient,) = torch.autograd.grad(total, student, torch.tensor(factor))
    except RuntimeError as error:
        assert factor == 1 and "modified by an inplace operation" in str(error)
    else:
        assert torch.equal(gradient, once)


def test_student_used_twice(loss) -> None:
    first, second = loss.draw(seed=1), loss.draw(seed=2, label_size=(9, 13))
    second = second._replace(student=first.student, teacher=first.teacher)
    student = first.student.clone().requires_grad_()
    totals = total_of(loss, first, loss.mix)(student), total_of(loss, second, loss.base)(student)
    (totals[0] + 0.5 * totals[1] + student.sum()).backward()
    expected = loss.evaluate(first, backend="cpu", **loss.mix).gradient + 1
    expected += 0.5 * loss.evaluate(second, backend="cpu", **loss.base).gradient
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_behind_a_classifier(loss, memory_format) -> None:
    inputs = loss.draw(dtype=torch.float64)
    torch.manual_seed(0)
    classifier = torch.nn.Conv2d(8, 7, 1).double().to(memory_format=memory_format)
    features = torch.randn(2, 8, 4, 5, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    logits = classifier(features)
    loss.function(logits, inputs.teacher, inputs.label, backend="cpu", **loss.mix)[0].backward()
    gradient = loss.define(inputs._replace(student=logits.detach()), **loss.mix).gradient
    torch.testing.assert_close(classifier.bias.grad, gradient.sum((0, 2, 3)))
    torch.testing.assert_close(features.grad, torch.einsum("bchw,cdxy->bdhw", gradient, classifier.weight.detach()))


def test_part_of_the_channels(loss) -> None:
    # A student that is a view: its gradient lands in the right channels of the whole.
    inputs = loss.draw()
    whole = torch.cat([torch.zeros(2, 3, 4, 5), inputs.student], dim=1).requires_grad_()
    total_of(loss, inputs, loss.mix)(whole[:, 3:]).backward()
    assert torch.count_nonzero(whole.grad[:, :3]) == 0
    assert torch.equal(whole.grad[:, 3:], loss.evaluate(inputs, backend="cpu", **loss.mix).gradient)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputed_in_the_backward_pass(loss, use_reentrant) -> None:
    inputs = loss.draw()
    student = inputs.student.clone().requires_grad_()
    checkpoint(lambda x: total_of(loss, inputs, loss.mix)(x * 1.0), student, use_reentrant=use_reentrant).backward()
    assert torch.equal(student.grad, loss.evaluate(inputs, backend="cpu", **loss.mix).gradient)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_teacher_gets_no_gradient(loss, backend) -> None:
    inputs = loss.draw()
    student, teacher = inputs.student.clone().requires_grad_(), inputs.teacher.clone().requires_grad_()
    total, _ = loss.function(student, teacher, inputs.label, backend=backend, **loss.everything)
    total.backward()
    assert teacher.grad is None and student.grad is not None
    # With a student that needs none, nothing does.
    total, _ = loss.function(inputs.student, teacher, inputs.label, backend=backend, **loss.everything)
    assert not total.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradient(loss, mode) -> None:
    for label_size in SIZES:
        inputs = loss.draw(label_size=label_size)
        expected = loss.evaluate(inputs, backend="cpu", **loss.everything)
        student = inputs.student.clone().requires_grad_()
        with mode():
            total, terms = loss.function(student, inputs.teacher, inputs.label, backend="cpu", **loss.everything)
        assert not total.requires_grad
        assert torch.equal(total, expected.total)
        assert all(torch.equal(terms[name], expected.terms[name]) for name in expected.terms)


def test_logits_made_in_inference_mode(loss) -> None:
    inputs = loss.draw()
    with torch.inference_mode():
        teacher = inputs.teacher * 1.0
    result = loss.evaluate(inputs._replace(teacher=teacher), backend="cpu", **loss.mix)
    assert torch.equal(result.gradient, loss.evaluate(inputs, backend="cpu", **loss.mix).gradient)


def test_undefined_incoming_gradient(loss) -> None:
    # Only another output of the same graph is used: the op is reached with no gradient, or not at all.
    inputs = loss.draw()
    student = inputs.student.clone().requires_grad_()
    total = total_of(loss, inputs, loss.mix)(student)
    (total * 0 + student.sum()).backward()
    assert torch.equal(student.grad, torch.ones_like(student))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_changes_nothing(loss, dtype) -> None:
    # Neither are float32 logits rounded to bfloat16, nor is the loss.
    for label_size in SIZES:
        inputs = loss.draw(label_size=label_size, dtype=dtype)
        expected = loss.evaluate(inputs, backend="cpu", **loss.everything)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = loss.evaluate(inputs, backend="cpu", **loss.everything)
        assert result.total.dtype == torch.float32 and result.gradient.dtype == dtype
        assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)


def test_autocast_through_a_network(loss) -> None:
    inputs = loss.draw()
    torch.manual_seed(0)
    classifier = torch.nn.Conv2d(8, 7, 1)
    features = torch.randn(2, 8, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = classifier(features)
        assert logits.dtype == torch.bfloat16
        total, _ = loss.function(logits, inputs.teacher, inputs.label, backend="cpu", **loss.mix)
    assert total.dtype == torch.float32
    total.backward()
    assert classifier.weight.grad.dtype == torch.float32 and classifier.weight.grad.abs().sum() > 0


def test_loss_scaler(loss) -> None:
    # What torch.amp's scaler sends: a large incoming gradient; and it finds NaN where the logits overflowed.
    inputs = loss.draw(dtype=torch.float16)
    scaled = loss.evaluate(inputs, backend="cpu", upstream=2.0**14, **loss.mix).gradient
    plain = loss.evaluate(
        inputs._replace(student=inputs.student.float(), teacher=inputs.teacher.float()), backend="cpu", **loss.mix
    ).gradient
    torch.testing.assert_close(scaled.float() / 2**14, plain, rtol=1e-3, atol=2**-38)
    student = inputs.student.clone()
    student[0, 0, 0, 0] = float("inf")
    assert loss.evaluate(inputs._replace(student=student), backend="cpu", **loss.mix).gradient.isnan().any()
