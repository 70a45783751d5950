"""Element types and memory layouts of logits and labels, and the incoming gradient."""

from __future__ import annotations

import pytest
import torch
from loss_testing import assert_close, same_gradient

FLOAT_TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SIZES = [(32, 40), (4, 5), (3, 4)]  # enlarged, at label size, shrunk


def strided(x: torch.Tensor) -> torch.Tensor:
    """The same values with gaps between them along every axis, and not at the storage's beginning."""
    room = torch.full([2 * n + 1 for n in x.shape], float("nan") if x.is_floating_point() else 99).to(x.dtype)
    view = room[tuple(slice(1, None, 2) for _ in x.shape)]
    view.copy_(x)
    return view


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "strided": strided,
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "classes first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "rows last": lambda x: x.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
    "some channels": lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
    "some channels, last": lambda x: torch.cat([x, x], dim=1).contiguous(memory_format=torch.channels_last)[
        :, : x.shape[1]
    ],
}


@pytest.mark.parametrize("label_size", SIZES)
@pytest.mark.parametrize("teacher_type", FLOAT_TYPES)
@pytest.mark.parametrize("student_type", FLOAT_TYPES)
def test_types_of_logits(loss, student_type, teacher_type, label_size) -> None:
    inputs = loss.draw(label_size=label_size, dtype=student_type)
    loss.matches(inputs._replace(teacher=inputs.teacher.to(teacher_type)), **loss.everything)


