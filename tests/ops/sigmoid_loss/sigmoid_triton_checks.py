"""Checks of the sigmoid loss's Triton kernels (see `triton_testing`): few and small, the interpreter is slow."""

from __future__ import annotations

import pytest
import torch
from loss_testing import SIGMOID, Inputs, same_bits
from triton_loss_checks import compare, evaluate, nan_filled, poisons, takes_single_precision_alone

import ciss_fast

EVERYTHING = {"mbce": 1.0, "kd": 5.0, "ac": 0.5, "pos_weight": 35.0}
draw = SIGMOID.draw


def check_at_label_size(device) -> None:
    inputs = draw(size=(9, 31), label_size=(9, 31), sequential=True)
    for options in (SIGMOID.mix, EVERYTHING, {"kd": 1.0}):
        compare(SIGMOID, inputs, device, **options)


def check_enlarged(device) -> None:
    for align_corners in (False, True):
        inputs = draw(size=(3, 4), label_size=(9, 14), sequential=True)
        compare(SIGMOID, inputs, device, align_corners=align_corners, **EVERYTHING)


def check_sizes_close_to_one_another(device) -> None:
    sizes = (((4, 5), (7, 9)), ((9, 8), (4, 3)), ((1, 1), (3, 2)), ((3, 2), (1, 1)))
    for number, (size, label_size) in enumerate(sizes):
        inputs = draw(batch=1, size=size, label_size=label_size)
        compare(SIGMOID, inputs, device, align_corners=number % 2 == 1, **EVERYTHING)


def check_types_and_strides(device) -> None:
    for dtype, label_type, size in ((torch.bfloat16, torch.uint8, (8, 10)), (torch.float16, torch.int32, (4, 5))):
        inputs = draw(size=size, label_size=(8, 10), dtype=dtype)
        student = inputs.student.contiguous(memory_format=torch.channels_last)
        teacher = inputs.teacher.transpose(2, 3).contiguous().transpose(2, 3)
        label = torch.stack((inputs.label, inputs.label), 3).to(label_type)[..., 1]
        compare(SIGMOID, Inputs(student, teacher, label), device, **EVERYTHING)


def check_numbers_of_classes(device) -> None:
    for classes, old, size in ((2, 1, (2, 3)), (5, 5, (2, 3)), (300, 270, (5, 7))):
        inputs = draw(batch=1, classes=classes, old=old, size=size, label_size=(5, 7))
        compare(SIGMOID, inputs, device, **EVERYTHING)


def check_base_step(device) -> None:
    inputs = draw(size=(3, 3), label_size=(8, 7), teacher=False, old=1)
    compare(SIGMOID, inputs, device, **SIGMOID.base)
    compare(SIGMOID, inputs, device, mbce=2.0)


def check_logits_of_every_size(device) -> None:
    # Each by itself: a rare large loss must not cover errors of the small ones.
    for level in (-80.0, -40.0, -16.0, -5.0, -1.0, 0.0, 3.0, 15.0, 60.0):
        inputs = draw(batch=1, size=(4, 6), label_size=(4, 6), scale=0.7)
        inputs = inputs._replace(student=inputs.student + level, teacher=inputs.teacher + level)
        for options in ({"kd": 1.0}, {"ac": 1.0}) if abs(level) < 50 else ({"mbce": 1.0, "kd": 1.0, "ac": 1.0},):
            compare(SIGMOID, inputs, device, **options)


def check_large_logits(device) -> None:
    for size in ((3, 4), (8, 9)):
        inputs = draw(batch=1, size=size, label_size=(8, 9), scale=300.0)
        compare(SIGMOID, inputs, device, **EVERYTHING)


def check_nothing_to_do(device) -> None:
    for shape in ((0, 7, 2, 3), (2, 7, 0, 3)):
        student = torch.zeros(shape, device=device, requires_grad=True)
        label = torch.zeros((shape[0], 0, 5) if shape[0] else (0, 4, 5), dtype=torch.int64, device=device)
        total, terms = ciss_fast.sigmoid_loss(student, None, label, mbce=1.0, backend="triton")
        total.backward()
        assert total == 0 and terms["mbce"] == 0 and (student.grad == 0).all()


def check_wrong_labels(device) -> None:
    inputs = draw(size=(6, 7), label_size=(6, 7), sequential=True)
    expected = evaluate(SIGMOID, inputs, device, **EVERYTHING)
    for value in (7, -5, 2**40):
        label = torch.where(inputs.label == 255, value, inputs.label)
        result = evaluate(SIGMOID, inputs._replace(label=label), device, check_labels=False, **EVERYTHING)
        assert same_bits(result, expected)
    if device.type == "cpu":  # a GPU is not waited for
        with pytest.raises(ValueError, match="^label: expected class ids 0 to 6 or ignore_index 255, found 7$"):
            evaluate(SIGMOID, inputs._replace(label=torch.full_like(inputs.label, 7)), device, **EVERYTHING)
    inputs = inputs._replace(label=torch.where(inputs.label == 255, 5, inputs.label))
    compare(SIGMOID, inputs, device, ignore_index=5, **EVERYTHING)


def check_not_finite(device) -> None:
    for size in ((2, 3), (6, 7)):
        poisons(SIGMOID, draw(size=size, label_size=(6, 7)), device, **SIGMOID.mix)


def check_same_bits(device) -> None:
    for size in ((2, 3), (6, 60)):
        inputs = draw(size=size, label_size=(6, 60) if size[1] == 60 else (5, 8))
        first = evaluate(SIGMOID, inputs, device, **EVERYTHING)
        assert same_bits(evaluate(SIGMOID, inputs, device, **EVERYTHING), first)
        with torch.no_grad(), nan_filled():
            arguments = [x.to(device) for x in inputs]
            total, terms = ciss_fast.sigmoid_loss(*arguments, backend="triton", **EVERYTHING)
        assert torch.equal(total.cpu(), first.total)
        assert all(torch.equal(terms[name].cpu(), first.terms[name]) for name in terms)


def check_double_precision(device) -> None:
    takes_single_precision_alone(SIGMOID, draw(size=(2, 3), label_size=(4, 5)), device)
