"""Arguments that do not fit: one line that names the argument, what was expected and what came."""

from __future__ import annotations

import math

import pytest
import torch

import ciss_fast
from ciss_fast import backends, native

BACKENDS = ["reference", "cpu"]


def zeros(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


# A call that is right. Each case below changes some of its arguments.
RIGHT = {
    "feature": zeros(2, 4, 3, 5),
    "weight": zeros(6, 4),
    "feature_old": zeros(2, 7, 3, 5),
    "weight_old": zeros(6, 7),
    "pos": 1.0,
    "neg": 1.0,
}
TENSORS = ("feature", "weight", "feature_old", "weight_old")


def call(backend: str | None = None, **changes):
    arguments = {**RIGHT, **changes}
    tensors = [arguments.pop(name) for name in TENSORS]
    return ciss_fast.reasoning_loss(*tensors, backend=backend, **arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_right_call(needs_kernel, backend) -> None:
    total, terms = call(backend)
    assert float(total) == pytest.approx(12 * math.log(2), rel=1e-6) and set(terms) == {"pos", "neg"}


CASES = [
    *(({name: [[1.0]]}, TypeError, f"{name}: expected a torch.Tensor, got list") for name in TENSORS),
    *(({name: None}, TypeError, f"{name}: expected a torch.Tensor, got NoneType") for name in TENSORS),
    *(
        ({name: RIGHT[name].to(torch.int32)}, TypeError, f"{name}: expected float32, .*got torch.int32")
        for name in TENSORS
    ),
    *(({name: RIGHT[name].to_sparse()}, TypeError, f"{name}: expected a dense tensor, got layout") for name in TENSORS),
    ({"feature": zeros(4, 3, 5)}, ValueError, r"feature: expected \[B, D, h, w\] with D >= 1, got shape \[4, 3, 5\]"),
    ({"feature": zeros(2, 0, 3, 5), "weight": zeros(6, 0)}, ValueError, r"feature: .*D >= 1, .*\[2, 0, 3, 5\]"),
    ({"feature_old": zeros(7, 3, 5)}, ValueError, r"feature_old: expected \[B, D, h, w\] .*got shape \[7, 3, 5\]"),
    ({"weight": zeros(6, 5)}, ValueError, r"weight: expected \[C, D\] .*D = 4 \(the feature's channels\), got shape"),
    ({"weight": zeros(6)}, ValueError, r"weight: expected \[C, D\] .*got shape \[6\]"),
    ({"weight": zeros(6, 4, 1, 1)}, ValueError, r"weight: expected \[C, D\] .*got shape \[6, 4, 1, 1\]"),
    ({"weight": zeros(0, 4), "weight_old": zeros(0, 7)}, ValueError, r"weight: .*C >= 1 .*got shape \[0, 4\]"),
    ({"weight_old": zeros(6, 4)}, ValueError, r"weight_old: .*D = 7 \(the feature_old's channels\), got shape"),
    ({"weight_old": zeros(5, 7)}, ValueError, r"weight_old: expected C = 6 rows like the weight .*got shape \[5, 7\]"),
    ({"feature_old": zeros(1, 7, 3, 5)}, ValueError, r"feature_old: expected \[B, h, w\] = \[2, 3, 5\] .*\[1, 3, 5\]"),
    ({"feature_old": zeros(2, 7, 5, 3)}, ValueError, r"feature_old: expected \[B, h, w\] = \[2, 3, 5\] .*\[2, 5, 3\]"),
    ({"weight": zeros(6, 4, device="meta")}, ValueError, "weight: expected device cpu like the feature, got meta"),
    (
        {"feature_old": zeros(2, 7, 3, 5, device="meta"), "weight_old": zeros(6, 7, device="meta")},
        ValueError,
        "feature_old: expected device cpu like the feature, got meta",
    ),
    ({"pos": math.nan}, ValueError, "pos: expected a finite weight, got nan"),
    ({"neg": -math.inf}, ValueError, "neg: expected a finite weight, got -inf"),
    ({"pos": 0.0, "neg": 0.0}, ValueError, "weights: expected at least one of pos, neg other than 0, got all 0"),
    ({"pos": "1"}, TypeError, "pos: expected a number, got '1'"),
    ({"neg": True}, TypeError, "neg: expected a number, got True"),
]


@pytest.mark.parametrize(
    ("changes", "kind", "message"), CASES, ids=[f"{i}: {', '.join(case[0])}" for i, case in enumerate(CASES)]
)
def test_message(needs_kernel, changes, kind, message) -> None:
    for backend in BACKENDS:
        with pytest.raises(kind, match=f"^{message}") as caught:
            call(backend, **changes)
        assert "\n" not in str(caught.value)


def operator(weights=(1.0, 1.0), **changes):
    arguments = {**RIGHT, **changes}
    tensors = [arguments[name] for name in TENSORS]
    return torch.ops.ciss_fast.reasoning_loss(*tensors, list(weights), True, True)


def test_the_operator_checks_for_itself(needs_kernel) -> None:
    # It can be called past the public function, and the kernel writes where it is told.
    assert operator()[0].isfinite()
    with pytest.raises(ValueError, match="^weight_old: "):
        operator(weight_old=zeros(5, 7))
    with pytest.raises(ValueError, match=r"^feature_old: expected \[B, h, w\]"):
        operator(feature_old=zeros(2, 7, 2, 2))
    with pytest.raises(TypeError, match="^feature: "):
        operator(feature=zeros(2, 4, 3, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="^weights: expected 2 values, got 3$"):
        operator(weights=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="^weights: expected at least one"):
        operator(weights=(0.0, 0.0))


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="^reasoning_loss: backend must be one of reference, cpu, triton, got 'cuda'"):
        call("cuda")


def test_backend_that_cannot_run(monkeypatch) -> None:
    monkeypatch.setitem(backends._ops["reasoning_loss"], "cpu", "it is not there")
    with pytest.raises(RuntimeError, match="^reasoning_loss: backend 'cpu' cannot run here: it is not there$"):
        call("cpu")
    # Not asked for by name, the definition serves.
    monkeypatch.setattr(native, "library", None)
    assert torch.equal(call()[0], call("reference")[0])


def test_kernel_on_another_device(needs_kernel) -> None:
    meta = {name: RIGHT[name].to("meta") for name in TENSORS}
    with pytest.raises(RuntimeError, match="^reasoning_loss: backend 'cpu' needs tensors on cpu, got meta$"):
        call("cpu", **meta)
    assert call(**meta)[0].device.type == "meta"


def test_operator_without_the_library(monkeypatch) -> None:
    monkeypatch.setattr(native, "library", None)
    monkeypatch.setattr(native, "unavailable_reason", "not built")
    with pytest.raises(RuntimeError, match="^ciss_fast::reasoning_loss needs the native library: not built$"):
        operator()
