"""The CUDA kernels of the sigmoid loss, emulated on the CPU, against the definition in double precision."""

from __future__ import annotations

import pytest
import torch
from loss_testing import Inputs, Result, assert_close, same_bits

from ciss_fast.ops.sigmoid_loss.cuda_launch import sigmoid_loss
from ciss_fast.ops.sigmoid_loss.options import TERMS

pytestmark = pytest.mark.usefixtures("emulated_cuda")

MIX = {"mbce": 1.0, "kd": 5.0, "ac": 1.0, "pos_weight": 2.0}
BASE = {"mbce": 1.0, "ac": 1.0, "pos_weight": 35.0}
# Logits' and labels' sizes: pieces of 16 and 8 pixels, of 16 and 17, of few, one; at label size; shrunk.
SIZES = [
    ((3, 2), (48, 32)),
    ((3, 3), (33, 34)),
    ((4, 5), (17, 22)),
    ((4, 5), (9, 13)),
    ((4, 5), (4, 5)),
    ((6, 5), (3, 2)),
]


def launch(inputs: Inputs, *, align_corners=False, pos_weight=1.0, need_gradient=True, **weights) -> Result:
    """The kernels' answer. Its gradient is float32, whatever the logits are."""
    old = 0 if inputs.teacher is None else inputs.teacher.shape[1] - 1
    arguments = [weights.get(name, 0.0) for name in TERMS], pos_weight, 255, align_corners, True, need_gradient
    teacher = inputs.teacher if weights.get("kd") else None
    total, values, gradient = sigmoid_loss(inputs.student, teacher, inputs.label, old, *arguments)
    return Result(total, {name: v for name, v in zip(TERMS, values, strict=True) if name in weights}, gradient)


@pytest.fixture
def check(sigmoid_define):
    """Function that compares the kernels with the definition."""

    def compare(inputs: Inputs, loss: float = 1e-5, absolute: float = 1e-30, **options) -> Result:
        result = launch(inputs, **options)
        assert_close(result, sigmoid_define(inputs, **options), options, loss, 1e-5, absolute)
        return result

    return compare


@pytest.mark.parametrize(("size", "label_size"), SIZES)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_sizes(sigmoid_inputs, check, nan_filled, size, label_size, scale) -> None:
    inputs = sigmoid_inputs(size=size, label_size=label_size, sequential=True, scale=scale)
    for align_corners in (False, True):
        check(inputs, align_corners=align_corners, **MIX)
        check(inputs._replace(teacher=None), align_corners=align_corners, **BASE)


@pytest.mark.parametrize("weights", [{"mbce": 1.0}, {"kd": 2.0}, {"ac": 3.0}, {"kd": 1.0, "ac": 1.0}])
@pytest.mark.parametrize("label_size", [(20, 32), (4, 5)])
def test_single_terms(sigmoid_inputs, check, weights, label_size) -> None:
    check(sigmoid_inputs(label_size=label_size), **weights)


@pytest.mark.parametrize(("classes", "old"), [(2, 1), (4, 4), (21, 16), (80, 40)])
def test_classes(sigmoid_inputs, check, classes, old) -> None:
    inputs = sigmoid_inputs(batch=1, classes=classes, old=old, size=(3, 2), label_size=(20, 32), sequential=old > 1)
    check(inputs, **MIX)


@pytest.mark.parametrize("scale", [10.0, 50.0, 1000.0])
@pytest.mark.parametrize("label_size", [(64, 64), (16, 16)])
def test_logits_far_apart(sigmoid_inputs, check, scale, label_size) -> None:
    # Geometric lines along either axis, every pixel by itself.
    inputs = sigmoid_inputs(batch=1, scale=scale, size=(4, 4), label_size=label_size)
    for smooth in (None, 2, 3):
        if smooth:
            inputs.student[:] = inputs.student.mean(smooth, keepdim=True)
        check(inputs, **MIX)


@pytest.mark.parametrize("centre", [-30.0, -12.0, 25.0])
def test_sure_of_a_class(sigmoid_inputs, check, centre) -> None:
    inputs = sigmoid_inputs(batch=1, scale=0.5)
    inputs.student.add_(centre)
    inputs.teacher.add_(centre)
    check(inputs, kd=1.0)
    check(inputs, mbce=1.0, ac=1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
def test_types_and_strides(sigmoid_inputs, check, dtype, label_size) -> None:
    student, teacher, label = sigmoid_inputs(dtype=dtype, label_size=label_size)
    student = student.to(memory_format=torch.channels_last)
    teacher = teacher.transpose(2, 3).contiguous().transpose(2, 3).float()
    for label_type in (torch.uint8, torch.int32, torch.int64):
        strided = torch.stack([label, label], dim=-1).to(label_type)[..., 0]
        result = check(Inputs(student, teacher, strided), **MIX)
        assert result.gradient.stride() == student.stride()


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5), (3, 2)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("of", "channel"), [("student", 0), ("student", 5), ("teacher", 2)])
def test_not_finite(sigmoid_inputs, label_size, value, of, channel) -> None:
    inputs = sigmoid_inputs(label_size=label_size)
    getattr(inputs, of)[1, channel, 1, 1] = value
    result = launch(inputs, kd=1.0)  # of the student's channels the old ones alone are in the term
    assert result.total.isnan() and result.gradient.isnan().all()


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
def test_wrong_labels_are_negatives(sigmoid_inputs, label_size) -> None:
    inputs = sigmoid_inputs(label_size=label_size)
    ignored, wrong = inputs.label.clone(), inputs.label.clone()
    ignored[0, :3] = 255
    wrong[0, :3] = torch.tensor([7, -1, 2**40])[:, None]
    assert same_bits(launch(inputs._replace(label=wrong), **MIX), launch(inputs._replace(label=ignored), **MIX))


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
def test_without_gradient(sigmoid_inputs, label_size) -> None:
    inputs = sigmoid_inputs(label_size=label_size)
    expected, result = launch(inputs, **MIX), launch(inputs, need_gradient=False, **MIX)
    assert result.gradient.numel() == 0
    assert same_bits(result._replace(gradient=expected.gradient), expected)


def test_order_of_threads(sigmoid_inputs, monkeypatch) -> None:
    # A barrier that is missing shows as a result that depends on which thread runs first.
    for scale, label_size in [(0.5, (32, 40)), (5.0, (32, 40)), (80.0, (32, 40)), (3.0, (4, 5))]:
        inputs = sigmoid_inputs(batch=1, label_size=label_size, scale=scale)
        ascending = launch(inputs, **MIX)
        monkeypatch.setenv("CISS_FAST_EMULATION_ORDER", "descending")
        assert same_bits(launch(inputs, **MIX), ascending)
        monkeypatch.delenv("CISS_FAST_EMULATION_ORDER")


def test_empty(sigmoid_inputs) -> None:
    student, teacher, label = sigmoid_inputs()
    result = launch(Inputs(student[:0], teacher[:0], label[:0]), **MIX)
    assert result.total == 0 and result.gradient.shape == (0, 7, 4, 5)
