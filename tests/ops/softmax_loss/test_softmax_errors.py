"""Arguments that do not fit: one line that names the argument, what was expected and what came."""

from __future__ import annotations

import math

import pytest
import torch

import ciss_fast
from ciss_fast import backends, native

BACKENDS = ["reference", "cpu"]


def logits(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def labels(*shape: int, value: int = 0, dtype: torch.dtype = torch.int64, device: str = "cpu") -> torch.Tensor:
    return torch.full(shape, value, dtype=dtype, device=device)


# A call that is right: 5 classes, 3 of them old. Each case below changes some of its arguments.
RIGHT = {"student": logits(2, 5, 3, 4), "teacher": logits(2, 3, 3, 4), "label": labels(2, 8, 9), "ce": 1.0, "kd": 1.0}


def call(backend: str | None = None, **changes):
    arguments = {**RIGHT, **changes}
    tensors = [arguments.pop(name) for name in ("student", "teacher", "label")]
    return ciss_fast.softmax_loss(*tensors, backend=backend, **arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_right_call(needs_kernel, backend) -> None:
    total, _ = call(backend)
    assert total.isfinite()


TENSORS = [
    ({"student": logits(2, 5, 3, 4, dtype=torch.int32)}, TypeError, "student: expected float32, .*got torch.int32"),
    ({"student": logits(2, 5, 3, 4, dtype=torch.complex64)}, TypeError, "student: expected .*got torch.complex64"),
    ({"student": logits(5, 3, 4)}, ValueError, r"student: expected logits \[B, C, h, w\], got shape \[5, 3, 4\]"),
    ({"student": logits(2, 5, 3, 4, 1)}, ValueError, r"student: expected .* got shape \[2, 5, 3, 4, 1\]"),
    ({"student": logits(2, 0, 3, 4), "teacher": None, "kd": 0.0}, ValueError, "student: expected at least one"),
    ({"student": logits(2, 5, 0, 4), "teacher": None, "kd": 0.0}, ValueError, r"student: .*1x1.* \[2, 5, 0, 4\]"),
    ({"student": logits(2, 5, 3, 0), "teacher": None, "kd": 0.0}, ValueError, r"student: .*1x1.* \[2, 5, 3, 0\]"),
    ({"teacher": logits(2, 3, 3, 4, dtype=torch.int64)}, TypeError, "teacher: expected .*got torch.int64"),
    ({"teacher": logits(1, 3, 3, 4)}, ValueError, r"teacher: .*\[2, 3, 3, 4\].* got shape \[1, 3, 3, 4\]"),
    ({"teacher": logits(2, 3, 4, 3)}, ValueError, r"teacher: .*\[2, 3, 3, 4\].* got shape \[2, 3, 4, 3\]"),
    ({"teacher": logits(2, 0, 3, 4)}, ValueError, "teacher: expected at least one channel, got 0"),
    ({"old_classes": 2}, ValueError, r"teacher: .*\[2, 2, 3, 4\].* got shape \[2, 3, 3, 4\]"),
    ({"old_classes": -1}, ValueError, "old_classes: expected 0 to 5 .*got -1"),
    ({"old_classes": 6}, ValueError, "old_classes: expected 0 to 5 .*got 6"),
    ({"label": labels(2, 8, 9).float()}, TypeError, "label: expected uint8, int32 or int64, got torch.float32"),
    ({"label": labels(2, 8, 9, dtype=torch.int16)}, TypeError, "label: expected .*got torch.int16"),
    ({"label": labels(2, 8, 9).bool()}, TypeError, "label: expected .*got torch.bool"),
    ({"label": labels(2, 1, 8, 9)}, ValueError, r"label: expected \[B, H, W\] with B = 2, got shape \[2, 1, 8, 9\]"),
    ({"label": labels(8, 9)}, ValueError, r"label: expected \[B, H, W\].* got shape \[8, 9\]"),
    ({"label": labels(3, 8, 9)}, ValueError, r"label: expected .*B = 2, got shape \[3, 8, 9\]"),
    ({"label": labels(2, 8, 9, device="meta")}, ValueError, "label: expected device cpu .*got meta"),
    ({"teacher": logits(2, 3, 3, 4, device="meta")}, ValueError, "teacher: expected device cpu .*got meta"),
    # What the caller did not give (the number of old classes) must not be blamed.
    ({"teacher": logits(3, 3, 4)}, ValueError, r"teacher: .*got shape \[3, 3, 4\]"),
    ({"teacher": logits(2, 6, 3, 4)}, ValueError, r"teacher: .*got shape \[2, 6, 3, 4\]"),
]

OPTIONS = [
    ({"ce": math.nan}, ValueError, "ce: expected a finite weight, got nan"),
    ({"ali": math.inf}, ValueError, "ali: expected a finite weight, got inf"),
    ({"focal": -math.inf}, ValueError, "focal: expected a finite weight, got -inf"),
    ({"ce": 0.0, "kd": 0.0}, ValueError, "weights: expected at least one of ce, cce, kd, ckd, ali, focal other than"),
    *(
        ({f"{name}_average": "mean"}, ValueError, f"{name}_average: expected one of all, valid, region, got 'mean'")
        for name in ("ce", "cce", "kd", "ckd", "ali", "focal")
    ),
    ({"kd_region": "labelled"}, ValueError, "kd_region: expected one of not_unlabelled, .*got 'labelled'"),
    ({"alpha": 0.0}, ValueError, "alpha: expected a finite number above 0, got 0.0"),
    ({"alpha": -1.0}, ValueError, "alpha: .*got -1.0"),
    ({"alpha": math.nan}, ValueError, "alpha: .*got nan"),
    ({"alpha": math.inf}, ValueError, "alpha: .*got inf"),
    ({"ignore_index": 2**31}, ValueError, "ignore_index: expected a 32-bit integer, got 2147483648"),
    ({"ignore_index": -(2**31) - 1}, ValueError, "ignore_index: .*got -2147483649"),
    *(
        (
            {"teacher": None, "kd": 0.0, name: 1.0},
            ValueError,
            f"teacher: expected logits for the terms {name}, got None",
        )
        for name in ("kd", "ckd", "ali")
    ),
    (
        {"teacher": None, "kd": 0.0, "focal": 1.0, "old_classes": 2},
        ValueError,
        "teacher: expected logits for the terms focal, got None",
    ),
    # Of the wrong type.
    ({"ce": "1"}, TypeError, "ce: "),
    ({"alpha": "1"}, TypeError, "alpha: "),
    ({"ignore_index": 25.5}, TypeError, "ignore_index: "),
    ({"old_classes": 3.0}, TypeError, "old_classes: "),
    ({"student": [[1.0]]}, TypeError, "student: "),
    ({"label": [[1.0]]}, TypeError, "label: "),
]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    TENSORS + OPTIONS,
    ids=[f"{i}: {', '.join(case[0])}" for i, case in enumerate(TENSORS + OPTIONS)],
)
def test_message(needs_kernel, changes, kind, message) -> None:
    for backend in BACKENDS:
        with pytest.raises(kind, match=f"^{message}") as caught:
            call(backend, **changes)
        assert "\n" not in str(caught.value)


WRONG_LABELS = [(5, torch.int64), (254, torch.uint8), (-1, torch.int32), (-(2**31), torch.int64), (2**40, torch.int64)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("value", "dtype"), WRONG_LABELS)
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 7, 8), (1, 3, 2)])
@pytest.mark.parametrize("size", [(3, 4), (8, 9)], ids=["enlarged", "at label size"])
def test_label_that_is_no_class(needs_kernel, size, place, value, dtype, backend) -> None:
    label = labels(2, 8, 9, dtype=dtype)
    label[place] = value
    message = f"^label: expected class ids 0 to 4 or ignore_index 255, found {value}$"
    for layout in (label, label.transpose(1, 2).contiguous().transpose(1, 2), label.repeat(1, 1, 2)[:, :, :9]):
        with pytest.raises(ValueError, match=message):
            call(backend, student=logits(2, 5, *size), teacher=logits(2, 3, *size), label=layout)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_wrong_label_is_named(needs_kernel, backend) -> None:
    label = labels(2, 8, 9)
    label[0, 5, 5], label[0, 6, 0], label[1, 0, 0] = 77, 88, 99
    with pytest.raises(ValueError, match="found 77$"):
        call(backend, label=label)


