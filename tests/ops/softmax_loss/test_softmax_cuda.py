"""The CUDA kernels of the softmax loss, emulated on the CPU, against the definition in double precision."""

from __future__ import annotations

import pytest
import torch
from loss_testing import Inputs, Result, assert_close, same_bits

from ciss_fast.ops.softmax_loss import PIXEL_COUNTS
from ciss_fast.ops.softmax_loss.cuda_launch import softmax_loss
from ciss_fast.ops.softmax_loss.operator import AVERAGE_CODES, KD_REGION_BITS
from ciss_fast.ops.softmax_loss.options import DEFAULT_AVERAGE, TERMS

pytestmark = pytest.mark.usefixtures("emulated_cuda")

METHODS = {
    "fine-tuning": {"ce": 1.0},
    "mib": {"cce": 1.0, "ckd": 10.0, "kd_region": "all", "alpha": 1.5},
    "alife": {"ce": 1.0, "ali": 3.0, "kd": 1.0},
    "alife, memory": {"ali": 3.0, "focal": 1.0},
    "everything": {"ce": 1.0, "cce": 0.5, "kd": 2.0, "ckd": 3.0, "ali": 0.7, "focal": 1.3, "kd_region": "unlabelled"},
}
# Logits' and labels' sizes: pieces of 16 and 8 pixels, of 16 and 17, of few, one; at label size; shrunk.
SIZES = [
    ((3, 2), (48, 32)),
    ((3, 3), (33, 34)),
    ((4, 5), (17, 22)),
    ((4, 5), (9, 13)),
    ((4, 5), (4, 5)),
    ((6, 5), (3, 2)),
]


def launch(
    inputs: Inputs, *, align_corners=False, kd_region="not_unlabelled", alpha=1.0, need_gradient=True, **weights
) -> Result:
    """The kernels' answer. Its gradient is float32, whatever the logits are."""
    old = 0 if inputs.teacher is None else inputs.teacher.shape[1]
    total, values, pixels, gradient = softmax_loss(
        *inputs,
        old,
        [weights.get(name, 0.0) for name in TERMS],
        [AVERAGE_CODES[DEFAULT_AVERAGE[name]] for name in TERMS],
        KD_REGION_BITS[kd_region],
        alpha,
        255,
        align_corners,
        True,
        need_gradient,
    )
    terms = {name: value for name, value in zip(TERMS, values, strict=True) if name in weights}
    terms |= {f"pixels_{name}": count for name, count in zip(PIXEL_COUNTS, pixels, strict=True)}
    return Result(total, terms, gradient)


@pytest.fixture
def check(softmax_define):
    """Function that compares the kernels with the definition."""

    def compare(inputs: Inputs, loss: float = 1e-5, absolute: float = 1e-6, **options) -> Result:
        result = launch(inputs, **options)
        assert_close(result, softmax_define(inputs, **options), options, loss, 1e-5, absolute)
        return result

    return compare


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("size", "label_size"), SIZES)
def test_sizes(softmax_inputs, check, nan_filled, method, size, label_size) -> None:
    old = 0 if method == "fine-tuning" else 4
    inputs = softmax_inputs(size=size, label_size=label_size, old=old, teacher=old > 0, sequential=True)
    for align_corners in (False, True):
        check(inputs, align_corners=align_corners, **METHODS[method])


@pytest.mark.parametrize("method", ["alife", "mib"])
@pytest.mark.parametrize(("classes", "old"), [(2, 1), (3, 3), (21, 16), (70, 51)])
def test_classes(softmax_inputs, check, method, classes, old) -> None:
    inputs = softmax_inputs(batch=1, classes=classes, old=old, size=(3, 2), label_size=(20, 32), sequential=old > 1)
    check(inputs, **METHODS[method])


@pytest.mark.parametrize("scale", [30.0, 120.0, 900.0])
@pytest.mark.parametrize("method", ["alife", "mib", "alife, memory"])
def test_logits_far_apart(softmax_inputs, check, method, scale) -> None:
    # The geometric form gives up cells with a class that falls too low; the exact one does them.
    inputs = softmax_inputs(batch=1, scale=scale, sequential=True)
    check(inputs, absolute=1e-6 * scale, **METHODS[method])


def test_some_cells_exact(softmax_inputs, check) -> None:
    inputs = softmax_inputs(batch=1, size=(4, 4), label_size=(64, 64))
    inputs.student[0, 2, 1, 1] = -150.0
    inputs.teacher[0, 1, 3, 3] = 200.0
    check(inputs, absolute=1e-5, **METHODS["alife"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
def test_types_and_strides(softmax_inputs, check, dtype, label_size) -> None:
    student, teacher, label = softmax_inputs(dtype=dtype, label_size=label_size)
    student = student.to(memory_format=torch.channels_last)
    teacher = teacher.transpose(2, 3).contiguous().transpose(2, 3).float()
    for label_type in (torch.uint8, torch.int32, torch.int64):
        strided = torch.stack([label, label], dim=-1).to(label_type)[..., 0]
        result = check(Inputs(student, teacher, strided), **METHODS["alife"])
        assert result.gradient.stride() == student.stride()


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5), (3, 2)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("of", ["student", "teacher"])
def test_not_finite(softmax_inputs, label_size, value, of) -> None:
    inputs = softmax_inputs(label_size=label_size)
    getattr(inputs, of)[1, 2, 1, 1] = value
    result = launch(inputs, **METHODS["alife"])
    assert result.total.isnan() and result.gradient.isnan().all()


def test_wrong_labels_count_as_ignored(softmax_inputs) -> None:
    inputs = softmax_inputs()
    ignored, wrong = inputs.label.clone(), inputs.label.clone()
    ignored[0, :3] = 255
    wrong[0, :3] = torch.tensor([7, -1, 2**40])[:, None]
    assert same_bits(launch(inputs._replace(label=wrong), ce=1.0), launch(inputs._replace(label=ignored), ce=1.0))


@pytest.mark.parametrize("label_size", [(32, 40), (4, 5)])
def test_without_gradient(softmax_inputs, label_size) -> None:
    inputs = softmax_inputs(label_size=label_size)
    for method in ("alife", "mib", "alife, memory"):
        expected = launch(inputs, **METHODS[method])
        result = launch(inputs, need_gradient=False, **METHODS[method])
        assert result.gradient.numel() == 0
        assert same_bits(result._replace(gradient=expected.gradient), expected)


@pytest.mark.parametrize("method", ["everything", "alife"])
def test_order_of_threads(softmax_inputs, monkeypatch, method) -> None:
    # A barrier that is missing shows as a result that depends on which thread runs first.
    for label_size in ((32, 40), (4, 5)):
        inputs = softmax_inputs(batch=1, label_size=label_size)
        ascending = launch(inputs, **METHODS[method])
        monkeypatch.setenv("CISS_FAST_EMULATION_ORDER", "descending")
        assert same_bits(launch(inputs, **METHODS[method]), ascending)
        monkeypatch.delenv("CISS_FAST_EMULATION_ORDER")


def test_empty(softmax_inputs) -> None:
    student, teacher, label = softmax_inputs()
    result = launch(Inputs(student[:0], teacher[:0], label[:0]), **METHODS["alife"])
    assert result.total == 0 and result.gradient.shape == (0, 7, 4, 5)


def test_too_many_classes_is_an_error(softmax_inputs, monkeypatch) -> None:
    inputs = softmax_inputs(batch=1, classes=60)
    monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", "8000")
    with pytest.raises(RuntimeError, match="softmax_loss: expected classes that fit into 8000 bytes"):
        launch(inputs, ce=1.0)
