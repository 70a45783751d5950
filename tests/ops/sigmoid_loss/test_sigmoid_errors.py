"""Arguments that do not fit: one line that names the argument, what was expected and what came."""

from __future__ import annotations

import math

import pytest
import torch

import ciss_fast
from ciss_fast import backends, native


def logits(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def labels(*shape: int, value: int = 0, dtype: torch.dtype = torch.int64, device: str = "cpu") -> torch.Tensor:
    return torch.full(shape, value, dtype=dtype, device=device)


# A call that is right: the auxiliary channel, 2 old classes, 2 new ones. Each case below changes some arguments.
RIGHT = {"student": logits(2, 5, 3, 4), "teacher": logits(2, 3, 3, 4), "label": labels(2, 8, 9), "mbce": 1.0, "kd": 1.0}
ALONE = {"teacher": None, "kd": 0.0}


def call(backend: str | None = None, **changes):
    arguments = {**RIGHT, **changes}
    tensors = [arguments.pop(name) for name in ("student", "teacher", "label")]
    return ciss_fast.sigmoid_loss(*tensors, backend=backend, **arguments)


def test_the_right_call(backend) -> None:
    total, _ = call(backend)
    assert total.isfinite()


TENSORS = [
    ({"student": logits(2, 5, 3, 4, dtype=torch.int32)}, TypeError, "student: expected float32, .*got torch.int32"),
    ({"student": logits(2, 5, 3, 4, dtype=torch.complex64)}, TypeError, "student: expected .*got torch.complex64"),
    ({"student": logits(5, 3, 4)}, ValueError, r"student: expected logits \[B, C, h, w\], got shape \[5, 3, 4\]"),
    ({"student": logits(2, 5, 3, 4, 1)}, ValueError, r"student: expected .* got shape \[2, 5, 3, 4, 1\]"),
    ({"student": logits(2, 0, 3, 4), **ALONE}, ValueError, "student: expected at least one channel, got 0"),
    ({"student": logits(2, 5, 0, 4), **ALONE}, ValueError, r"student: .*1x1.* \[2, 5, 0, 4\]"),
    ({"student": logits(2, 5, 3, 0), **ALONE}, ValueError, r"student: .*1x1.* \[2, 5, 3, 0\]"),
    ({"student": logits(2, 5, 3, 4).to_sparse()}, TypeError, "student: expected a dense tensor, got layout"),
    ({"teacher": logits(2, 3, 3, 4, dtype=torch.int64)}, TypeError, "teacher: expected .*got torch.int64"),
    ({"teacher": logits(1, 3, 3, 4)}, ValueError, r"teacher: .*\[2, 3, 3, 4\].* got shape \[1, 3, 3, 4\]"),
    ({"teacher": logits(2, 3, 4, 3)}, ValueError, r"teacher: .*\[2, 3, 3, 4\].* got shape \[2, 3, 4, 3\]"),
    ({"teacher": logits(2, 0, 3, 4)}, ValueError, r"teacher: expected \[B, 1 \+ old_classes, h, w\].*\[2, 0, 3, 4\]"),
    ({"teacher": [[1.0]]}, TypeError, "teacher: expected a torch.Tensor, got list"),
    ({"old_classes": 1}, ValueError, r"teacher: .*\[2, 2, 3, 4\].* got shape \[2, 3, 3, 4\]"),
    ({"old_classes": -1}, ValueError, "old_classes: expected 0 to 4 .*got -1"),
    ({"old_classes": 5}, ValueError, "old_classes: expected 0 to 4 .*got 5"),
    ({"label": labels(2, 8, 9).float()}, TypeError, "label: expected uint8, int32 or int64, got torch.float32"),
    ({"label": labels(2, 8, 9).bool()}, TypeError, "label: expected .*got torch.bool"),
    ({"label": labels(2, 1, 8, 9)}, ValueError, r"label: expected \[B, H, W\] with B = 2, got shape \[2, 1, 8, 9\]"),
    ({"label": labels(3, 8, 9)}, ValueError, r"label: expected .*B = 2, got shape \[3, 8, 9\]"),
    ({"label": labels(2, 8, 9, device="meta")}, ValueError, "label: expected device cpu .*got meta"),
    ({"teacher": logits(2, 3, 3, 4, device="meta")}, ValueError, "teacher: expected device cpu .*got meta"),
    # What the caller did not give (the number of old classes) must not be blamed.
    ({"teacher": logits(3, 3, 4)}, ValueError, r"teacher: .*got shape \[3, 3, 4\]"),
    ({"teacher": logits(2, 6, 3, 4)}, ValueError, r"teacher: .*got shape \[2, 6, 3, 4\]"),
]

OPTIONS = [
    ({"mbce": math.nan}, ValueError, "mbce: expected a finite weight, got nan"),
    ({"kd": math.inf}, ValueError, "kd: expected a finite weight, got inf"),
    ({"ac": -math.inf}, ValueError, "ac: expected a finite weight, got -inf"),
    ({"mbce": 0.0, "kd": 0.0}, ValueError, "weights: expected at least one of mbce, kd, ac other than 0, got all 0"),
    ({"pos_weight": 0.0}, ValueError, "pos_weight: expected a finite number above 0, got 0.0"),
    ({"pos_weight": -1.0}, ValueError, "pos_weight: .*got -1.0"),
    ({"pos_weight": math.nan}, ValueError, "pos_weight: .*got nan"),
    ({"pos_weight": math.inf}, ValueError, "pos_weight: .*got inf"),
    ({"ignore_index": 2**31}, ValueError, "ignore_index: expected a 32-bit integer, got 2147483648"),
    ({"ignore_index": -(2**31) - 1}, ValueError, "ignore_index: .*got -2147483649"),
    ({"teacher": None}, ValueError, "teacher: expected logits for the term kd, got None"),
    ({"teacher": None, "old_classes": 2}, ValueError, "teacher: expected logits for the term kd, got None"),
    # Of the wrong type.
    ({"mbce": "1"}, TypeError, "mbce: expected a number, got '1'"),
    ({"kd": True}, TypeError, "kd: expected a number, got True"),
    ({"pos_weight": None}, TypeError, "pos_weight: expected a number, got None"),
    ({"ignore_index": 25.5}, TypeError, "ignore_index: expected an integer, got 25.5"),
    ({"old_classes": 3.0}, TypeError, "old_classes: expected an integer, got 3.0"),
    ({"align_corners": 1}, TypeError, "align_corners: expected True or False, got 1"),
    ({"check_labels": None}, TypeError, "check_labels: expected True or False, got None"),
    ({"student": [[1.0]]}, TypeError, "student: expected a torch.Tensor, got list"),
    ({"label": [[1.0]]}, TypeError, "label: expected a torch.Tensor, got list"),
]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    TENSORS + OPTIONS,
    ids=[f"{i}: {', '.join(case[0])}" for i, case in enumerate(TENSORS + OPTIONS)],
)
def test_message(backend, changes, kind, message) -> None:
    with pytest.raises(kind, match=f"^{message}") as caught:
        call(backend, **changes)
    assert "\n" not in str(caught.value)


