"""Peak extra memory of one call, in a process of its own.

The process imports everything, makes the inputs, runs the same code once on a tiny input (so that threads
exist and code pages are loaded) and gives freed heap memory back to the system. Then the peak of its resident
memory is reset, one full call is made, its first, and the peak's growth above what was resident before is the
answer: work space of all threads, kept buffers, autograd's tensors and the gradient are in it; the inputs are
not. Where the system cannot reset the peak (``/proc/self/clear_refs``), the growth of the highest peak so far
is taken, a lower bound. The system counts pages in batches: expect an error of some hundred kilobytes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ciss_fast.errors import CissFastError

from .case import load_cases

TIMEOUT = 600.0  # seconds a process may take


def extra_memory(op: str, case: str, candidate: str, threads: int, shrunk: bool) -> dict[str, object]:
    """Start a process that measures one candidate of one case: ``{"bytes": ..., "method": ...}``.

    Raises CissFastError with the process's last line if it fails.
    """
    command = [sys.executable, "-m", __name__, op, case, candidate, "--threads", str(threads)]
    folder = Path(__file__).resolve().parents[1]
    failure = f"{case}: {candidate}: the process that measures memory"
    try:
        finished = subprocess.run(
            command + ["--shrunk"] * shrunk, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise CissFastError(f"{failure} did not end within {TIMEOUT:.0f} s") from None
    if finished.returncode != 0:
        reason = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise CissFastError(f"{failure} failed: {reason}")
    return json.loads(finished.stdout)


def peak_growth(function: Callable[[], object]) -> dict[str, object]:
    """Bytes by which this process's peak of resident memory exceeds what was resident before the call."""
    gc.collect()
    _return_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        result = function()
        growth, method = _status_bytes("VmHWM") - before, "reset peak"
    except OSError:
        before = _highest_peak()
        result = function()
        growth, method = _highest_peak() - before, "highest peak so far (lower bound)"
    del result  # alive until here: what a call returns is part of its memory
    return {"bytes": max(0, growth), "method": method}


def _return_free_memory() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass  # not glibc


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def _highest_peak() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.memory")
    parser.add_argument("op")
    parser.add_argument("case")
    parser.add_argument("candidate")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--shrunk", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    case = next(case for case in load_cases(arguments.op) if case.name == arguments.case)
    workload = (case.shrunk() if arguments.shrunk else case).workload()
    case.tiny().workload().candidates[arguments.candidate]()
    print(json.dumps(peak_growth(workload.candidates[arguments.candidate])))


if __name__ == "__main__":
    main()