@pytest.mark.parametrize("label_size", SIZES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_nothing_but_the_gradient(
    loss, dtype, label_size
) -> None:
    half = loss.draw(label_size=label_size, dtype=dtype)
    single = half._replace(student=half.student.float(), teacher=half.teacher.float())
    result = loss.evaluate(half, backend="cpu", upstream=1024.0, **loss.everything)
    expected = loss.evaluate(single, backend="cpu", upstream=1024.0, **loss.everything)
    assert torch.equal(result.total, expected.total)
    assert torch.equal(result.gradient, expected.gradient.to(dtype))


def test_scaled_half_precision_gradients_do_not_underflow(loss) -> None:
    # One pixel's gradient over many pixels is below what float16 can hold; a loss scaler's factor must come first.
    inputs = loss.draw(size=(30, 30), label_size=(240, 240), dtype=torch.float16)
    small = {loss.first_term: 1e-3}
    scaled = loss.evaluate(inputs, backend="cpu", upstream=65536.0, **small).gradient
    single = inputs._replace(student=inputs.student.float(), teacher=inputs.teacher.float())
    expected = 65536 * loss.evaluate(single, backend="cpu", **small).gradient
    assert float(expected.abs().median()) / 65536 < 2**-24
    torch.testing.assert_close(scaled.float(), expected, rtol=1e-3, atol=2**-24)


def test_numbers_of_half_precision_are_read_exactly(loss) -> None:
    # Denormals, zeros of both signs, the largest numbers.
    numbers = torch.tensor([0.0, -0.0, 6e-8, -6e-8, 5.9e-5, -6.2e-5, 1.0, -2.5, 88.25, -65504.0])
    for dtype in (torch.float16, torch.bfloat16):
        for label_size in SIZES:
            inputs = loss.draw(label_size=label_size, seed=5)
            generator = torch.Generator().manual_seed(1)
            student = numbers[torch.randint(10, inputs.student.shape, generator=generator)].to(dtype)
            loss.matches(inputs._replace(student=student), **loss.everything)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("label_size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_logits(loss, layout, label_size, dtype) -> None:
    inputs = loss.draw(label_size=label_size, dtype=dtype)
    expected = loss.evaluate(inputs, backend="cpu", **loss.everything)
    change = LAYOUTS[layout]
    student = change(inputs.student)
    assert student.stride() != inputs.student.stride() and torch.equal(student, inputs.student)
    leaf = student.detach().requires_grad_()  # shares the memory, keeps the strides
    result = loss.evaluate(inputs._replace(teacher=change(inputs.teacher)), backend="cpu", **loss.everything)
    assert same_gradient(result, expected)
    result = loss.evaluate(inputs._replace(student=leaf), backend="cpu", **loss.everything)
    assert same_gradient(result, expected)


@pytest.mark.parametrize("label_size", SIZES)
def test_expanded_logits(loss, label_size) -> None:
    inputs = loss.draw(batch=3, label_size=label_size)
    for dimension in range(4):
        student = inputs.student.narrow(dimension, -1, 1).expand(inputs.student.shape)
        teacher = inputs.teacher.narrow(dimension, -1, 1).expand(inputs.teacher.shape)
        packed = inputs._replace(student=student.contiguous(), teacher=teacher.contiguous())
        expected = loss.evaluate(packed, backend="cpu", **loss.everything)
        result = loss.evaluate(inputs._replace(student=student, teacher=teacher), backend="cpu", **loss.everything)
        assert same_gradient(result, expected)


@pytest.mark.parametrize("label_size", SIZES)
@pytest.mark.parametrize("layout", ["contiguous", *LAYOUTS])
def test_gradient_is_laid_out_like_the_student(loss, layout, label_size) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs = loss.draw(label_size=label_size, dtype=dtype)
        student = LAYOUTS.get(layout, torch.clone)(inputs.student).detach().requires_grad_()
        for upstream in (1.0, 3.0):
            total, _ = loss.function(student, inputs.teacher, inputs.label, backend="cpu", **loss.everything)
            (gradient,) = torch.autograd.grad(total * upstream, student)
            assert gradient.stride() == torch.empty_like(student).stride()


@pytest.mark.parametrize("label_size", SIZES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels(loss, dtype, label_size) -> None:
    inputs = loss.draw(label_size=label_size, sequential=True)
    expected = loss.evaluate(inputs, backend="cpu", **loss.everything)
    label = inputs.label.to(dtype)
    changed = {
        "as they are": label,
        "strided": strided(label),
        "transposed": label.transpose(1, 2).contiguous().transpose(1, 2),
        "images last": label.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "every other column": label.repeat_interleave(2, dim=2)[:, :, ::2],
    }
    for name, other in changed.items():
        assert torch.equal(other, label)
        result = loss.evaluate(inputs._replace(label=other), backend="cpu", **loss.everything)
        assert same_gradient(result, expected), name


@pytest.mark.parametrize("label_size", SIZES)
def test_expanded_labels(loss, label_size) -> None:
    inputs = loss.draw(label_size=label_size)
    for dimension in range(3):
        label = inputs.label.narrow(dimension, 0, 1).expand(inputs.label.shape)
        expected = loss.evaluate(inputs._replace(label=label.contiguous()), backend="cpu", **loss.everything)
        result = loss.evaluate(inputs._replace(label=label), backend="cpu", **loss.everything)
        assert same_gradient(result, expected)


@pytest.mark.parametrize("label_size", SIZES)
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("upstream", [0.0, -2.5, 1e-3, 4096.0])
def test_incoming_gradient(
    loss, upstream, dtype, label_size
) -> None:
    inputs = loss.draw(label_size=label_size, dtype=dtype)
    result = loss.evaluate(inputs, backend="cpu", upstream=upstream, **loss.everything)
    expected = loss.define(inputs, upstream=upstream, **loss.everything)
    rounding = {torch.bfloat16: 2**-8, torch.float16: 1e-2}.get(dtype, 0.0)  # float16: some are denormal at 1e-3
    assert_close(result, expected, loss.everything, 1e-5, 1e-5 + rounding)


def test_logits_and_labels_are_left_alone(loss) -> None:
    for label_size in SIZES:
        inputs = loss.draw(label_size=label_size)
        before = [x.clone() for x in inputs]
        versions = [x._version for x in inputs]
        loss.evaluate(inputs, backend="cpu", **loss.everything)
        torch.testing.assert_close(list(inputs), before, rtol=0, atol=0, equal_nan=True)
        assert versions == [x._version for x in inputs]


@pytest.mark.parametrize("label_size", SIZES)
def test_address_of_the_logits_does_not_matter(loss, label_size) -> None:
    inputs = loss.draw(label_size=label_size)
    expected = loss.evaluate(inputs, backend="cpu", **loss.everything)
    for shift in (1, 3, 5):
        moved = []
        for x in inputs:
            room = torch.empty(x.numel() + shift, dtype=x.dtype)[shift:].view(x.shape)
            moved.append(room.copy_(x))
        result = loss.evaluate(type(inputs)(*moved), backend="cpu", **loss.everything)
        assert same_gradient(result, expected)
