"""Checks of the sigmoid loss's Triton kernels (see `triton_testing`): few and small, the interpreter is slow."""

from __future__ import annotations

import pytest
import torch
from loss_testing import SIGMOID, Inputs, same_bits
from triton_inputs import conftest_of, golden_arrays
from triton_loss_checks import (
    UPSTREAM,
    compare,
    evaluate,
    nan_filled,
    operator_works,
    poisons,
    takes_as_many_images_as_a_grid,
    takes_single_precision_alone,
)

import ciss_fast

EVERYTHING = {"mbce": 1.0, "kd": 5.0, "ac": 0.5, "pos_weight": 35.0}
draw = SIGMOID.draw


def check_at_label_size(device) -> None:
    inputs = draw(size=(9, 31), label_size=(9, 31), sequential=True)
    for options in (SIGMOID.mix, EVERYTHING, {"kd": 1.0}):
        compare(SIGMOID, inputs, device, **options)


def check_enlarged(device) -> None:
    inputs = draw(size=(2, 2), label_size=(5, 7), sequential=True)
    compare(SIGMOID, inputs, device, **EVERYTHING)
    inputs = draw(batch=1, size=(2, 3), label_size=(4, 9), sequential=True)
    compare(SIGMOID, inputs, device, align_corners=True, **EVERYTHING)


def check_quadrature(device) -> None:
    # A cell of every rule: planes that change by just under what the rule serves, and one rougher than all of them.
    generator = torch.Generator().manual_seed(0)
    for change, value in ((0.6, 0), (2.4, 5), (10.3, 0), (14.0, 5)):  # no pixel is a positive, or all are one class's
        across = torch.tensor([[-0.4, 0.4], [-0.5, 0.5]]) * change + torch.tensor([[0.0], [0.1]]) * change
        student = across + 4 * torch.randn(1, 7, 1, 1, generator=generator)
        teacher = -across[:, [1, 0]] * 0.9 + 4 * torch.randn(1, 4, 1, 1, generator=generator)
        label = torch.full((1, 13, 17), value)
        compare(SIGMOID, Inputs(student, teacher, label), device, align_corners=True, **EVERYTHING)


def check_mixed_labels(device) -> None:
    # Pixels that show a class beside others, in a block of classes behind the first.
    inputs = draw(batch=1, classes=40, old=30, size=(2, 2), label_size=(4, 5), scale=0.1)
    label = torch.tensor([[35] * 5, [35, 35, 0, 255, 31], [39] * 5, [0] * 5])[None]
    compare(SIGMOID, inputs._replace(label=label), device, align_corners=True, **EVERYTHING)
    compare(SIGMOID, inputs._replace(label=label), device, align_corners=True, mbce=1.0, pos_weight=2.0)


def check_pieces_of_more_than_seventeen_pixels(device) -> None:
    inputs = draw(batch=1, size=(1, 2), label_size=(2, 40), scale=0.5)
    compare(SIGMOID, inputs, device, align_corners=True, **EVERYTHING)


def check_sizes_close_to_one_another(device) -> None:
    for number, (size, label_size) in enumerate((((4, 3), (5, 5)), ((1, 1), (3, 2)), ((4, 3), (3, 2)))):
        inputs = draw(batch=1, size=size, label_size=label_size)
        compare(SIGMOID, inputs, device, align_corners=number != 1, **EVERYTHING)


def slow_check_sizes(device) -> None:
    sizes = (((4, 5), (7, 9)), ((9, 8), (4, 3)), ((3, 2), (1, 1)), ((3, 4), (48, 64)), ((33, 3), (70, 9)))
    for number, (size, label_size) in enumerate(sizes):
        for scale in (0.5, 3.0):
            inputs = draw(batch=1, size=size, label_size=label_size, scale=scale)
            compare(SIGMOID, inputs, device, align_corners=number % 2 == 1, **EVERYTHING)


def check_types_and_strides(device) -> None:
    for dtype, label_type, size in (
        (torch.bfloat16, torch.uint8, (4, 6)),
        (torch.float16, torch.int32, (2, 2)),
        (torch.bfloat16, torch.int32, (2, 2)),
    ):
        inputs = draw(batch=1, size=size, label_size=(4, 6), dtype=dtype)
        student = inputs.student.contiguous(memory_format=torch.channels_last)
        teacher = inputs.teacher.transpose(2, 3).contiguous().transpose(2, 3)
        label = torch.stack((inputs.label, inputs.label), 3).to(label_type)[..., 1]
        compare(SIGMOID, Inputs(student, teacher, label), device, align_corners=True, **EVERYTHING)


