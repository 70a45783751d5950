"""Every op, backend and type on a GPU against the definition in double precision, and against itself."""

from __future__ import annotations

import pytest
import torch
from op_cases import DTYPES, NO_BACKEND_NAMED, OpCase, assert_same_bits, every_way, skip_unless_it_runs

pytestmark = pytest.mark.gpu(interpreter=True)


@pytest.fixture
def nan_filled(monkeypatch: pytest.MonkeyPatch):
    """Every tensor torch makes without initialising it is full of NaN; operations without a deterministic form run."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@every_way(NO_BACKEND_NAMED, "reference")
def test_against_double_precision(case: OpCase, backend: str, dtype: torch.dtype, device, nan_filled) -> None:
    skip_unless_it_runs(case, backend, device, dtype)
    tensors = case.tensors(dtype, device)
    results = case.evaluate(tensors, backend)
    assert {value.device for value in results.values()} == {device}
    for name in case.leaves:
        assert results[f"gradient on {name}"].dtype == tensors[name].dtype
    case.assert_close(results, case.expected(tensors), tensors, dtype)


@every_way()
def test_same_bits_at_every_call(case: OpCase, backend: str, device) -> None:
    skip_unless_it_runs(case, backend, device, torch.float32)
    tensors = case.tensors(torch.float32, device)
    first = case.evaluate(tensors, backend)
    for _ in range(3):
        assert_same_bits(case.evaluate(tensors, backend), first)
