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


@functools.cache
def module_or_reason() -> tuple[ModuleType | None, str | None]:
    """The module ``ciss_fast._cuda``, or why there is none, in one line. It is loaded even where no GPU is."""
    try:
        return importlib.import_module(_NAME), None
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
        return None, "ciss_fast was built without CUDA kernels (nvcc; CISS_FAST_CUDA=1 insists)"
    except ImportError as error:
        return None, f"{_NAME} cannot be loaded: {error}"


def emulating() -> bool:
    """Whether the library is the one of the tests, whose kernels run on the CPU, on CPU tensors."""
    module = module_or_reason()[0]
    return module is not None and module.compiler == "emulation"


def reason_without() -> str | None:
    """Why CUDA kernels cannot run here, in one line; None where they can."""
    if module_or_reason()[1] is not None or emulating():
        return module_or_reason()[1]
    if not torch.cuda.is_available():
        return "no GPU"
    module = library()
    if _major(module.driver_version()) < _major(module.runtime_version()):
        runtime, driver = version_text(module.runtime_version()), version_text(module.driver_version())
        return f"the kernels need a driver for CUDA {runtime}, the one installed is for CUDA {driver}"
    major, minor = torch.cuda.get_device_capability()
    if not compiled_for(module.architectures, (major, minor)):
        return f"the kernels are compiled for {module.architectures}, the GPU has compute capability {major}.{minor}"
    return None


def compiled_for(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU can run kernels of ``architectures``, CMake's names separated by spaces.

    "86-real" is machine code, for its own major number from its minor number on; "90-virtual" is PTX, for everything as
    new; "90" is both.
    """
    for entry in architectures.split():
        number, _, kind = entry.partition("-")
        if not number.isdecimal():  # "native", "90a": who compiles for these knows
            return True
        of_entry = divmod(int(number), 10)
        if of_entry <= capability and (kind != "real" or of_entry[0] == capability[0]):
            return True
    return False


def version_text(version: int) -> str:
    """ "13.0" for CUDA's 13000; "none" for 0."""
    return f"{_major(version)}.{version % 1000 // 10}" if version else "none"


def _major(version: int) -> int:
    return version // 1000


def library() -> ModuleType:
    """The module ``ciss_fast._cuda``. Raises RuntimeError, with the reason, where it is missing."""
    module, reason = module_or_reason()
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