def test_labels_are_checked_by_the_operator_as_well(needs_kernel) -> None:
    with pytest.raises(ValueError, match="^label: .*found 9$"):
        torch.ops.ciss_fast.softmax_loss(
            *(RIGHT["student"], None, labels(2, 8, 9, value=9), 0, [1.0, 0, 0, 0, 0, 0], [0] * 6),
            *(14, 1.0, 255, False, True, False),
        )


@pytest.mark.parametrize("ignore_index", [-(2**31), -(2**31) + 1, 2**31 - 1, -1])
def test_no_label_beyond_32_bits_is_taken_for_ignored(needs_kernel, ignore_index) -> None:
    for value in (2**40, -(2**33), 2**32 + ignore_index):
        with pytest.raises(ValueError):
            call("cpu", label=labels(2, 8, 9, value=value), ignore_index=ignore_index)


@pytest.mark.parametrize("size", [(3, 4), (8, 9)], ids=["enlarged", "at label size"])
def test_unchecked_wrong_labels_count_as_ignored(softmax_inputs, softmax_evaluate, needs_kernel, size) -> None:
    inputs = softmax_inputs(size=size, label_size=(8, 9), sequential=True)
    options = {"backend": "cpu", "ce": 1.0, "cce": 1.0, "kd": 1.0, "ckd": 1.0, "ali": 1.0, "focal": 1.0}
    expected = softmax_evaluate(inputs, **options)
    for value in (7, 300, -5, 2**40, -(2**31)):
        label = torch.where(inputs.label == 255, value, inputs.label)
        result = softmax_evaluate(inputs._replace(label=label), check_labels=False, **options)
        assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)
        assert int(result.terms["pixels_ignored"]) == int(expected.terms["pixels_ignored"])


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="^softmax_loss: backend must be one of .*, triton, cuda, got 'gpu'"):
        call("gpu")


