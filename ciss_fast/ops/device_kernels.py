"""Kernels of one operator for CPU and CUDA tensors, chosen by its keyword argument ``backend``.

``backend`` names a backend of `ciss_fast.backends`; empty, it is "cpu" for CPU tensors and for CUDA tensors the first
that can run. A backend for CUDA tensors takes CPU tensors where triton's interpreter runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import backends

_ARGUMENT = '*, str backend=""'


def with_backend(schema: str) -> str:
    """``schema``, "(arguments) -> results", with the argument that chooses the kernel."""
    arguments, results = schema.split(") -> ")
    return f"{arguments}, {_ARGUMENT}) -> {results}"


def without_backend(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, for which the backend makes no difference, as an implementation of such a schema."""

    def call(*arguments: Any, backend: str = "") -> Any:
        return function(*arguments)

    return call


def implement(
    library: torch.library.Library, name: str, op: str | None = None, **kernels: Callable[..., Any]
) -> None:
    """Register the kernels of ``ciss_fast::name`` by backend; its schema comes from `with_backend`.

    ``op`` is what `backends` knows the operator as, where that is not its name (a backward pass has its op's backends).
    Calls of the operator raise what `backends.choose` raises, and RuntimeError where no kernel serves CUDA tensors.
    """

    def on_cpu(*arguments: Any, backend: str = "") -> Any:
        if backend not in ("", "cpu"):
            _check(backend, "cpu")
        return kernels[backend or "cpu"](*arguments)

    def on_cuda(*arguments: Any, backend: str = "") -> Any:
        backend = backend or backends.preferred(op or name, "cuda")
        _check(backend, "cuda")
        return kernels[backend](*arguments)

    def _check(backend: str, device_type: str) -> None:
        if backends.choose(op or name, backend, torch.device(device_type)) not in kernels:
            raise RuntimeError(f"ciss_fast::{name} has no kernel that can run on {device_type} tensors here")

    library.impl(name, on_cpu, "CPU")
    library.impl(name, on_cuda, "CUDA")
