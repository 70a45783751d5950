"""The registration of ``ciss_fast::sigmoid_loss``, and its gradient against differences of its values."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

import ciss_fast

MIXES = {
    "DKD": {"mbce": 1.0, "kd": 5.0, "ac": 1.0},
    "weighted": {"mbce": 1.0, "kd": 0.5, "ac": 0.1, "pos_weight": 35.0},
    "KD": {"kd": 1.0},
}
ARGUMENTS = {  # changes to the arguments of the operator below the public function
    "DKD": {},
    "KD alone": {"weights": [0.0, 1.0, 0.0]},
    "no teacher": {"teacher": None, "weights": [1.0, 0.0, 1.0]},
    "base step": {"teacher": None, "old_classes": 0, "weights": [1.0, 0.0, 1.0], "pos_weight": 2.0},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
    "channels last": {"memory_format": torch.channels_last},
    "at label size": {"label_size": (4, 5)},
    "aligned corners": {"align_corners": True},
    "no gradient": {"need_gradient": False},
    "labels not checked": {"check_labels": False, "label_type": torch.uint8},
}


@pytest.mark.usefixtures("needs_kernel")
@pytest.mark.parametrize("case", ARGUMENTS)
def test_operator(sigmoid_inputs, case) -> None:
    changes = dict(ARGUMENTS[case])
    inputs = sigmoid_inputs(label_size=changes.get("label_size", (9, 13)), dtype=changes.get("dtype", torch.float32))
    student = inputs.student.contiguous(memory_format=changes.get("memory_format", torch.contiguous_format))
    need_gradient = changes.get("need_gradient", True)
    arguments = (
        student.detach().requires_grad_(need_gradient),
        changes.get("teacher", inputs.teacher.nan_to_num()),  # opcheck compares what it passed, and NaN differs
        inputs.label.to(changes.get("label_type", torch.int64)),
        changes.get("old_classes", 3),
        changes.get("weights", [1.0, 5.0, 1.0]),
        changes.get("pos_weight", 1.0),
        255,
        changes.get("align_corners", False),
        changes.get("check_labels", True),
        need_gradient,
    )
    torch.library.opcheck(torch.ops.ciss_fast.sigmoid_loss.default, arguments)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("label_size", [(7, 8), (2, 3), (3, 2)])
@pytest.mark.parametrize("mix", MIXES)
def test_numerical_gradient(sigmoid_inputs, backend, mix, label_size, align_corners) -> None:
    inputs = sigmoid_inputs(
        batch=1, classes=4, old=2, size=(2, 3), label_size=label_size, scale=1.0, sequential=True, dtype=torch.float64
    )

    def loss(student: torch.Tensor) -> torch.Tensor:
        options = {"align_corners": align_corners, "backend": backend, **MIXES[mix]}
        return ciss_fast.sigmoid_loss(student, inputs.teacher, inputs.label, **options)[0]

    assert gradcheck(loss, inputs.student.clone().requires_grad_(), check_batched_grad=False)


def test_numerical_gradient_without_a_teacher(sigmoid_inputs, backend) -> None:
    inputs = sigmoid_inputs(
        batch=1, classes=3, old=1, size=(2, 3), label_size=(7, 8), teacher=False, scale=1.0, dtype=torch.float64
    )
    for options in ({"mbce": 1.0, "pos_weight": 2.0}, {"ac": 1.0}, {"mbce": 1.0, "ac": 1.0, "old_classes": 1}):

        def loss(student: torch.Tensor, options=options) -> torch.Tensor:
            return ciss_fast.sigmoid_loss(student, None, inputs.label, backend=backend, **options)[0]

        assert gradcheck(loss, inputs.student.clone().requires_grad_(), check_batched_grad=False)