WRONG_LABELS = [(5, torch.int64), (254, torch.uint8), (-1, torch.int32), (-(2**31), torch.int64), (2**40, torch.int64)]


@pytest.mark.parametrize(("value", "dtype"), WRONG_LABELS)
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 7, 8), (1, 3, 2)])
@pytest.mark.parametrize("size", [(3, 4), (8, 9)], ids=["enlarged", "at label size"])
@pytest.mark.parametrize("terms", [{"mbce": 1.0, "kd": 1.0}, {"mbce": 0.0, "ac": 1.0}], ids=["mbce", "no mbce"])
def test_label_that_is_no_class(backend, terms, size, place, value, dtype) -> None:
    # Checked even where no term reads the labels.
    label = labels(2, 8, 9, dtype=dtype)
    label[place] = value
    message = f"^label: expected class ids 0 to 4 or ignore_index 255, found {value}$"
    for layout in (label, label.transpose(1, 2).contiguous().transpose(1, 2), label.repeat(1, 1, 2)[:, :, :9]):
        with pytest.raises(ValueError, match=message):
            call(backend, student=logits(2, 5, *size), teacher=logits(2, 3, *size), label=layout, **terms)


def test_the_first_wrong_label_is_named(backend) -> None:
    label = labels(2, 8, 9)
    label[0, 5, 5], label[0, 6, 0], label[1, 0, 0] = 77, 88, 99
    with pytest.raises(ValueError, match="found 77$"):
        call(backend, label=label)


@pytest.mark.parametrize("ignore_index", [-(2**31) + 1, 2**31 - 1, -1])
def test_no_label_beyond_32_bits_is_taken_for_ignored(needs_kernel, ignore_index) -> None:
    for value in (2**40, -(2**33), 2**32 + ignore_index):
        with pytest.raises(ValueError, match=f"^label: .*found {value}$"):
            call("cpu", label=labels(2, 8, 9, value=value), ignore_index=ignore_index)


