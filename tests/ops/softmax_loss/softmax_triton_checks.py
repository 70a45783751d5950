"""Checks of the softmax loss's Triton kernels (see `triton_testing`): few and small, the interpreter is slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from loss_testing import SOFTMAX, Inputs, same_bits
from triton_inputs import golden_arrays
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

EVERYTHING = {"ce": 1.0, "cce": 0.5, "kd": 2.0, "ckd": 3.0, "ali": 0.7, "focal": 1.5}
ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}
MIB = {"cce": 1.0, "ckd": 10.0, "kd_region": "all", "cce_average": "all"}
BY_SEQUENCES = {name: weight for name, weight in EVERYTHING.items() if name != "focal"}
draw = SOFTMAX.draw


@contextmanager
def marked_cells() -> Iterator[list[torch.Tensor]]:
    """The marks of cells that sequences do not suit, by call; at label size and with focal there are none."""
    from ciss_fast.ops.softmax_loss import triton_launch

    found, launch = [], triton_launch._launch_cells

    def noting(*arguments):
        found.append(launch(*arguments))
        return found[-1]

    triton_launch._launch_cells = noting
    try:
        yield found
    finally:
        triton_launch._launch_cells = launch


def check_at_label_size(device) -> None:
    for options in (ALIFE, MIB, EVERYTHING):
        compare(SOFTMAX, draw(size=(9, 31), label_size=(9, 31), sequential=True), device, **options)


def check_enlarged_by_sequences(device) -> None:
    with marked_cells() as marks:
        inputs = draw(size=(2, 2), label_size=(5, 7), sequential=True)
        compare(SOFTMAX, inputs, device, alpha=1.7, **BY_SEQUENCES)
        inputs = draw(batch=1, classes=21, old=15, size=(2, 3), label_size=(8, 33), sequential=True)
        compare(SOFTMAX, inputs, device, align_corners=True, **ALIFE)
    assert len(marks) == 2 and not any(mark.any() for mark in marks)


def check_pieces_of_seventeen_and_more_pixels(device) -> None:
    # 17 rows: one more than a pass takes. 40 columns: cut into three pieces.
    for label_size in ((17, 3), (2, 40)):
        inputs = draw(batch=1, size=(2, 2), label_size=label_size, sequential=True)
        compare(SOFTMAX, inputs, device, align_corners=True, **BY_SEQUENCES)


def check_enlarged_with_focal(device) -> None:
    for align_corners in (False, True):
        inputs = draw(batch=1, size=(2, 3), label_size=(5, 7), sequential=True)
        compare(SOFTMAX, inputs, device, align_corners=align_corners, alpha=1.7, **EVERYTHING)


def check_sizes_close_to_one_another(device) -> None:
    for number, (size, label_size) in enumerate((((3, 2), (4, 3)), ((1, 1), (3, 2)))):
        inputs = draw(batch=1, size=size, label_size=label_size, sequential=True)
        compare(SOFTMAX, inputs, device, align_corners=number % 2 == 1, **BY_SEQUENCES)


def slow_check_sizes(device) -> None:
    shrunk, enlarged = (((9, 8), (4, 3)), ((3, 2), (1, 1)), ((8, 8), (3, 4))), (((3, 4), (48, 64)), ((33, 3), (70, 9)))
    sizes = (*shrunk, ((5, 3), (5, 7)), *enlarged)
    for number, (size, label_size) in enumerate(sizes):
        for options in (BY_SEQUENCES, EVERYTHING):
            inputs = draw(batch=1, size=size, label_size=label_size, sequential=True)
            compare(SOFTMAX, inputs, device, align_corners=number % 2 == 1, **options)


def check_types_and_strides(device) -> None:
    for dtype, label_type in ((torch.bfloat16, torch.uint8), (torch.float16, torch.int32)):
        inputs = draw(size=(4, 5), label_size=(4, 5), dtype=dtype)
        student = inputs.student.contiguous(memory_format=torch.channels_last)
        teacher = inputs.teacher.transpose(2, 3).contiguous().transpose(2, 3)
        label = inputs.label.to(label_type)[:, ::2].repeat_interleave(2, 1)
        label = torch.stack((label, label), 3)[..., 1]
        compare(SOFTMAX, Inputs(student, teacher, label), device, **ALIFE)
    for dtype, label_type in ((torch.bfloat16, torch.int32), (torch.float16, torch.uint8)):
        inputs = draw(batch=1, size=(2, 2), label_size=(4, 6), dtype=dtype)
        student = inputs.student.contiguous(memory_format=torch.channels_last)
        teacher = inputs.teacher.transpose(2, 3).contiguous().transpose(2, 3)
        label = torch.stack((inputs.label, inputs.label), 3).to(label_type)[..., 1]
        compare(SOFTMAX, Inputs(student, teacher, label), device, align_corners=True, **ALIFE)


def check_numbers_of_classes(device) -> None:
    for classes, old, size in ((2, 1, (2, 2)), (5, 5, (2, 2)), (300, 270, (4, 7))):
        inputs = draw(batch=1, classes=classes, old=old, size=size, label_size=(4, 7), sequential=True)
        compare(SOFTMAX, inputs, device, absolute=1e-6, align_corners=True, **BY_SEQUENCES)


def check_base_step(device) -> None:
    for size in ((2, 2), (8, 7)):
        inputs = draw(size=size, label_size=(8, 7), teacher=False, old=0)
        compare(SOFTMAX, inputs, device, align_corners=True, ce=1.0, ce_average="valid")
        compare(SOFTMAX, inputs, device, align_corners=True, ce=1.0, focal=2.0)


def check_averages_and_regions(device) -> None:
    inputs = draw(size=(6, 7), label_size=(6, 7), sequential=True)
    for average, kd_region in (("all", "all"), ("valid", "not_unlabelled"), ("region", "unlabelled")):
        options = {f"{term}_average": average for term in EVERYTHING} | {"kd_region": kd_region}
        compare(SOFTMAX, inputs, device, **EVERYTHING, **options)


def check_empty_regions(device) -> None:
    inputs = draw(batch=1, size=(2, 3), label_size=(4, 6), sequential=True)
    for value in (0, 5, 255):
        label = torch.full_like(inputs.label, value)
        compare(SOFTMAX, inputs._replace(label=label), device, align_corners=True, **BY_SEQUENCES)
    for shape in ((0, 7, 2, 3), (2, 7, 0, 3)):
        student = torch.zeros(shape, device=device, requires_grad=True)
        label = torch.zeros((shape[0], 0, 5) if shape[0] else (0, 4, 5), dtype=torch.int64, device=device)
        total, terms = ciss_fast.softmax_loss(student, None, label, ce=1.0, backend="triton")
        total.backward()
        assert total == 0 and terms["ce"] == 0 and (student.grad == 0).all()


def check_wrong_labels(device) -> None:
    for size in ((2, 3), (6, 7)):
        inputs = draw(batch=1, size=size, label_size=(6, 7), sequential=True)
        expected = evaluate(SOFTMAX, inputs, device, align_corners=True, **BY_SEQUENCES)
        for value in (7, 2**40) if size == (2, 3) else (-5,):
            label = torch.where(inputs.label == 255, value, inputs.label)
            wrong = inputs._replace(label=label)
            result = evaluate(SOFTMAX, wrong, device, check_labels=False, align_corners=True, **BY_SEQUENCES)
            assert same_bits(result, expected)
    if device.type == "cpu":  # a GPU is not waited for
        with pytest.raises(ValueError, match="^label: expected class ids 0 to 6 or ignore_index 255, found 7$"):
            evaluate(SOFTMAX, inputs._replace(label=torch.full_like(inputs.label, 7)), device, **EVERYTHING)
    inputs = inputs._replace(label=torch.where(inputs.label == 255, 5, inputs.label))
    compare(SOFTMAX, inputs, device, ignore_index=5, **EVERYTHING)


def check_large_logits(device) -> None:
    # Enlarged logits of 1000 are themselves rounded by 3e-5.
    for scale, tolerance, options in ((30.0, 1e-5, ALIFE), (300.0, 5e-5, MIB), (300.0, 5e-5, ALIFE)):
        for size in ((2, 3), (5, 9)):
            inputs = draw(batch=1, size=size, label_size=(5, 9), scale=scale, sequential=True)
            with marked_cells() as marks:
                compare(SOFTMAX, inputs, device, tolerance=tolerance, absolute=1e-5, align_corners=True, **options)
            assert scale < 300 or all(mark.any() for mark in marks)


def check_some_cells_marked(device) -> None:
    # Sequences for some cells, maxima for the others.
    inputs = draw(batch=1, size=(2, 4), label_size=(4, 17), sequential=True)
    student = inputs.student.clone()
    student[..., 0] *= 100
    with marked_cells() as marks:
        compare(SOFTMAX, inputs._replace(student=student), device, align_corners=True, tolerance=5e-5, **ALIFE)
    assert marks[0].flatten().tolist() == [1, 0, 0]


def check_old_classes_far_below_new_ones(device) -> None:
    for distance in (30.0, 90.0):
        inputs = draw(batch=1, size=(2, 3), label_size=(5, 9), scale=0.5, sequential=True)
        student = inputs.student.clone()
        student[:, :4] -= distance
        with marked_cells() as marks:
            compare(SOFTMAX, inputs._replace(student=student), device, absolute=1e-6, align_corners=True, **ALIFE)
        assert bool(marks[0].any()) == (distance == 90)


def check_not_finite(device) -> None:
    for size in ((2, 2), (4, 6)):
        poisons(SOFTMAX, draw(size=size, label_size=(4, 6)), device, align_corners=True, **ALIFE)


def check_same_bits_and_without_gradient(device) -> None:
    for size in ((2, 2), (4, 20)):
        inputs = draw(batch=1, size=size, label_size=(4, 20), sequential=True)
        for options in (BY_SEQUENCES, EVERYTHING):
            first = evaluate(SOFTMAX, inputs, device, align_corners=True, **options)
            assert same_bits(evaluate(SOFTMAX, inputs, device, align_corners=True, **options), first)
            with torch.no_grad(), nan_filled():
                arguments = [x.to(device) for x in inputs]
                total, terms = ciss_fast.softmax_loss(*arguments, backend="triton", align_corners=True, **options)
            assert torch.equal(total.cpu(), first.total)
            assert all(torch.equal(terms[name].cpu(), first.terms[name]) for name in terms)


def check_operator_and_compilation(device) -> None:
    operator_works(SOFTMAX, draw(batch=1, size=(2, 2), label_size=(3, 5)), device, align_corners=True, **ALIFE)


def check_double_precision(device) -> None:
    takes_single_precision_alone(SOFTMAX, draw(size=(2, 3), label_size=(4, 5)), device)


def check_most_images(device) -> None:
    takes_as_many_images_as_a_grid(SOFTMAX, draw(size=(1, 2), label_size=(1, 3)), device)


def _golden(device, files: tuple[str, ...]) -> None:
    names = {"alife_stage1_w3_1": ALIFE, "cce": {"cce": 1.0}, "ckd": {"ckd": 1.0}, "focal_pseudo": {"focal": 1.0}}
    for file in files:
        arrays = golden_arrays(f"softmax_{file}.npz")
        inputs = Inputs(*(torch.from_numpy(arrays[name]) for name in ("student", "teacher", "label")))
        for name, options in names.items():
            result = evaluate(SOFTMAX, inputs, device, align_corners=int(arrays["align_corners"]) == 1, **options)
            expected = float(arrays["loss_" + name])
            assert abs(float(result.total) - expected) <= 1e-5 * abs(expected), (file, name)
            gradient = UPSTREAM * torch.from_numpy(arrays["grad_" + name])
            error = float((result.gradient - gradient).abs().max() / gradient.abs().max())
            assert error <= 1e-5, (file, name, error)


def check_golden_values(device) -> None:
    _golden(device, ("fullres_hot", "fullres_small"))


def slow_check_golden_values_enlarged(device) -> None:
    _golden(device, ("up_true", "up_false", "up_ade", "fullres_voc15_1"))
