"""Which backends each op has, which one runs it on a device and, where one cannot run here, why.

Ops register themselves when they are imported; ``python -m ciss_fast.info`` prints the table. Where a call does not
name its backend, the environment does: ``CISS_FAST_BACKEND_SOFTMAX_LOSS=triton`` for one op and
``CISS_FAST_BACKEND=triton`` for every op that has the backend (both read once, when the op is imported). Else the first
backend that serves the tensors' device and can run here is taken, in the order of registration, and the reference where
there is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from . import cuda_runtime, triton_runtime

DEVICES = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}
"""Type of the tensors that a backend takes; the reference takes any."""

NOT_RUN_ON_A_GPU = ("triton", "cuda")
"""Backends that no test or benchmark has run on a GPU yet: compiled ahead of time, tested on the CPU."""

_Reason = str | Callable[[], str | None] | None

_ops: dict[str, dict[str, _Reason]] = {}
_environment: dict[str, tuple[str, str]] = {}  # op: the variable that names its backend, and the name


def register(op: str, **unavailable_reasons: _Reason) -> None:
    """Say which backends ``op`` has: ``register("predict", reference=None, cpu=native.reason_without("predict"))``.

    Each keyword is a backend, those for one device in order of preference. Its value is None if it can run in this
    installation, else the reason in one line; or a function that returns that, called when it is needed. Raises
    ValueError if the op is registered already.
    """
    if op in _ops:
        raise ValueError(f"op {op!r} is registered already")
    _ops[op] = dict(unavailable_reasons)
    for variable in (f"CISS_FAST_BACKEND_{op.upper()}", "CISS_FAST_BACKEND"):
        if os.environ.get(variable):
            _environment[op] = (variable, os.environ[variable])
            break


def _reason(op: str, backend: str) -> str | None:
    reason = _ops[op][backend]
    return reason() if callable(reason) else reason


# torch.compile evaluates it instead of tracing it. torch.compiler.assume_constant_result does no more than this, but
# imports the whole compiler, and triton, which most users of the package need not have.
_reason._dynamo_marked_constant = True


def table() -> dict[str, dict[str, str | None]]:
    """What is registered: ``{op: {backend: None, or the reason why it cannot run here}}``."""
    return {op: {backend: _reason(op, backend) for backend in reasons} for op, reasons in _ops.items()}


def require(op: str, backend: str, source: str = "backend") -> None:
    """Check that ``op`` has ``backend`` and that it can run here: what is asked for by name has no fallback.

    Raises ValueError for a name the op does not have and RuntimeError, with the reason, for a backend that
    cannot run; the messages name ``source``, the argument or the environment variable the name came from.
    """
    if backend not in _ops[op]:
        raise ValueError(f"{op}: {source} must be one of {', '.join(_ops[op])}, got {backend!r}")
    reason = _reason(op, backend)
    if reason is not None:
        raise RuntimeError(f"{op}: {source} {backend!r} cannot run here: {reason}")


def preferred(op: str, device_type: str) -> str:
    """The backend that serves ``op`` on a device where nothing else is asked for."""
    for backend in _ops[op]:
        if DEVICES.get(backend) == device_type and _reason(op, backend) is None:
            return backend
    return "reference"


def choose(op: str, backend: str | None, device: torch.device, *, gpu_kernel: bool = True) -> str:
    """The backend to run ``op`` with on ``device``: the one asked for, by argument or environment, else `preferred`.

    ``gpu_kernel=False``: the op's GPU kernels do not take tensors of this kind, and on a GPU the reference serves
    unless another backend is asked for.

    Raises what `require` raises, and RuntimeError where the tensors are not on the backend's device.
    """
    source = "backend"
    if backend is None:
        backend, source = _asked_for_by_environment(op)
        if backend is None:
            return preferred(op, device.type) if gpu_kernel or device.type == "cpu" else "reference"
    require(op, backend, source)
    if backend == "reference" or DEVICES[backend] == device.type:
        return backend
    if device.type == "cpu" and (
        (backend == "triton" and triton_runtime.interpreting()) or (backend == "cuda" and cuda_runtime.emulating())
    ):
        return backend
    raise RuntimeError(f"{op}: {source} {backend!r} needs tensors on {DEVICES[backend]}, got {device}")


def _asked_for_by_environment(op: str) -> tuple[str | None, str]:
    if op not in _environment:
        return None, ""
    variable, backend = _environment[op]
    if variable == "CISS_FAST_BACKEND":
        known = {name: None for reasons in _ops.values() for name in reasons}
        if backend not in known:
            raise ValueError(f"{variable}: expected one of {', '.join(known)}, got {backend!r}")
        if backend not in _ops[op]:  # not every op has every backend
            return None, variable
    return backend, variable