@pytest.mark.parametrize("size", [(3, 4), (8, 9)], ids=["enlarged", "at label size"])
def test_unchecked_wrong_labels_are_negatives(sigmoid_inputs, sigmoid_evaluate, backend, size) -> None:
    inputs = sigmoid_inputs(size=size, label_size=(8, 9), sequential=True)
    options = {"backend": backend, "mbce": 1.0, "kd": 1.0, "ac": 1.0, "pos_weight": 2.0}
    expected = sigmoid_evaluate(inputs, **options)
    for value in (7, 300, -5, 2**40, -(2**31), 2**32 + 5):
        label = torch.where(inputs.label == 255, value, inputs.label)
        result = sigmoid_evaluate(inputs._replace(label=label), check_labels=False, **options)
        assert torch.equal(result.total, expected.total) and torch.equal(result.gradient, expected.gradient)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="^sigmoid_loss: backend must be one of .*, triton, cuda, got 'gpu'"):
        call("gpu")


def test_backend_that_cannot_run(monkeypatch) -> None:
    monkeypatch.setitem(backends._ops["sigmoid_loss"], "cpu", "it is not there")
    with pytest.raises(RuntimeError, match="^sigmoid_loss: backend 'cpu' cannot run here: it is not there$"):
        call("cpu")
    # Not asked for by name, the definition serves.
    monkeypatch.setattr(native, "library", None)
    assert torch.equal(call()[0], call("reference")[0])


def test_kernel_on_another_device(needs_kernel) -> None:
    meta = {"student": logits(2, 5, 3, 4, device="meta"), "teacher": None, "label": labels(2, 8, 9, device="meta")}
    with pytest.raises(RuntimeError, match="^sigmoid_loss: backend 'cpu' needs tensors on cpu, got meta$"):
        call("cpu", kd=0.0, **meta)


# Arguments of the operator below the public function, in its order.
OPERATOR = {"old_classes": 2, "weights": [1.0, 5.0, 1.0], "pos_weight": 1.0, "ignore_index": 255}
PAST_THE_FUNCTION = [
    ({"student": logits(2, 5, 3)}, r"^student: .*got shape \[2, 5, 3\]$"),
    ({"teacher": None}, "^teacher: expected logits for the term kd, got None$"),
    ({"teacher": logits(2, 4, 3, 4)}, r"^teacher: .*got shape \[2, 4, 3, 4\]$"),
    ({"label": labels(2, 8, 9, value=9)}, "^label: .*found 9$"),
    ({"old_classes": 5}, "^old_classes: expected 0 to 4"),
    ({"weights": [1.0, 5.0]}, "^weights: expected 3 values, got 2$"),
    ({"weights": [1.0, math.inf, 1.0]}, "^kd: expected a finite weight, got inf$"),
    ({"weights": [0.0, 0.0, 0.0]}, "^weights: expected at least one"),
    ({"pos_weight": 0.0}, "^pos_weight: expected a finite number above 0, got 0.0$"),
    ({"ignore_index": 2**40}, "^ignore_index: expected a 32-bit integer"),
]


@pytest.mark.parametrize(("changes", "message"), PAST_THE_FUNCTION)
def test_the_operator_checks_as_well(needs_kernel, changes, message) -> None:
    tensors = {name: changes.get(name, RIGHT[name]) for name in ("student", "teacher", "label")}
    options = {**OPERATOR, **{name: value for name, value in changes.items() if name in OPERATOR}}
    with pytest.raises(ValueError, match=message):
        torch.ops.ciss_fast.sigmoid_loss(*tensors.values(), *options.values(), False, True, True)


@pytest.mark.parametrize(
    ("library", "reason"),
    [(None, "not built"), (object(), "the native library has no sigmoid_loss: it was built from older sources")],
)
def test_operator_without_the_kernel(monkeypatch, library, reason) -> None:
    monkeypatch.setattr(native, "library", library)
    monkeypatch.setattr(native, "unavailable_reason", "not built" if library is None else None)
    assert native.reason_without("sigmoid_loss") == reason
    tensors = [RIGHT[name] for name in ("student", "teacher", "label")]
    with pytest.raises(RuntimeError, match=f"^ciss_fast::sigmoid_loss needs the native library: {reason}$"):
        torch.ops.ciss_fast.sigmoid_loss(*tensors, *OPERATOR.values(), False, True, True)
