"""The machine a benchmark runs on: what it is, and what it can do at best."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import ciss_fast
from ciss_fast import native

from . import gpu
from .measure import TimeCalls

CPU = torch.device("cpu")
# Bytes touched by a copy: about what an enlarged case moves, and more than most last-level caches hold.
COPY_SIZES = (16 * 2**20, 512 * 2**20)
GPU_COPY_SIZES = (*COPY_SIZES, 4 * 2**30)


def describe(device: torch.device = CPU) -> dict[str, Any]:
    """Processor, threads, versions, load, and the GPU that is measured: facts that cost nothing to find."""
    library = native.library
    return {
        **(gpu.describe(device) if device.type == "cuda" else {}),
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "instruction_set": None if library is None else library.instruction_set(),
        "compiler": None if library is None else library.compiler,
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
        "ciss_fast": ciss_fast.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "load_before": load(),
    }


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """``count`` threads for torch within; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_rates(device: torch.device = CPU) -> dict[str, float]:
    """Copy bandwidth in bytes/s (read plus written) by size, and float32 multiply-adds per second."""
    sizes = GPU_COPY_SIZES if device.type == "cuda" else COPY_SIZES
    rates = {f"copy_bandwidth_{size >> 20}_MiB": copy_bandwidth(size, device) for size in sizes}
    return rates | {"multiply_adds_per_second": multiply_add_rate(4096 if device.type == "cuda" else 1024, device)}


def floor_bandwidth(rates: Mapping[str, float], device: torch.device) -> float:
    """The copy bandwidth that floors are made of: a case's size on a CPU, the best that a GPU does."""
    size = GPU_COPY_SIZES[-1] if device.type == "cuda" else COPY_SIZES[0]
    return rates[f"copy_bandwidth_{size >> 20}_MiB"]


def processor_name() -> str:
    """The model's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def load() -> float | None:
    """Mean number of running processes during the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def copy_task(total_bytes: int, device: torch.device = CPU) -> Callable[[], object]:
    """A copy that touches ``total_bytes``: half of them read, half written."""
    source = torch.ones(max(1, total_bytes // 8), device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def copy_bandwidth(total_bytes: int, device: torch.device = CPU) -> float:
    """Bytes per second, read plus written, of copying with torch's threads or on a GPU."""
    return total_bytes / _best_time(copy_task(total_bytes, device), device)


def multiply_add_rate(size: int = 1024, device: torch.device = CPU) -> float:
    """Float32 multiply-adds per second: what torch's matrix product reaches with torch's threads or on a GPU.

    Stands for cores x frequency x vector units x lanes, none of which a virtual machine tells reliably.
    """
    a = torch.ones(size, size, device=device)
    b = torch.ones(size, size, device=device)
    product = torch.empty(size, size, device=device)
    return size**3 / _best_time(lambda: torch.mm(a, b, out=product), device)


def _best_time(task: Callable[[], object], device: torch.device, seconds: float = 0.5) -> float:
    time_calls = timer(device) or (lambda task, count: [_seconds(task) for _ in range(count)])
    task()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, *time_calls(task, 2))
    return best


def timer(device: torch.device) -> TimeCalls | None:
    """What times calls on ``device`` in the clock's place; None on a CPU."""
    return gpu.EventTimer(device) if device.type == "cuda" else None


def _seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start
