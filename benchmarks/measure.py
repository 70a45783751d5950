"""Paired timing of several ways to do the same, and the check that they do the same."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

Candidate = Callable[[], object]
TimeCalls = Callable[[Candidate, int], list[float]]  # seconds of each of so many calls


class WrongResult(Exception):
    """A candidate's result is not the reference's; its time would say nothing."""


def check_errors(case: str, candidate: str, errors: Mapping[str, float], allowed: Mapping[str, float]) -> None:
    """Raise `WrongResult` for the first error above what is allowed (NaN is above)."""
    for name, limit in allowed.items():
        if not errors[name] <= limit:
            raise WrongResult(
                f"{case}: {candidate}: {name}: expected the float64 reference's within {limit:.1e} relative, "
                f"got one {errors[name]:.1e} away; no time is reported"
            )


@dataclass(frozen=True)
class Timing:
    """Seconds per call, by candidate and round."""

    typical: dict[str, list[float]]  # median of the calls of a round
    first: dict[str, list[float]]  # first call of a round: caches and heap are as another candidate left them

    def median(self, candidate: str) -> float:
        return statistics.median(self.typical[candidate])

    def quartiles(self, candidate: str) -> tuple[float, float]:
        return _quartiles(self.typical[candidate])

    def first_median(self, candidate: str) -> float:
        return statistics.median(self.first[candidate])

    def ratios(self, slow: str, fast: str) -> list[float]:
        """How many times ``fast`` fits into ``slow``, round by round."""
        return [a / b for a, b in zip(self.typical[slow], self.typical[fast], strict=True)]

    def ratio(self, slow: str, fast: str) -> float:
        return statistics.median(self.ratios(slow, fast))

    def ratio_quartiles(self, slow: str, fast: str) -> tuple[float, float]:
        return _quartiles(self.ratios(slow, fast))


def paired_times(
    candidates: Mapping[str, Candidate],
    rounds: int,
    seconds: float = 0.2,
    max_calls: int = 200,
    clock: Callable[[], float] = time.perf_counter,
    time_calls: TimeCalls | None = None,
) -> Timing:
    """Run the candidates in turn, ``rounds`` times, and time every call.

    What disturbs a machine for seconds disturbs all candidates of a round alike, so ratios are formed within
    a round. Every round starts with another candidate. A candidate is called until about ``seconds`` have
    passed, at least once and at most ``max_calls`` times. All are called twice before (warm-up). The garbage
    collector is off while the clock runs. ``time_calls`` measures in the clock's place, on a GPU by its events.
    """
    time_calls = time_calls or partial(_times_of, clock=clock)
    calls = {}
    for name, candidate in candidates.items():
        candidate()
        calls[name] = min(max_calls, max(1, round(seconds / max(time_calls(candidate, 1)[0], 1e-9))))
    timing = Timing({name: [] for name in candidates}, {name: [] for name in candidates})
    names = list(candidates)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            gc.collect()
            start = number % len(names)
            for name in names[start:] + names[:start]:
                times = time_calls(candidates[name], calls[name])
                timing.first[name].append(times[0])
                timing.typical[name].append(statistics.median(times))
    finally:
        if was_enabled:
            gc.enable()
    return timing


def _times_of(candidate: Candidate, count: int, clock: Callable[[], float]) -> list[float]:
    times = []
    for _ in range(count):
        start = clock()
        candidate()  # the result is freed within the time measured, as in a training step
        times.append(clock() - start)
    return times


def _quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
