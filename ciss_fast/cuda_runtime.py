"""The library of CUDA kernels, or the reason why it cannot run here. Importing this module never fails."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

_NAME = "ciss_fast._cuda"
OLDEST_DRIVER_CAPABILITY = (8, 0)
"""Compute capability that the kernels are compiled for at least."""


@functools.cache
def _load() -> tuple[ModuleType | None, str | None]:
    try:
        return importlib.import_module(_NAME), None
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
        return None, "ciss_fast was built without CUDA kernels (nvcc and CISS_FAST_CUDA=1)"
    except ImportError as error:
        return None, f"{_NAME} cannot be loaded: {error}"


def emulating() -> bool:
    """Whether the library is the one of the tests, whose kernels run on the CPU, on CPU tensors."""
    module = _load()[0]
    return module is not None and module.compiler == "emulation"


def reason_without() -> str | None:
    """Why CUDA kernels cannot run here, in one line; None where they can."""
    if _load()[1] is not None or emulating():
        return _load()[1]
    if not torch.cuda.is_available():
        return "no GPU"
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST_DRIVER_CAPABILITY:
        return f"the kernels need compute capability 8.0 or newer, the GPU has {capability[0]}.{capability[1]}"
    return None


def library() -> ModuleType:
    """The module ``ciss_fast._cuda``. Raises RuntimeError, with the reason, where it is missing."""
    module, reason = _load()
    if module is None:
        raise RuntimeError(reason)
    return module


def on_device(tensor: Tensor) -> AbstractContextManager:
    """Within it ``tensor``'s device is the current one. Emulated kernels take CPU tensors: nothing to do."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def stream_of(tensor: Tensor) -> int:
    """The stream that torch uses on ``tensor``'s device now."""
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else 0


def workspace_on(device: torch.device) -> Callable[[int], int]:
    """A function from a number of bytes to the address of as many on ``device``, which live as long as the function.

    They come from torch's allocator: a CUDA graph that captures the call keeps them.
    """
    kept: list[Tensor] = []

    def allocate(size: int) -> int:
        kept.append(torch.empty(size, dtype=torch.uint8, device=device))
        return kept[-1].data_ptr()

    return allocate
