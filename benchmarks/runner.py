"""Runs the cases of an op: first the results of all, then their times and their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import machine, memory
from .case import Case, Workload
from .measure import Timing, check_errors, paired_times

COPY = "copy"  # moves a case's least traffic: its time is the traffic floor
COMPILED = "torch.compile"
MEASURED_MEMORY = ("eager", "ours")


@dataclass(frozen=True)
class Settings:
    """How to run: numbers of `paired_times`, and what to leave out."""

    threads: int
    rounds: int = 11
    seconds: float = 0.2
    compile: bool = True
    memory: bool = True
    shrunk: bool = False


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
    before its case is timed).
    """
    if settings.shrunk:
        cases = [case.shrunk() for case in cases]
    errors = {}
    for number, case in enumerate(cases, 1):
        tell(f"[{number}/{len(cases)}] {case.name}: comparing results with the float64 reference")
        errors[case.name] = _check(case)
    records = []
    for number, case in enumerate(cases, 1):
        tell(f"[{number}/{len(cases)}] {case.name}: {case.description}")
        record = _measure(op, case, settings, rates, tell)
        record["errors"] = errors[case.name] | record["errors"]
        records.append(record)
    _compare_cases(records)
    return records


def _check(case: Case) -> dict[str, dict[str, float]]:
    workload = case.workload()
    expected = workload.expected()
    errors = {}
    for name, candidate in workload.candidates.items():
        errors[name] = workload.errors(candidate(), expected)
        check_errors(case.name, name, errors[name], workload.allowed)
    return errors


def _measure(
    op: str,
    case: Case,
    settings: Settings,
    rates: Mapping[str, float],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    workload = case.workload()
    candidates = dict(workload.candidates)
    record: dict[str, Any] = {
        "name": case.name,
        "description": case.description,
        "compared_with": case.compared_with,
        "details": workload.details,
        "allowed_errors": workload.allowed,
        "errors": {},
    }
    if settings.compile and workload.compiled is not None:
        tell(f"    compiling {COMPILED}'s version")
        try:
            compiled = workload.compiled()
            result = compiled()
        except RuntimeError as error:  # no C++ compiler, or a version that cannot compile this
            record["compile_failure"] = (str(error).strip().splitlines() or [type(error).__name__])[0]
            tell(f"    {COMPILED} failed: {record['compile_failure']}")
        else:
            record["errors"][COMPILED] = workload.errors(result, workload.expected())
            check_errors(case.name, COMPILED, record["errors"][COMPILED], workload.allowed)
            candidates[COMPILED] = compiled
            del result
    if not workload.multiply_adds:
        candidates[COPY] = machine.copy_task(workload.traffic_bytes)
    timing = paired_times(candidates, settings.rounds, settings.seconds)
    record["milliseconds"] = {name: _times(timing, name) for name in candidates}
    record["ratios"] = {
        name: {"median": timing.ratio(name, "ours"), "quartiles": timing.ratio_quartiles(name, "ours")}
        for name in candidates
        if name not in ("ours", COPY)
    }
    record["floor"] = _floor(workload, timing, rates)
    if settings.memory:
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


def _floor(workload: Workload, timing: Timing, rates: Mapping[str, float]) -> dict[str, Any]:
    """The least time the case can take on this machine, and how many times that "ours" takes."""
    facts = {"traffic_bytes": workload.traffic_bytes, "multiply_adds": workload.multiply_adds}
    if COPY in timing.typical:  # paired with the candidates: disturbed as they are
        seconds = timing.median(COPY)
        return facts | {
            "bound": "traffic",
            "milliseconds": 1e3 * seconds,
            "copy_bandwidth": workload.traffic_bytes / seconds,
            "measured_over_floor": timing.ratio("ours", COPY),
        }
    operations = workload.multiply_adds / rates["multiply_adds_per_second"]
    traffic = workload.traffic_bytes / rates[f"copy_bandwidth_{machine.COPY_SIZES[0] >> 20}_MiB"]
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
