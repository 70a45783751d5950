"""`softmax_loss` as a PyTorch operator: registration, gradients, second derivatives, use inside larger graphs."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

import ciss_fast

ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}
MIB = {"cce": 1.0, "ckd": 10.0}
EVERYTHING = dict.fromkeys(("ce", "cce", "kd", "ckd", "ali", "focal"), 1.0)
SIZES = [(9, 13), (4, 5), (3, 2)]  # enlarged, at label size, shrunk

pytestmark = pytest.mark.usefixtures("needs_kernel")


def loss_of(inputs, options):
    """Function of the student alone."""

    def loss(student: torch.Tensor) -> torch.Tensor:
        return ciss_fast.softmax_loss(student, inputs.teacher, inputs.label, backend="cpu", **options)[0]

    return loss


ARGUMENTS = {  # changes to the arguments of the operator below the public function
    "ALIFE": {},
    "everything": {"weights": [1.0, 0.5, 2.0, 3.0, 0.7, 1.5]},
    "no teacher": {"teacher": None, "weights": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]},
    "base step": {"teacher": None, "old_classes": 0, "weights": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
    "channels last": {"memory_format": torch.channels_last},
    "at label size": {"label_size": (4, 5)},
    "aligned corners, other averages": {"align_corners": True, "averages": [1, 2, 0, 1, 0, 2]},
    "no gradient": {"need_gradient": False},
    "labels not checked": {"check_labels": False, "label_type": torch.uint8},
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_operator(softmax_inputs, case) -> None:
    changes = dict(ARGUMENTS[case])
    inputs = softmax_inputs(label_size=changes.get("label_size", (9, 13)), dtype=changes.get("dtype", torch.float32))
    student = inputs.student.contiguous(memory_format=changes.get("memory_format", torch.contiguous_format))
    need_gradient = changes.get("need_gradient", True)
    arguments = (
        student.detach().requires_grad_(need_gradient),
        changes.get("teacher", inputs.teacher),
        inputs.label.to(changes.get("label_type", torch.int64)),
        changes.get("old_classes", 4),
        changes.get("weights", [1.0, 0.0, 1.0, 0.0, 3.0, 0.0]),
        changes.get("averages", [0, 1, 2, 0, 2, 0]),
        14,
        1.0,
        255,
        changes.get("align_corners", False),
        changes.get("check_labels", True),
        need_gradient,
    )
    torch.library.opcheck(torch.ops.ciss_fast.softmax_loss.default, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operator_of_the_backward_pass(dtype) -> None:
    gradient, logits = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5, dtype=dtype)
    torch.library.opcheck(torch.ops.ciss_fast.scale_gradient.default, (gradient, torch.tensor(2.0), logits))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("label_size", [(7, 8), (2, 3), (3, 2)])
@pytest.mark.parametrize("options", [ALIFE, MIB, EVERYTHING], ids=["ALIFE", "MiB", "everything"])
def test_numerical_gradient(softmax_inputs, options, label_size, align_corners) -> None:
    inputs = softmax_inputs(
        batch=1, classes=4, old=2, size=(2, 3), label_size=label_size, scale=1.0, sequential=True, dtype=torch.float64
    )
    loss = loss_of(inputs, options | {"align_corners": align_corners})
    assert gradcheck(loss, inputs.student.clone().requires_grad_(), check_batched_grad=False)


def test_numerical_gradient_without_a_teacher(softmax_inputs) -> None:
    inputs = softmax_inputs(
        batch=1, classes=3, size=(2, 3), label_size=(7, 8), teacher=False, scale=1.0, dtype=torch.float64
    )
    for options in ({"ce": 1.0}, {"cce": 1.0, "old_classes": 2}, {"focal": 1.0}):
        label = inputs.label.clamp(max=2).where(inputs.label != 255, torch.tensor(255))
        loss = loss_of(inputs._replace(label=label), options)
        assert gradcheck(loss, inputs.student.clone().requires_grad_(), check_batched_grad=False)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_second_derivative_is_an_error(softmax_inputs, factor) -> None:
    inputs = softmax_inputs()
    student = inputs.student.clone().requires_grad_()
    total = factor * loss_of(inputs, ALIFE)(student)
    (gradient,) = torch.autograd.grad(total, student, create_graph=True)
    assert gradient.requires_grad  # not a constant that would make a penalty on it vanish
    with pytest.raises(RuntimeError, match="^softmax_loss: expected a single backward pass"):
        gradient.square().sum().backward()


def test_backward_with_create_graph_is_an_error_later(softmax_inputs) -> None:
    inputs = softmax_inputs()
    student = inputs.student.clone().requires_grad_()
    total = loss_of(inputs, ALIFE)(student)
    (gradient,) = torch.autograd.grad(total, student, grad_outputs=torch.tensor(1.0), create_graph=True)
    with pytest.raises(RuntimeError, match="single backward pass"):
        torch.autograd.grad(gradient.sum(), student)


def test_gradients_add_up_over_backward_passes(softmax_inputs, softmax_evaluate) -> None:
    inputs = softmax_inputs()
    once = softmax_evaluate(inputs, backend="cpu", **ALIFE).gradient
    student = inputs.student.clone().requires_grad_()
    total = loss_of(inputs, ALIFE)(student)
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
def test_a_gradient_changed_in_place_does_not_come_back(softmax_inputs, softmax_evaluate, factor) -> None:
    # As gradient clipping might do. For an incoming gradient of 1 the one made in the forward pass is handed out
    # without a copy: a second pass through the same graph is then an error of PyTorch's, never a wrong number.
    inputs = softmax_inputs()
    once = factor * softmax_evaluate(inputs, backend="cpu", **ALIFE).gradient
    student = inputs.student.clone().requires_grad_()
    total = loss_of(inputs, ALIFE)(student)
    (gradient,) = torch.autograd.grad(total, student, torch.tensor(factor), retain_graph=True)
    assert torch.equal(gradient, once)
    gradient.mul_(0)
    try:
        (gradient,) = torch.autograd.grad(total, student, torch.tensor(factor))
    except RuntimeError as error:
        assert factor == 1 and "modified by an inplace operation" in str(error)
    else:
        assert torch.equal(gradient, once)


def test_student_used_twice(softmax_inputs, softmax_evaluate) -> None:
    first, second = softmax_inputs(seed=1), softmax_inputs(seed=2, label_size=(9, 13))
    second = second._replace(student=first.student, teacher=first.teacher)
    student = first.student.clone().requires_grad_()
    (loss_of(first, ALIFE)(student) + 0.5 * loss_of(second, MIB)(student) + student.sum()).backward()
    expected = softmax_evaluate(first, backend="cpu", **ALIFE).gradient + 1
    expected += 0.5 * softmax_evaluate(second, backend="cpu", **MIB).gradient
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_behind_a_classifier(softmax_inputs, softmax_define, memory_format) -> None:
    inputs = softmax_inputs(dtype=torch.float64)
    torch.manual_seed(0)
    classifier = torch.nn.Conv2d(8, 7, 1).double().to(memory_format=memory_format)
    features = torch.randn(2, 8, 4, 5, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    logits = classifier(features)
    ciss_fast.softmax_loss(logits, inputs.teacher, inputs.label, backend="cpu", **ALIFE)[0].backward()
    gradient = softmax_define(inputs._replace(student=logits.detach()), **ALIFE).gradient
    torch.testing.assert_close(classifier.bias.grad, gradient.sum((0, 2, 3)))
    torch.testing.assert_close(features.grad, torch.einsum("bchw,cdxy->bdhw", gradient, classifier.weight.detach()))


def test_part_of_the_channels(softmax_inputs, softmax_evaluate) -> None:
    # A student that is a view: its gradient lands in the right channels of the whole.
    inputs = softmax_inputs()
    whole = torch.cat([torch.zeros(2, 3, 4, 5), inputs.student], dim=1).requires_grad_()
    loss_of(inputs, ALIFE)(whole[:, 3:]).backward()
    assert torch.count_nonzero(whole.grad[:, :3]) == 0
    assert torch.equal(whole.grad[:, 3:], softmax_evaluate(inputs, backend="cpu", **ALIFE).gradient)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputed_in_the_backward_pass(softmax_inputs, softmax_evaluate, use_reentrant) -> None:
    inputs = softmax_inputs()
    student = inputs.student.clone().requires_grad_()
    checkpoint(lambda x: loss_of(inputs, ALIFE)(x * 1.0), student, use_reentrant=use_reentrant).backward()
    assert torch.equal(student.grad, softmax_evaluate(inputs, backend="cpu", **ALIFE).gradient)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_teacher_gets_no_gradient(softmax_inputs, backend) -> None:
    inputs = softmax_inputs()
    student, teacher = inputs.student.clone().requires_grad_(), inputs.teacher.clone().requires_grad_()
    total, _ = ciss_fast.softmax_loss(student, teacher, inputs.label, backend=backend, **EVERYTHING)
    total.backward()
    assert teacher.grad is None and student.grad is not None
    # With a student that needs none, nothing does.
    total, _ = ciss_fast.softmax_loss(inputs.student, teacher, inputs.label, backend=backend, **EVERYTHING)
    assert not total.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradient(softmax_inputs, softmax_evaluate, mode) -> None:
    for label_size in SIZES:
        inputs = softmax_inputs(label_size=label_size)
        expected = softmax_evaluate(inputs, backend="cpu", **EVERYTHING)
        student = inputs.student.clone().requires_grad_()
        with mode():
            total, terms = ciss_fast.softmax_loss(student, inputs.teacher, inputs.label, backend="cpu", **EVERYTHING)
        assert not total.requires_grad
        assert torch.equal(total, expected.total)
        assert all(torch.equal(terms[name], expected.terms[name]) for name in expected.terms)


def test_logits_made_in_inference_mode(softmax_inputs, softmax_evaluate) -> None:
    inputs = softmax_inputs()
    with torch.inference_mode():
        teacher = inputs.teacher * 1.0
    result = softmax_evaluate(inputs._replace(teacher=teacher), backend="cpu", **ALIFE)
    assert torch.equal(result.gradient, softmax_evaluate(inputs, backend="cpu", **ALIFE).gradient)


def test_undefined_incoming_gradient(softmax_inputs) -> None:
    # Only another output of the same graph is used: the op is reached with no gradient, or not at all.
    inputs = softmax_inputs()
    student = inputs.student.clone().requires_grad_()
    total = loss_of(inputs, ALIFE)(student)
    (total * 0 + student.sum()).backward()
    assert torch.equal(student.grad, torch.ones_like(student))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_changes_nothing(softmax_inputs, softmax_evaluate, dtype) -> None:
    # Neither are float32 logits rounded to bfloat16, nor is the loss.
    for label_size in SIZES:
        inputs = softmax_inputs(label_size=label_size, dtype=dtype)
        expected = softmax_evaluate(inputs, backend="cpu", **EVERYTHING)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = softmax_evaluate(inputs, backend="cpu", **EVERYTHING)
        assert result.total.dtype == torch.float32 and result.gradient.dtype == dtype
        assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)


def test_autocast_through_a_network(softmax_inputs) -> None:
    inputs = softmax_inputs()
    torch.manual_seed(0)
    classifier = torch.nn.Conv2d(8, 7, 1)
    features = torch.randn(2, 8, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = classifier(features)
        assert logits.dtype == torch.bfloat16
        total, _ = ciss_fast.softmax_loss(logits, inputs.teacher, inputs.label, backend="cpu", **ALIFE)
    assert total.dtype == torch.float32
    total.backward()
    assert classifier.weight.grad.dtype == torch.float32 and classifier.weight.grad.abs().sum() > 0


def test_loss_scaler(softmax_inputs, softmax_evaluate) -> None:
    # What torch.amp's scaler sends: a large incoming gradient; and it finds NaN where the logits overflowed.
    inputs = softmax_inputs(dtype=torch.float16)
    scaled = softmax_evaluate(inputs, backend="cpu", upstream=2.0**14, **ALIFE).gradient
    plain = softmax_evaluate(
        inputs._replace(student=inputs.student.float(), teacher=inputs.teacher.float()), backend="cpu", **ALIFE
    ).gradient
    torch.testing.assert_close(scaled.float() / 2**14, plain, rtol=1e-3, atol=2**-38)
    student = inputs.student.clone()
    student[0, 0, 0, 0] = float("inf")
    assert softmax_evaluate(inputs._replace(student=student), backend="cpu", **ALIFE).gradient.isnan().any()
