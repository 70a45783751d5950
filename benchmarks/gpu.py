"""What measuring on a GPU takes: times by events, peak memory, captured graphs, and what the card is."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

WARM_UP = 3
CACHE = "flushed before every call"


class EventTimer:
    """Seconds of calls between two events on the current stream, each with the card's L2 cache flushed before.

    Twice the cache's size is written before the first event, so inputs come from the card's memory, as they do in a
    training step; meanwhile the host gets ahead, so that it limits a call only where launching takes longer than
    running. Nothing waits between calls.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        size = torch.cuda.get_device_properties(device).L2_cache_size
        self._flushed = torch.empty(max(2 * size, 2**26), dtype=torch.int8, device=device)

    def __call__(self, candidate: Callable[[], object], count: int) -> list[float]:
        events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(count)]
        torch.cuda.synchronize(self.device)
        for start, end in events:
            self._flushed.zero_()
            start.record()
            candidate()
            end.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) / 1e3 for start, end in events]


def peak_allocation(function: Callable[[], object], device: torch.device) -> dict[str, object]:
    """Bytes by which torch's allocated memory on the card exceeds, at its peak, what was allocated before the call."""
    result = function()  # compiles, makes handles and work spaces that stay
    del result
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = function()
    torch.cuda.synchronize(device)
    growth = torch.cuda.max_memory_allocated(device) - before
    del result
    return {"bytes": max(0, growth), "method": "torch.cuda.max_memory_allocated"}


def captured(candidate: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A replay of the CUDA graph of one call: its kernels without the host's work between them.

    Raises RuntimeError where the call cannot be captured.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            candidate()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = candidate()

    def replay() -> object:
        graph.replay()
        return result

    return replay


def describe(device: torch.device) -> dict[str, Any]:
    """The card and what drives it."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_cache_bytes": properties.L2_cache_size,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver_version(),
        "triton": triton_version(),
        "cache": CACHE,
    }


def triton_version() -> str | None:
    """Of the installed triton; None without one."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None


def driver_version(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The kernel driver's version, such as "580.95.05"; None where it cannot be found."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+[.\d]*)", file.read_text())
        if found is not None:
            return found.group(1)
    except OSError:
        pass
    return _query(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])


def _query(command: Sequence[str]) -> str | None:
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = finished.stdout.strip().splitlines()
    return lines[0].strip() if finished.returncode == 0 and lines else None
