"""Failures of the machine, which are nobody's mistake and no defect either, in one line."""

from __future__ import annotations

import torch

_GOES_ON = "the same command goes on from what was saved last"


def describe_failure(error: BaseException) -> str | None:
    """What has happened and what may help, if ``error`` is Python's or torch's for memory that ran out or a process
    that has died; None for every other error. What is raised while such an error passes (by torch.save, when a loader
    process dies in the meantime) says nothing of it: the errors before count too.
    """
    reason = _reason(error)
    while reason is None and error.__context__ is not None:
        error = error.__context__
        reason = _reason(error)
    return reason


def _reason(error: BaseException) -> str | None:
    first = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "DefaultCPUAllocator: " in first:
        return (
            f"out of memory ({first or 'none could be had'}); a smaller --batch-size or --crop-size, --accumulate or "
            f"--precision bf16 may help; {_GOES_ON}"
        )
    if not isinstance(error, RuntimeError):
        return None
    if first.startswith("DataLoader worker"):
        return loader_death(first.rstrip(". "))
    if "closed by peer" in first or "reset by peer" in first or "timeout" in first.lower() and "gloo" in first:
        return f"another process of the run has ended; see what it said; {_GOES_ON}"
    return None


def loader_death(how: str) -> str:
    """The line about a loader process that has died."""
    return f"a process that loads images has died ({how}); if memory ran out, fewer --workers may help; {_GOES_ON}"
