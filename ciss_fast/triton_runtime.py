"""Whether Triton kernels can run here, and why not. Importing this module never fails and does not import triton.

With the environment variable ``TRITON_INTERPRET=1``, set before triton is imported, the kernels run step by step on
the CPU, on CPU tensors: slow, and how they are tested without a GPU.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
from contextlib import AbstractContextManager, nullcontext

import torch

OLDEST = (3, 6)
"""The oldest version of triton that the kernels are tested with."""


def interpreting() -> bool:
    """Whether triton's interpreter runs the kernels, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


@functools.cache
def reason_without() -> str | None:
    """Why Triton kernels cannot run here, in one line; None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not interpreting() and not torch.cuda.is_available():
        return "no GPU"
    try:
        version = importlib.import_module("triton").__version__
    except ImportError as error:
        return f"triton cannot be imported: {error}"
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) < OLDEST:
        return f"triton {'.'.join(map(str, OLDEST))} or newer is needed, {version} is installed"
    return None


def device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Context in which kernels are launched on the tensor's device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


OPTIONS: dict[str, bool] = {"enable_fp_fusion": True}
"""Of every launch: a multiplication and the addition behind it may be one instruction, rounded once."""
