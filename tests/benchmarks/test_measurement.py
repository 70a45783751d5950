"""Paired timing, memory and the runner's record, on work whose cost is known."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence

import pytest
import torch

from benchmarks import label_maps, machine, report
from benchmarks.case import ON_CPU, Target, Workload
from benchmarks.measure import WrongResult, check_errors, paired_times
from benchmarks.memory import peak_growth
from benchmarks.runner import Settings, run

MEBIBYTE = 2**20
RATES = {f"copy_bandwidth_{size >> 20}_MiB": 1e9 for size in machine.COPY_SIZES}
RATES["multiply_adds_per_second"] = 1e9


class FakeClock:
    """Time that passes only where a candidate says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def candidate(self, name: str, durations: Sequence[float]) -> Callable[[], None]:
        remaining = iter(durations)

        def call() -> None:
            self.log.append(name)
            self.now += next(remaining)

        return call


def test_paired_times() -> None:
    clock = FakeClock()
    # Two warm-up calls, then one call a round (each takes longer than `seconds`).
    slow = clock.candidate("slow", [50, 10, 10, 40, 90])
    fast = clock.candidate("fast", [50, 1, 1, 2, 30])
    timing = paired_times({"slow": slow, "fast": fast}, rounds=3, seconds=1, clock=clock)
    assert timing.typical == {"slow": [10, 40, 90], "fast": [1, 2, 30]}
    assert timing.median("slow") == 40 and timing.median("fast") == 2
    assert timing.ratios("slow", "fast") == [10, 20, 3]
    assert timing.ratio("slow", "fast") == 10  # not 40 / 2: within the rounds
    assert timing.ratio_quartiles("slow", "fast") == (6.5, 15)
    # Every round starts with another candidate.
    assert clock.log[4:] == ["slow", "fast", "fast", "slow", "slow", "fast"]


def test_quick_candidates_are_called_more_often() -> None:
    clock = FakeClock()
    quick = clock.candidate("quick", [7, 0.25, 5, 1, 2, 1])
    timing = paired_times({"quick": quick}, rounds=1, seconds=1, clock=clock)
    assert len(clock.log) == 2 + 4
    assert timing.first_median("quick") == 5
    assert timing.median("quick") == 1.5
    clock = FakeClock()
    paired_times({"quick": clock.candidate("quick", [0.001] * 9)}, rounds=1, max_calls=7, clock=clock)
    assert len(clock.log) == 2 + 7


def test_no_garbage_collection_while_timing() -> None:
    states = []
    paired_times({"a": lambda: states.append(gc.isenabled())}, rounds=2, seconds=0)
    assert states == [True, True, False, False]
    assert gc.isenabled()
    calls = iter([None, None])
    with pytest.raises(StopIteration):
        paired_times({"a": lambda: next(calls)}, rounds=1, seconds=0)
    assert gc.isenabled()


def test_errors_above_the_limit() -> None:
    check_errors("case", "ours", {"loss": 1e-6, "other": 1.0}, {"loss": 1e-6})
    for wrong in (2e-6, float("nan"), float("inf")):
        with pytest.raises(WrongResult, match="case: ours: loss: "):
            check_errors("case", "ours", {"loss": wrong}, {"loss": 1e-6})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak can be reset on Linux only")
