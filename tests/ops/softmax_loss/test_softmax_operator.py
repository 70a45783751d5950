"""The registration of ``ciss_fast::softmax_loss``, and its gradient against differences of its values."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

import ciss_fast

ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}
MIB = {"cce": 1.0, "ckd": 10.0}
EVERYTHING = dict.fromkeys(("ce", "cce", "kd", "ckd", "ali", "focal"), 1.0)

pytestmark = pytest.mark.usefixtures("needs_kernel")


def total_of(inputs, options):
    """Function of the student alone."""

    def total(student: torch.Tensor) -> torch.Tensor:
        return ciss_fast.softmax_loss(student, inputs.teacher, inputs.label, backend="cpu", **options)[0]

    return total


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


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("label_size", [(7, 8), (2, 3), (3, 2)])
@pytest.mark.parametrize("options", [ALIFE, MIB, EVERYTHING], ids=["ALIFE", "MiB", "everything"])
def test_numerical_gradient(softmax_inputs, options, label_size, align_corners) -> None:
    inputs = softmax_inputs(
        batch=1, classes=4, old=2, size=(2, 3), label_size=label_size, scale=1.0, sequential=True, dtype=torch.float64
    )
    loss = total_of(inputs, options | {"align_corners": align_corners})
    assert gradcheck(loss, inputs.student.clone().requires_grad_(), check_batched_grad=False)


def test_numerical_gradient_without_a_teacher(softmax_inputs) -> None:
    inputs = softmax_inputs(
        batch=1, classes=3, size=(2, 3), label_size=(7, 8), teacher=False, scale=1.0, dtype=torch.float64
    )
    for options in ({"ce": 1.0}, {"cce": 1.0, "old_classes": 2}, {"focal": 1.0}):
        label = inputs.label.clamp(max=2).where(inputs.label != 255, torch.tensor(255))
        loss = total_of(inputs._replace(label=label), options)
        assert gradcheck(loss, inputs.student.clone().requires_grad_(), check_batched_grad=False)
