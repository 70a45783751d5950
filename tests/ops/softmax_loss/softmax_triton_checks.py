"""Checks of the softmax loss's Triton kernels (see `triton_testing`): few and small, the interpreter is slow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_testing import SOFTMAX, Inputs, same_bits
from triton_loss_checks import compare, evaluate, nan_filled, poisons, takes_single_precision_alone

import ciss_fast

EVERYTHING = {"ce": 1.0, "cce": 0.5, "kd": 2.0, "ckd": 3.0, "ali": 0.7, "focal": 1.5}
ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}
MIB = {"cce": 1.0, "ckd": 10.0, "kd_region": "all", "cce_average": "all"}
draw = SOFTMAX.draw


def check_at_label_size(device) -> None:
    for options in (ALIFE, MIB, EVERYTHING):
        compare(SOFTMAX, draw(size=(9, 31), label_size=(9, 31), sequential=True), device, **options)


def check_enlarged(device) -> None:
    for align_corners in (False, True):
        inputs = draw(size=(3, 4), label_size=(9, 14), sequential=True)
        compare(SOFTMAX, inputs, device, align_corners=align_corners, alpha=1.7, **EVERYTHING)


def check_sizes_close_to_one_another(device) -> None:
    sizes = (((4, 5), (7, 9)), ((9, 8), (4, 3)), ((1, 1), (3, 2)), ((5, 3), (5, 7)), ((3, 2), (1, 1)), ((8, 8), (3, 4)))
    for number, (size, label_size) in enumerate(sizes):
        inputs = draw(batch=1, size=size, label_size=label_size, sequential=True)
        compare(SOFTMAX, inputs, device, align_corners=number % 2 == 1, **EVERYTHING)


def check_types_and_strides(device) -> None:
    for dtype, label_type in ((torch.bfloat16, torch.uint8), (torch.float16, torch.int32)):
        inputs = draw(size=(4, 5), label_size=(4, 5), dtype=dtype)
        student = inputs.student.contiguous(memory_format=torch.channels_last)
        teacher = inputs.teacher.transpose(2, 3).contiguous().transpose(2, 3)
        label = inputs.label.to(label_type)[:, ::2].repeat_interleave(2, 1)
        label = torch.stack((label, label), 3)[..., 1]
        compare(SOFTMAX, Inputs(student, teacher, label), device, **ALIFE)
    inputs = draw(size=(3, 3), label_size=(8, 9), dtype=torch.bfloat16)
    inputs = inputs._replace(student=inputs.student.contiguous(memory_format=torch.channels_last))
    compare(SOFTMAX, inputs, device, **ALIFE)


def check_numbers_of_classes(device) -> None:
    for classes, old, size in ((2, 1, (2, 3)), (5, 5, (2, 3)), (300, 270, (5, 7))):
        inputs = draw(batch=1, classes=classes, old=old, size=size, label_size=(5, 7), sequential=True)
        compare(SOFTMAX, inputs, device, absolute=1e-6, **EVERYTHING)


def check_base_step(device) -> None:
    for size in ((3, 3), (8, 7)):
        inputs = draw(size=size, label_size=(8, 7), teacher=False, old=0)
        compare(SOFTMAX, inputs, device, ce=1.0, focal=2.0, ce_average="valid")


def check_averages_and_regions(device) -> None:
    inputs = draw(size=(6, 7), label_size=(6, 7), sequential=True)
    for average, kd_region in (("all", "all"), ("valid", "not_unlabelled"), ("region", "unlabelled")):
        options = {f"{term}_average": average for term in EVERYTHING} | {"kd_region": kd_region}
        compare(SOFTMAX, inputs, device, **EVERYTHING, **options)


def check_empty_regions(device) -> None:
    inputs = draw(size=(2, 3), label_size=(6, 7), sequential=True)
    for value in (0, 5, 255):
        label = torch.full_like(inputs.label, value)
        compare(SOFTMAX, inputs._replace(label=label), device, **EVERYTHING)
    for shape in ((0, 7, 2, 3), (2, 7, 0, 3)):
        student = torch.zeros(shape, device=device, requires_grad=True)
        label = torch.zeros((shape[0], 0, 5) if shape[0] else (0, 4, 5), dtype=torch.int64, device=device)
        total, terms = ciss_fast.softmax_loss(student, None, label, ce=1.0, backend="triton")
        total.backward()
        assert total == 0 and terms["ce"] == 0 and (student.grad == 0).all()


def check_wrong_labels(device) -> None:
    for size in ((2, 3), (6, 7)):
        inputs = draw(size=size, label_size=(6, 7), sequential=True)
        expected = evaluate(SOFTMAX, inputs, device, **EVERYTHING)
        for value in (7, 2**40) if size == (2, 3) else (-5,):
            label = torch.where(inputs.label == 255, value, inputs.label)
            result = evaluate(SOFTMAX, inputs._replace(label=label), device, check_labels=False, **EVERYTHING)
            assert same_bits(result, expected)
    if device.type == "cpu":  # a GPU is not waited for
        with pytest.raises(ValueError, match="^label: expected class ids 0 to 6 or ignore_index 255, found 7$"):
            evaluate(SOFTMAX, inputs._replace(label=torch.full_like(inputs.label, 7)), device, **EVERYTHING)
    inputs = inputs._replace(label=torch.where(inputs.label == 255, 5, inputs.label))
    compare(SOFTMAX, inputs, device, ignore_index=5, **EVERYTHING)


def check_large_logits(device) -> None:
    for size in ((5, 6), (9, 13)):
        # Enlarged logits of 1000 are themselves rounded by 3e-5.
        for scale, tolerance in ((30.0, 1e-5), (300.0, 5e-5)):
            inputs = draw(batch=1, size=size, label_size=(9, 13), scale=scale, sequential=True)
            for options in (ALIFE, MIB):
                compare(SOFTMAX, inputs, device, tolerance=tolerance, absolute=1e-5, **options)


def check_old_classes_far_below_new_ones(device) -> None:
    for size in ((5, 6), (9, 13)):
        inputs = draw(batch=1, size=size, label_size=(9, 13), scale=0.5, sequential=True)
        student = inputs.student.clone()
        student[:, :4] -= 90.0
        compare(SOFTMAX, inputs._replace(student=student), device, absolute=1e-6, **ALIFE)


def check_not_finite(device) -> None:
    for size in ((2, 3), (6, 7)):
        poisons(SOFTMAX, draw(size=size, label_size=(6, 7)), device, **ALIFE)


def check_same_bits(device) -> None:
    for size in ((2, 3), (6, 20)):
        inputs = draw(size=size, label_size=(6, 20), sequential=True)
        first = evaluate(SOFTMAX, inputs, device, **EVERYTHING)
        assert same_bits(evaluate(SOFTMAX, inputs, device, **EVERYTHING), first)


def check_without_gradient(device) -> None:
    for size in ((2, 3), (6, 7)):
        inputs = draw(size=size, label_size=(6, 7), sequential=True)
        expected = evaluate(SOFTMAX, inputs, device, **EVERYTHING)
        with torch.no_grad(), nan_filled():
            arguments = [x.to(device) for x in inputs]
            total, terms = ciss_fast.softmax_loss(*arguments, backend="triton", **EVERYTHING)
        assert torch.equal(total.cpu(), expected.total)
        assert all(torch.equal(terms[name].cpu(), expected.terms[name]) for name in terms)


def check_double_precision(device) -> None:
    takes_single_precision_alone(SOFTMAX, draw(size=(2, 3), label_size=(4, 5)), device)


def check_golden_values(device) -> None:
    shared = os.environ.get("CISS_FAST_SHARED")
    folder = Path(shared) if shared else Path(__file__).resolve().parents[4] / "shared"
    if not folder.is_dir() and not shared:
        pytest.skip(f"no folder of golden data at {folder} (CISS_FAST_SHARED names another place)")
    names = {"alife_stage1_w3_1": ALIFE, "cce": {"cce": 1.0}, "ckd": {"ckd": 1.0}, "focal_pseudo": {"focal": 1.0}}
    files = ["fullres_hot", "fullres_small"]
    if device.type == "cuda":  # the interpreter would need minutes
        files += ["up_ade", "up_false", "up_true"]
    for file in files:
        with np.load(folder / "golden" / f"softmax_{file}.npz") as arrays:
            inputs = Inputs(*(torch.from_numpy(arrays[name]) for name in ("student", "teacher", "label")))
            for name, options in names.items():
                align_corners = int(arrays["align_corners"]) == 1
                result = evaluate(SOFTMAX, inputs, device, align_corners=align_corners, **options)
                expected = float(arrays["loss_" + name])
                assert abs(float(result.total) - expected) <= 1e-5 * abs(expected), (file, name)
                gradient = 2.5 * torch.from_numpy(arrays["grad_" + name])
                error = float((result.gradient - gradient).abs().max() / gradient.abs().max())
                assert error <= 1e-5, (file, name, error)
