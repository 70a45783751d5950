"""`prototypes` against the values of the papers' public code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ciss_fast


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=str)
@pytest.mark.parametrize("name", ["small", "256_init"])
def test_golden(name, dtype, tolerance, backend, shared_file, prototypes_close) -> None:
    with np.load(shared_file(f"golden/cayley_{name}.npz")) as arrays:
        inputs = [torch.from_numpy(arrays[key]).to(dtype) for key in ("feature_prev", "feature_curr", "memory")]
        expected = [torch.from_numpy(arrays[key]) for key in ("proto_prev", "proto_curr")]
        temperature = float(arrays["temp"])
    result = ciss_fast.prototypes(*inputs, temperature, backend=backend)
    assert result[0].dtype == result[1].dtype == dtype
    prototypes_close(result, expected, tolerance)
