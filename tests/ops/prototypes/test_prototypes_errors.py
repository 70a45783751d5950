"""`prototypes`: what does not fit is refused in one line that begins with the argument's name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import ciss_fast
from ciss_fast import backends

FEATURE = torch.ones(6, 4)
MEMORY = torch.ones(3, 5, 4)


def refused(error: type[Exception], argument: str, expected: str, got: str, *arguments, **options) -> None:
    with pytest.raises(error) as caught:
        ciss_fast.prototypes(*arguments, **options)
    message = str(caught.value)
    assert message.startswith(f"{argument}: expected ") and "\n" not in message, message
    assert expected in message and got in message, message


@pytest.mark.parametrize(
    "feature, error, expected, got",
    [
        (None, TypeError, "torch.Tensor", "NoneType"),
        (FEATURE.numpy(), TypeError, "torch.Tensor", "ndarray"),
        (FEATURE.to_sparse(), TypeError, "dense", "sparse"),
        (FEATURE.long(), TypeError, "float32, bfloat16, float16 or float64", "torch.int64"),
        (FEATURE[0], ValueError, "[P, D]", "[4]"),
        (FEATURE[None], ValueError, "[P, D]", "[1, 6, 4]"),
        (FEATURE[:, :3], ValueError, "D = 4", "[6, 3]"),
        (FEATURE[:0], ValueError, "P >= 1", "[0, 4]"),
        (FEATURE.to("meta"), ValueError, "device cpu", "meta"),
    ],
)
def test_features(feature, error, expected, got, backend) -> None:
    refused(error, "feature_prev", expected, got, feature, FEATURE, MEMORY, backend=backend)
    refused(error, "feature_curr", expected, got, FEATURE, feature, MEMORY, backend=backend)


def test_features_of_different_positions(backend) -> None:
    refused(ValueError, "feature_curr", "[6, 4]", "[5, 4]", FEATURE, FEATURE[1:], MEMORY, backend=backend)


@pytest.mark.parametrize(
    "memory, error, expected, got",
    [
        (None, TypeError, "torch.Tensor", "NoneType"),
        (MEMORY.to_sparse(), TypeError, "dense", "sparse"),
        (MEMORY.int(), TypeError, "float32", "torch.int32"),
        (MEMORY[0], ValueError, "[K, S, D]", "[5, 4]"),
        (MEMORY[:, :0], ValueError, "S >= 1", "[3, 0, 4]"),
        (MEMORY[:, :, :0], ValueError, "D >= 1", "[3, 5, 0]"),
    ],
)
def test_memory(memory, error, expected, got, backend) -> None:
    refused(error, "memory", expected, got, FEATURE, FEATURE, memory, backend=backend)


@pytest.mark.parametrize(
    "temperature, error",
    [(0.0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), (float("inf"), ValueError),
     ("10", TypeError), (None, TypeError), (True, TypeError)],
)  # fmt: skip
def test_temperature(temperature, error, backend) -> None:
    refused(error, "temperature", "", str(temperature), FEATURE, FEATURE, MEMORY, temperature, backend=backend)


def test_backends(monkeypatch) -> None:
    with pytest.raises(ValueError, match="^prototypes: backend must be one of reference, cpu, triton, got 'fast'$"):
        ciss_fast.prototypes(FEATURE, FEATURE, MEMORY, backend="fast")
    monkeypatch.setitem(backends._ops["prototypes"], "cpu", "left out on purpose")
    with pytest.raises(RuntimeError, match="^prototypes: backend 'cpu' cannot run here: left out on purpose$"):
        ciss_fast.prototypes(FEATURE, FEATURE, MEMORY, backend="cpu")
    ciss_fast.prototypes(FEATURE, FEATURE, MEMORY)  # not asked for by name, the definition serves


def test_a_backend_for_other_tensors(kernel) -> None:
    inputs = [t.to("meta") for t in (FEATURE, FEATURE, MEMORY)]
    with pytest.raises(RuntimeError, match="^prototypes: backend 'cpu' needs tensors on cpu, got meta$"):
        ciss_fast.prototypes(*inputs, backend="cpu")
    for value in ciss_fast.prototypes(*inputs):
        assert value.shape == (3, 4) and value.device.type == "meta"


def test_the_operator_itself_refuses_what_would_read_elsewhere(kernel) -> None:
    # In a process of its own: what is not refused may end it.
    code = """
import torch, ciss_fast
feature, memory = torch.ones(600, 40), torch.ones(3, 50, 40)
op = torch.ops.ciss_fast.prototypes
for call in (
    lambda: op(feature[:, :2], feature, memory, 10.0),
    lambda: op(feature, feature[:1], memory, 10.0),
    lambda: op(feature, feature.flatten(), memory, 10.0),
    lambda: op(feature[:0], feature[:0], memory, 10.0),
    lambda: op(feature, feature, memory[0], 10.0),
    lambda: op(feature, feature, memory[:, :0], 10.0),
    lambda: op(feature, feature, memory, -10.0),
):
    try:
        call()
    except ValueError as error:
        print(str(error).split(":")[0])
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [
        "feature_prev", "feature_curr", "feature_curr", "feature_prev", "memory", "memory", "temperature"
    ]  # fmt: skip