def check_numbers_of_classes(device) -> None:
    for classes, old, size in ((2, 1, (2, 2)), (5, 5, (2, 2)), (97, 64, (2, 2)), (300, 270, (4, 5))):
        inputs = draw(batch=1, classes=classes, old=old, size=size, label_size=(4, 5))
        compare(SIGMOID, inputs, device, align_corners=True, **EVERYTHING)


def check_base_step(device) -> None:
    inputs = draw(batch=1, size=(2, 2), label_size=(4, 5), teacher=False, old=1)
    compare(SIGMOID, inputs, device, **SIGMOID.base)
    inputs = draw(batch=1, size=(2, 2), label_size=(4, 5), teacher=False, old=3)
    compare(SIGMOID, inputs, device, align_corners=True, mbce=2.0)


def check_logits_of_every_size(device) -> None:
    # Each by itself: a rare large loss must not cover errors of the small ones.
    for level in (-80.0, -40.0, -16.0, -5.0, -1.0, 0.0, 3.0, 15.0, 60.0):
        inputs = draw(batch=1, size=(4, 6), label_size=(4, 6), scale=0.7)
        inputs = inputs._replace(student=inputs.student + level, teacher=inputs.teacher + level)
        for options in ({"kd": 1.0}, {"ac": 1.0}) if abs(level) < 50 else ({"mbce": 1.0, "kd": 1.0, "ac": 1.0},):
            compare(SIGMOID, inputs, device, **options)


def check_enlarged_logits_of_every_size(device) -> None:
    for level in (-40.0, -5.0, 15.0):
        inputs = draw(batch=1, classes=40, old=38, size=(2, 2), label_size=(5, 7), scale=0.7)
        inputs = inputs._replace(student=inputs.student + level, teacher=inputs.teacher + level)
        for options in ({"kd": 1.0}, {"ac": 1.0}):
            compare(SIGMOID, inputs, device, align_corners=True, **options)


def check_large_logits(device) -> None:
    for size in ((2, 2), (4, 9)):
        inputs = draw(batch=1, size=size, label_size=(4, 9), scale=300.0)
        compare(SIGMOID, inputs, device, align_corners=True, **EVERYTHING)


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
    for size in ((2, 2), (4, 6)):
        poisons(SIGMOID, draw(batch=1, size=size, label_size=(4, 6)), device, align_corners=True, **SIGMOID.mix)


def check_same_bits_and_without_gradient(device) -> None:
    for size in ((2, 2), (4, 60)):
        inputs = draw(batch=1, size=size, label_size=(4, 60) if size[1] == 60 else (4, 8))
        first = evaluate(SIGMOID, inputs, device, align_corners=True, **EVERYTHING)
        assert same_bits(evaluate(SIGMOID, inputs, device, align_corners=True, **EVERYTHING), first)
        with torch.no_grad(), nan_filled():
            arguments = [x.to(device) for x in inputs]
            total, terms = ciss_fast.sigmoid_loss(*arguments, backend="triton", align_corners=True, **EVERYTHING)
        assert torch.equal(total.cpu(), first.total)
        assert all(torch.equal(terms[name].cpu(), first.terms[name]) for name in terms)


def check_operator_and_compilation(device) -> None:
    inputs = draw(batch=1, size=(2, 2), label_size=(3, 5))
    operator_works(SIGMOID, inputs, device, align_corners=True, **EVERYTHING)


def check_double_precision(device) -> None:
    takes_single_precision_alone(SIGMOID, draw(size=(2, 3), label_size=(4, 5)), device)


def check_most_images(device) -> None:
    takes_as_many_images_as_a_grid(SIGMOID, draw(size=(1, 2), label_size=(1, 3)), device)


def _golden(device, files: tuple[str, ...]) -> None:
    conftest = conftest_of(__file__)
    for file in files:
        arrays = golden_arrays(file)
        inputs, exact = (conftest.logits_of(arrays, dtype) for dtype in (torch.float32, torch.float64))
        names = ("mbce", "kd", "ac") if "loss_kd" in arrays else ("mbce_base",)
        for name in names:
            options = {term: 1.0 for term in (("mbce", "ac") if name == "mbce_base" else (name,))}
            options["pos_weight"] = float(arrays["pos_weight"])
            result = evaluate(SIGMOID, inputs, device, **options)
            assert float(result.total) == pytest.approx(float(arrays[f"loss_{name}"]), rel=1e-5), (file, name)
            expected = SIGMOID.define(exact, upstream=UPSTREAM, **options).gradient
            error = float((result.gradient.double() - expected).abs().max() / expected.abs().max())
            assert error <= 1e-5, (file, name, error)


def slow_check_golden_values(device) -> None:
    _golden(device, ("dkd_small.npz", "dkd_ade.npz", "base.npz"))
