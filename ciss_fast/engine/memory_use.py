"""How much memory a step has taken, and how much is free."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEMORY_INFO = Path("/proc/meminfo")
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file "),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
)
"""A container's limit and use of memory, and what of it holds files only, in the two versions of control groups."""


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring anew, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR.write_text("5")  # Linux: the resident set's peak becomes its present size
    except OSError:
        pass


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory in use since `reset_peak_memory`: tensors on a GPU, or the resident set of this process (without
    its loader processes) for a CPU; None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = _number_after(_STATUS, "VmHWM:", 1024)
    return _peak_of_the_process() if peak is None else peak


def available_memory_bytes() -> int | None:
    """Main memory that could be taken now without swapping, within the limits of a container; None where the system
    does not say.
    """
    free = [_number_after(_MEMORY_INFO, "MemAvailable:", 1024)]
    for folder, limit, used, reclaimable in _CGROUPS:
        values = [_number_after(folder / name, "", 1) for name in (limit, used)]
        if None not in values:
            free.append(max(0, values[0] - values[1] + (_number_after(folder / "memory.stat", reclaimable, 1) or 0)))
    return min((value for value in free if value is not None), default=None)


def _number_after(path: Path, start: str, unit: int) -> int | None:
    """The number at the beginning of the line that starts so; None if there is no file, line or number ("max")."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(start):
                return int(line.removeprefix(start).split()[0]) * unit
    except (OSError, ValueError, IndexError):
        pass
    return None


def _peak_of_the_process() -> int | None:
    """The peak since the process started, where there is no ``/proc``."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
