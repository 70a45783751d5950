"""Runs the cases of an op: first the results of all, then their times and their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import gpu, machine, memory
from .case import ON_CPU, Case, Target, Workload
from .measure import Timing, check_errors, paired_times

COPY = "copy"  # moves a case's least traffic: its time is the traffic floor
COMPILED = "torch.compile"
GRAPH = "ours, CUDA graph"  # the same kernels, launched by the card alone
MEASURED_MEMORY = ("eager", "ours")
# On a GPU the formulations that ours is compared with lose more digits (interpolation in single precision).
COMPETITORS_ALLOWANCE = 10


@dataclass(frozen=True)
class Settings:
    """How to run: numbers of `paired_times`, and what to leave out."""

    threads: int
    rounds: int = 11
    seconds: float = 0.2
    compile: bool = True
    memory: bool = True
    shrunk: bool = False
    target: Target = ON_CPU


def run(
    op: str,
    cases: Sequence[Case],
    settings: Settings,
    rates: Mapping[str, float],
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """One record per case, as it goes into the JSON file.

    ``rates`` are `machine.measure_rates`'s; ``tell`` receives lines of progress.

    Raises `WrongResult` before anything is timed if a candidate disagrees with the reference (a compiled one:
    before its case is timed). What "ours" is compared with is left out of a case, and named, where the GPU's memory
    does not suffice for it.
    """
    if settings.shrunk:
        cases = [case.shrunk() for case in cases]
    errors, left_out = {}, {}
    for number, case in enumerate(cases, 1):
        tell(f"[{number}/{len(cases)}] {case.name}: comparing results with the float64 reference")
        errors[case.name], left_out[case.name] = _check(case, settings.target)
    records = []
    for number, case in enumerate(cases, 1):
        tell(f"[{number}/{len(cases)}] {case.name}: {case.description}")
        record = _measure(op, case, settings, rates, tell, left_out[case.name])
        record["errors"] = errors[case.name] | record["errors"]
        records.append(record)
    _compare_cases(records)
    return records


def _check(case: Case, target: Target) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Errors by candidate, and why candidates are left out."""
    workload = case.workload(target)
    expected = workload.expected()
    errors, left_out = {}, {}
    for name, candidate in workload.candidates.items():
        try:
            errors[name] = workload.errors(candidate(), expected)
        except torch.cuda.OutOfMemoryError as error:
            if name == "ours":
                raise
            left_out[name] = _first_line(error)
            continue
        check_errors(case.name, name, errors[name], _allowed(workload, name, target))
    return errors, left_out


def _allowed(workload: Workload, candidate: str, target: Target) -> dict[str, float]:
    factor = COMPETITORS_ALLOWANCE if target.on_gpu and not candidate.startswith("ours") else 1
    return {name: factor * limit for name, limit in workload.allowed.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _measure(
    op: str,
    case: Case,
    settings: Settings,
    rates: Mapping[str, float],
    tell: Callable[[str], None],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    target = settings.target
    workload = case.workload(target)
    candidates = {name: candidate for name, candidate in workload.candidates.items() if name not in left_out}
    record: dict[str, Any] = {
        "name": case.name,
        "description": case.description,
        "compared_with": case.compared_with,
        "details": workload.details,
        "allowed_errors": workload.allowed,
        "device": str(target.device),
        "backend": target.backend,
        "left_out": dict(left_out),
        "errors": {},
    }
    if settings.compile and workload.compiled is not None:
        tell(f"    compiling {COMPILED}'s version")
        try:
            compiled = workload.compiled()
            result = compiled()
        except RuntimeError as error:  # no C++ compiler, or a version that cannot compile this
            record["compile_failure"] = _first_line(error)
            tell(f"    {COMPILED} failed: {record['compile_failure']}")
        else:
            record["errors"][COMPILED] = workload.errors(result, workload.expected())
            check_errors(case.name, COMPILED, record["errors"][COMPILED], _allowed(workload, COMPILED, target))
            candidates[COMPILED] = compiled
            del result
    if target.on_gpu:
        try:
            candidates[GRAPH] = gpu.captured(workload.candidates["ours"], target.device)
            record["errors"][GRAPH] = workload.errors(candidates[GRAPH](), workload.expected())
            check_errors(case.name, GRAPH, record["errors"][GRAPH], workload.allowed)
        except RuntimeError as error:
            record["left_out"][GRAPH] = _first_line(error)
            candidates.pop(GRAPH, None)
    if not workload.multiply_adds:
        candidates[COPY] = machine.copy_task(workload.traffic_bytes, target.device)
    timing = paired_times(
        candidates, settings.rounds, settings.seconds, time_calls=machine.timer(target.device)
    )
    record["milliseconds"] = {name: _times(timing, name) for name in candidates}
    record["ratios"] = {
        name: {"median": timing.ratio(name, "ours"), "quartiles": timing.ratio_quartiles(name, "ours")}
        for name in candidates
        if name not in ("ours", COPY)
    }
    record["floor"] = _floor(workload, timing, rates, target)
    if settings.memory and target.on_gpu:
        measured = [name for name in candidates if name not in (COPY, GRAPH)]
        record["extra_memory"] = {name: gpu.peak_allocation(candidates[name], target.device) for name in measured}
    elif settings.memory:
        record["extra_memory"] = {
            name: memory.extra_memory(op, case.name, name, settings.threads, settings.shrunk)
            for name in MEASURED_MEMORY
        }
    return record


def _times(timing: Timing, name: str) -> dict[str, Any]:
    return {
        "median": 1e3 * timing.median(name),
        "quartiles": [1e3 * value for value in timing.quartiles(name)],
        "first_call_of_round": 1e3 * timing.first_median(name),
    }


def _floor(workload: Workload, timing: Timing, rates: Mapping[str, float], target: Target) -> dict[str, Any]:
    """The least time the case can take on this machine, and how many times that "ours" takes."""
    bandwidth = machine.floor_bandwidth(rates, target.device)
    achieved = workload.traffic_bytes / timing.median("ours") if timing.median("ours") else 0.0
    facts = {
        "traffic_bytes": workload.traffic_bytes,
        "multiply_adds": workload.multiply_adds,
        "achieved_bandwidth": achieved,
        "share_of_copy_bandwidth": achieved / bandwidth,
    }
    if COPY in timing.typical:  # paired with the candidates: disturbed as they are
        seconds = timing.median(COPY)
        return facts | {
            "bound": "traffic",
            "milliseconds": 1e3 * seconds,
            "copy_bandwidth": workload.traffic_bytes / seconds,
            "measured_over_floor": timing.ratio("ours", COPY),
        }
    operations = workload.multiply_adds / rates["multiply_adds_per_second"]
    traffic = workload.traffic_bytes / bandwidth
    seconds = max(operations, traffic)
    return facts | {
        "bound": "operations" if operations >= traffic else "traffic",
        "milliseconds": 1e3 * seconds,
        "measured_over_floor": timing.median("ours") / seconds,
    }


def _compare_cases(records: Sequence[dict[str, Any]]) -> None:
    """Add to each record ours' time per pixel over that of the case it is compared with, if that was run."""
    per_pixel = {r["name"]: r["milliseconds"]["ours"]["median"] / r["details"]["pixels"] for r in records}
    for record in records:
        other = per_pixel.get(record["compared_with"])
        record["time_per_pixel_over_compared"] = None if other is None else per_pixel[record["name"]] / other
