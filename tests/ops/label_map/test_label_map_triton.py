"""The Triton kernels of `predict` and `confusion` compiled ahead of time."""

from __future__ import annotations

import pytest
import torch
from triton_compilation import ARCHITECTURES, compiled, recorded_launches, skip_without_compiler


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled(dtype: torch.dtype, architecture: int) -> None:
    skip_without_compiler()
    from ciss_fast.ops.label_map.triton_launch import confusion_triton, predict_triton

    logits = torch.zeros(2, 151, 32, 32, dtype=dtype)
    label = torch.zeros(2, 512, 512, dtype=torch.int64)
    (predict,) = recorded_launches(lambda: predict_triton(logits, 512, 512, False, True))
    (confusion,) = recorded_launches(lambda: confusion_triton(logits, label, 151, True, False, 255))
    for launch in (predict, confusion):
        binary = compiled(launch, architecture)
        assert binary.registers <= 200 and binary.spills == 0