def test_peak_growth_counts_what_was_freed_again() -> None:
    def allocate() -> None:
        torch.ones(64 * MEBIBYTE // 4)
        torch.ones(32 * MEBIBYTE // 4)

    growth = peak_growth(allocate)
    if growth["method"] == "reset peak":
        assert 60 * MEBIBYTE < growth["bytes"] < 80 * MEBIBYTE
    kept = torch.ones(64 * MEBIBYTE // 4)
    growth = peak_growth(lambda: kept.sum())
    assert growth["bytes"] < 8 * MEBIBYTE


class FakeCase:
    """Counts to a number."""

    compared_with = None
    description = "a case"

    def __init__(self, name: str = "fake", compiled: Callable | None = None, multiply_adds: int = 0) -> None:
        self.name = name
        self.make_compiled = compiled
        self.multiply_adds = multiply_adds

    def workload(self, target: Target = ON_CPU) -> Workload:
        return Workload(
            candidates={"eager": lambda: sum(range(2000)), "ours": lambda: 1999000},
            compiled=self.make_compiled,
            expected=lambda: 1999000,
            errors=lambda result, expected: {"value": abs(result - expected)},
            allowed={"value": 0},
            pixels=10,
            traffic_bytes=8000,
            multiply_adds=self.multiply_adds,
            details={"pixels": 10},
        )


SETTINGS = Settings(threads=1, rounds=2, seconds=0.0, memory=False)


def no_compiler() -> Callable:
    raise RuntimeError("no compiler\nmore lines")


def test_record_of_a_case() -> None:
    cases = [FakeCase("compiled", lambda: lambda: 1999000), FakeCase("failing", no_compiler, 10**6)]
    compiled, failing = records = run("op", cases, SETTINGS, RATES, lambda text: None)
    assert set(compiled["milliseconds"]) == {"eager", "ours", "torch.compile", "copy"}
    assert set(compiled["ratios"]) == {"eager", "torch.compile"}
    assert compiled["errors"] == {name: {"value": 0} for name in ("eager", "ours", "torch.compile")}
    assert compiled["floor"]["milliseconds"] == compiled["milliseconds"]["copy"]["median"]
    assert failing["compile_failure"] == "no compiler"
    assert set(failing["milliseconds"]) == {"eager", "ours"}
    assert failing["floor"]["milliseconds"] == 1.0 and failing["floor"]["bound"] == "operations"
    text = report.table(records)
    assert "failing: torch.compile failed: no compiler" in text


def test_wrong_compiled_version_is_refused() -> None:
    with pytest.raises(WrongResult, match=r"fake: torch\.compile: value"):
        run("op", [FakeCase(compiled=lambda: lambda: 0)], SETTINGS, RATES, lambda text: None)


def test_all_results_are_checked_before_anything_is_timed() -> None:
    wrong = FakeCase("wrong")
    right_workload = wrong.workload()
    wrong.workload = lambda target: Workload(**{**vars(right_workload), "expected": lambda: 1})
    lines: list[str] = []
    with pytest.raises(WrongResult, match="wrong: eager"):
        run("op", [FakeCase("right"), wrong], SETTINGS, RATES, lines.append)
    assert len(lines) == 2 and all("comparing" in line for line in lines)


def test_rates_are_positive() -> None:
    assert machine.copy_bandwidth(MEBIBYTE) > 0
    assert machine.multiply_add_rate(64) > 0
    assert machine.processor_name()


def test_label_maps() -> None:
    label = label_maps.blobs(2, (96, 128), range(16, 21))
    assert label.shape == (2, 96, 128) and label.dtype == torch.int64
    assert set(label.unique().tolist()) <= {0, 16, 17, 18, 19, 20, 255}
    assert torch.equal(label, label_maps.blobs(2, (96, 128), range(16, 21)))
    assert not torch.equal(label, label_maps.blobs(2, (96, 128), range(16, 21), seed=1))
    assert (label[:, :, 1:] == label[:, :, :-1]).float().mean() > 0.9  # large regions
    whole = label_maps.blobs(2, (96, 128), range(3), background=False, border=False)
    assert set(whole.unique().tolist()) <= {0, 1, 2}
    pixels = label_maps.random_pixels(2, (96, 128), range(16, 21))
    assert set(pixels.unique().tolist()) == {0, 16, 17, 18, 19, 20, 255}
    assert 0.5 < (pixels == 0).float().mean() < 0.7
    assert (pixels[:, :, 1:] == pixels[:, :, :-1]).float().mean() < 0.6
