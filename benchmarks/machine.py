"""The machine a benchmark runs on: what it is, and what it can do at best."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import ciss_fast
from ciss_fast import native

# Bytes touched by a copy: about what an enlarged case moves, and more than most last-level caches hold.
COPY_SIZES = (16 * 2**20, 512 * 2**20)


def describe() -> dict[str, Any]:
    """Processor, threads, versions, load: facts that cost nothing to find."""
    library = native.library
    return {
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


def measure_rates() -> dict[str, float]:
    """Copy bandwidth in bytes/s (read plus written) by size, and float32 multiply-adds per second."""
    rates = {f"copy_bandwidth_{size >> 20}_MiB": copy_bandwidth(size) for size in COPY_SIZES}
    return rates | {"multiply_adds_per_second": multiply_add_rate()}


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


def copy_task(total_bytes: int) -> Callable[[], object]:
    """A copy that touches ``total_bytes``: half of them read, half written."""
    source = torch.ones(max(1, total_bytes // 8))
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def copy_bandwidth(total_bytes: int) -> float:
    """Bytes per second, read plus written, of copying with torch's threads."""
    return total_bytes / _best_time(copy_task(total_bytes))


def multiply_add_rate(size: int = 1024) -> float:
    """Float32 multiply-adds per second: what torch's matrix product reaches with torch's threads.

    Stands for cores x frequency x vector units x lanes, none of which a virtual machine tells reliably.
    """
    a = torch.ones(size, size)
    b = torch.ones(size, size)
    product = torch.empty(size, size)
    return size**3 / _best_time(lambda: torch.mm(a, b, out=product))


def _best_time(task: Callable[[], object], seconds: float = 0.5) -> float:
    task()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        task()
        best = min(best, time.perf_counter() - start)
    return best
