"""Which backends each op has and, where one cannot run here, why.

Ops register themselves when they are imported; ``python -m ciss_fast.info`` prints the table.
"""

from __future__ import annotations

import torch

_ops: dict[str, dict[str, str | None]] = {}


def register(op: str, **unavailable_reasons: str | None) -> None:
    """Say which backends ``op`` has: ``register("predict", reference=None, cpu=native.reason_without("predict"))``.

    Each keyword is a backend; its value is None if it can run in this installation, else the reason in one
    line. Raises ValueError if the op is registered already.
    """
    if op in _ops:
        raise ValueError(f"op {op!r} is registered already")
    _ops[op] = dict(unavailable_reasons)


def table() -> dict[str, dict[str, str | None]]:
    """A copy of what is registered: ``{op: {backend: None, or the reason why it cannot run here}}``."""
    return {op: dict(reasons) for op, reasons in _ops.items()}


def require(op: str, backend: str) -> None:
    """Check that ``op`` has ``backend`` and that it can run here: what is asked for by name has no fallback.

    Raises ValueError for a name the op does not have and RuntimeError, with the reason, for a backend that
    cannot run.
    """
    reasons = _ops[op]
    if backend not in reasons:
        raise ValueError(f"{op}: backend must be one of {', '.join(reasons)}, got {backend!r}")
    if reasons[backend] is not None:
        raise RuntimeError(f"{op}: backend {backend!r} cannot run here: {reasons[backend]}")


def choose(op: str, backend: str | None, device: torch.device) -> str:
    """The backend to run ``op`` with on ``device``: the one asked for, else the compiled one, else the reference.

    Raises what `require` raises, and RuntimeError where the tensors are not on the backend's device.
    """
    if backend is None:
        compiled = device.type in _ops[op] and _ops[op][device.type] is None
        return device.type if compiled else "reference"
    require(op, backend)
    if backend not in ("reference", device.type):
        raise RuntimeError(f"{op}: backend {backend!r} needs tensors on {backend}, got {device}")
    return backend