def test_backend_that_cannot_run(monkeypatch) -> None:
    monkeypatch.setitem(backends._ops["softmax_loss"], "cpu", "it is not there")
    with pytest.raises(RuntimeError, match="^softmax_loss: backend 'cpu' cannot run here: it is not there$"):
        call("cpu")
    # Not asked for by name, the definition serves.
    monkeypatch.setattr(native, "library", None)
    assert torch.equal(call()[0], call("reference")[0])


def test_kernel_on_another_device(needs_kernel) -> None:
    meta = {"student": logits(2, 5, 3, 4, device="meta"), "teacher": None, "label": labels(2, 8, 9, device="meta")}
    with pytest.raises(RuntimeError, match="^softmax_loss: backend 'cpu' needs tensors on cpu, got meta$"):
        call("cpu", kd=0.0, **meta)


def test_operator_without_the_library(monkeypatch) -> None:
    monkeypatch.setattr(native, "library", None)
    monkeypatch.setattr(native, "unavailable_reason", "not built")
    with pytest.raises(RuntimeError, match="needs the native library: not built"):
        torch.ops.ciss_fast.softmax_loss(
            *(RIGHT["student"], None, RIGHT["label"], 0, [1.0, 0, 0, 0, 0, 0], [0] * 6),
            *(14, 1.0, 255, False, True, False),
        )
