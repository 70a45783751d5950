"""`predict` and `confusion`: what does not fit is refused in one line that begins with the argument's name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import ciss_fast
from ciss_fast import backends

LOGITS = torch.zeros(2, 3, 4, 5)
LABEL = torch.zeros(2, 8, 10, dtype=torch.int64)


def assert_one_line(error: pytest.ExceptionInfo, argument: str, expected: str, got: str) -> None:
    message = str(error.value)
    assert message.startswith(f"{argument}: expected ") and "\n" not in message, message
    assert expected in message and got in message, message


@pytest.mark.parametrize(
    "logits, error, expected, got",
    [
        (LOGITS.long(), TypeError, "float32, bfloat16, float16 or float64", "torch.int64"),
        (LOGITS.to(torch.complex64), TypeError, "float32", "torch.complex64"),
        (LOGITS[0], ValueError, "[B, C, h, w]", "[3, 4, 5]"),
        (LOGITS[None], ValueError, "[B, C, h, w]", "[1, 2, 3, 4, 5]"),
        (LOGITS[:, :0], ValueError, "C >= 1", "[2, 0, 4, 5]"),
        (LOGITS[:, :, :0], ValueError, "at least 1x1", "[2, 3, 0, 5]"),
        (LOGITS[..., :0], ValueError, "at least 1x1", "[2, 3, 4, 0]"),
        (LOGITS.numpy(), TypeError, "Tensor", "ndarray"),
        (None, TypeError, "Tensor", "None"),
    ],
)
def test_logits(logits, error, expected, got, backend) -> None:
    with pytest.raises(error) as caught:
        ciss_fast.predict(logits, (8, 10), backend=backend)
    assert_one_line(caught, "logits", expected, got)
    with pytest.raises(error) as caught:
        ciss_fast.confusion(logits, LABEL, 3, backend=backend)
    assert_one_line(caught, "logits", expected, got)


@pytest.mark.parametrize(
    "size, expected, got",
    [
        ((8, 10, 1), "(H, W)", "(8, 10, 1)"),
        ((8,), "(H, W)", "(8,)"),
        ((-1, 10), "(H, W)", "(-1, 10)"),
        ((8, -1), "(H, W)", "(8, -1)"),
        ((), "(H, W)", "()"),
        (8, "(H, W)", "8"),
        (None, "(H, W)", "None"),
        ((8.0, 10), "(H, W)", "8.0"),
        ("88", "(H, W)", "88"),
        ([(8, 10)], "each of 2 images", "1"),
        ([(8, 10)] * 3, "each of 2 images", "3"),
        ([(8, 10), (8, 10, 1)], "(H, W)", "(8, 10, 1)"),
        ([(8, 10), (8, -10)], "(H, W)", "(8, -10)"),
        ([(8, 10), 8], "(H, W)", "8"),
        ([8, (8, 10)], "(H, W)", "8"),
    ],
)
def test_size(size, expected, got, backend) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        ciss_fast.predict(LOGITS, size, backend=backend)
    assert_one_line(caught, "size", expected, got)


@pytest.mark.parametrize(
    "label, error, expected, got",
    [
        (LABEL.float(), TypeError, "uint8, int32 or int64", "torch.float32"),
        (LABEL.bool(), TypeError, "uint8, int32 or int64", "torch.bool"),
        (LABEL.short(), TypeError, "uint8, int32 or int64", "torch.int16"),
        (LABEL[0], ValueError, "[B, H, W] with B = 2", "[8, 10]"),
        (LABEL[:, None], ValueError, "[B, H, W] with B = 2", "[2, 1, 8, 10]"),
        (LABEL[:1], ValueError, "[B, H, W] with B = 2", "[1, 8, 10]"),
        (LABEL.to("meta"), ValueError, "device cpu", "meta"),
        ([LABEL[0]], ValueError, "each of 2 images", "1"),
        ([LABEL[0]] * 3, ValueError, "each of 2 images", "3"),
        ([LABEL[0], LABEL[1].float()], TypeError, "uint8, int32 or int64", "torch.float32"),
        (list(LABEL[:, None]), ValueError, "W]", "8, 10]"),
        (LABEL.numpy(), TypeError, "Tensor", "ndarray"),
        (list(LABEL.numpy()), TypeError, "Tensor", "ndarray"),
        (None, TypeError, "Tensor", "None"),
    ],
)
def test_label(label, error, expected, got, backend) -> None:
    with pytest.raises(error) as caught:
        ciss_fast.confusion(LOGITS, label, 3, backend=backend)
    assert_one_line(caught, "label", expected, got)


@pytest.mark.parametrize("num_classes, error", [(2, ValueError), (0, ValueError), (-3, ValueError), (3.0, TypeError)])
def test_num_classes(num_classes, error, backend) -> None:
    with pytest.raises(error) as caught:
        ciss_fast.confusion(LOGITS, LABEL, num_classes, backend=backend)
    assert_one_line(caught, "num_classes", "", str(num_classes))


@pytest.mark.parametrize("kind", ["argmax", "", None])
def test_kind(kind, backend) -> None:
    with pytest.raises(ValueError) as caught:
        ciss_fast.predict(LOGITS, (8, 10), kind=kind, backend=backend)
    assert_one_line(caught, "kind", "softmax, sigmoid", repr(kind))
    with pytest.raises(ValueError) as caught:
        ciss_fast.confusion(LOGITS, LABEL, 3, kind=kind, backend=backend)
    assert_one_line(caught, "kind", "softmax, sigmoid", repr(kind))


def test_integers_of_numpy_and_torch_are_sizes(backend) -> None:
    for size in (np.array([8, 10]), (np.int64(8), np.int32(10)), torch.Size([8, 10]), [8, 10]):
        assert ciss_fast.predict(LOGITS, size, backend=backend).shape == (2, 8, 10)


def test_an_unknown_backend() -> None:
    with pytest.raises(ValueError, match="^predict: backend must be one of reference, cpu, triton, got 'fast'$"):
        ciss_fast.predict(LOGITS, (8, 10), backend="fast")
    with pytest.raises(ValueError, match="^confusion: backend must be one of reference, cpu, triton, got 'fast'$"):
        ciss_fast.confusion(LOGITS, LABEL, 3, backend="fast")


def test_a_backend_that_cannot_run_is_no_fallback(monkeypatch) -> None:
    for op in ("predict", "confusion"):
        monkeypatch.setitem(backends._ops[op], "cpu", "left out on purpose")
    with pytest.raises(RuntimeError, match="^predict: backend 'cpu' cannot run here: left out on purpose$"):
        ciss_fast.predict(LOGITS, (8, 10), backend="cpu")
    with pytest.raises(RuntimeError, match="^confusion: backend 'cpu' cannot run here: left out on purpose$"):
        ciss_fast.confusion(LOGITS, LABEL, 3, backend="cpu")
    # Not asked for by name, the definition serves.
    assert ciss_fast.predict(LOGITS, (8, 10)).eq(0).all()
    assert ciss_fast.confusion(LOGITS, LABEL, 3)[0, 0] == LABEL.numel()


def test_a_backend_for_other_tensors(kernel) -> None:
    logits, label = LOGITS.to("meta"), LABEL.to("meta")
    with pytest.raises(RuntimeError, match="^predict: backend 'cpu' needs tensors on cpu, got meta$"):
        ciss_fast.predict(logits, (8, 10), backend="cpu")
    with pytest.raises(RuntimeError, match="^confusion: backend 'cpu' needs tensors on cpu, got meta$"):
        ciss_fast.confusion(logits, label, 3, backend="cpu")


def test_nothing_is_counted_after_an_error(backend) -> None:
    label = LABEL.clone()
    label[1, 7, 9] = 3
    with pytest.raises(ValueError, match="found 3$"):
        ciss_fast.confusion(LOGITS, label, 3, backend=backend)
    assert ciss_fast.confusion(LOGITS, LABEL, 3, backend=backend)[0, 0] == LABEL.numel()


def test_the_operators_themselves_refuse_what_would_read_or_write_elsewhere(kernel) -> None:
    # In a process of its own: what is not refused may end it.
    code = """
import torch, ciss_fast
logits, label = torch.randn(2, 50, 4, 4), torch.ones(2, 64, 64, dtype=torch.int64)
predict, confusion = torch.ops.ciss_fast.predict, torch.ops.ciss_fast.confusion
for call in (
    lambda: confusion(logits, label[:1], 50, False, False, 255),
    lambda: confusion(logits, label[0], 50, False, False, 255),
    lambda: confusion(logits, label, 2, False, False, 255),
    lambda: confusion(logits[:, :, :0], label, 50, False, False, 255),
    lambda: predict(logits[..., :0], 8, 8, False, False),
    lambda: predict(logits[0], 8, 8, False, False),
    lambda: predict(logits, -8, -8, False, False),
):
    try:
        call()
    except ValueError as error:
        print(str(error).split(":")[0])
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["label", "label", "num_classes", "logits", "logits", "logits", "size"]
