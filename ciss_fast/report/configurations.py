"""Runs read from their folders, and gathered into configurations: runs that differ in seed or class order only."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ciss_fast.engine.compare import read_runs
from ciss_fast.engine.config import Config, all_settings
from ciss_fast.engine.results import ResultsFolder

REPETITION = ("seed", "class_order")
"""Settings in which the runs of one configuration may differ: papers report means over them."""


class Statistic(NamedTuple):
    """Mean and standard deviation of the sample; ``deviation`` is None for a single value."""

    mean: float
    deviation: float | None
    count: int

    @staticmethod
    def of(values: Sequence[float | None]) -> Statistic | None:
        """Of the values that there are; None if there is none."""
        present = [value for value in values if value is not None]
        if not present:
            return None
        deviation = statistics.stdev(present) if len(present) > 1 else None
        return Statistic(statistics.fmean(present), deviation, len(present))


@dataclass(frozen=True)
class RunData:
    """A run as its folder holds it. ``config`` has every setting, ``steps`` the finished ones by number."""

    name: str
    folder: ResultsFolder
    config: dict[str, dict[str, Any]]
    metrics: dict[str, Any]

    @property
    def steps(self) -> dict[int, dict[str, Any]]:
        return {entry["step"]: entry for entry in self.metrics["steps"]}


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in `REPETITION` or in nothing that changes a result; at least one."""

    name: str
    runs: list[RunData]

    @property
    def method(self) -> str:
        return self.runs[0].metrics["method"]

    @property
    def num_steps(self) -> int:
        return self.runs[0].metrics["num_steps"]

    @property
    def steps(self) -> list[int]:
        """The steps that at least one run has finished."""
        return sorted({step for run in self.runs for step in run.steps})

    def at_step(self, step: int, read: Callable[[Mapping[str, Any]], float | None]) -> Statistic | None:
        """Over the runs that have finished the step, of what ``read`` takes from the step's entry."""
        return Statistic.of([read(run.steps[step]) for run in self.runs if step in run.steps])

    def of_runs(self, read: Callable[[Mapping[str, Any]], float | None]) -> Statistic | None:
        """Over the runs that have come furthest, of what ``read`` takes from their metrics. Those still at an earlier
        step have scores of fewer classes, which would not be means over the same thing.
        """
        return Statistic.of([read(run.metrics) for run in self.runs if self.steps[-1] in run.steps])

    def at_end(self, name: str) -> Statistic | None:
        """A score after the last step that a run has finished, over the runs that have finished it."""
        return self.of_runs(lambda metrics: metrics["steps"][-1][name])


def read_configurations(folders: Sequence[Path]) -> list[Configuration]:
    """The configurations of the runs in ``folders``, in the order of their first runs.

    Raises as `read_runs`, and `CheckpointError` for a run without a readable config.json.
    """
    gathered: dict[str, list[RunData]] = {}
    for (name, metrics), path in zip(read_runs(folders).items(), folders, strict=True):
        folder = ResultsFolder(path)
        run = RunData(name, folder, _complete(folder.read_config()), metrics)
        gathered.setdefault(json.dumps(dict(_settings_that_count(run.config))), []).append(run)
    configurations: list[Configuration] = []
    for runs in gathered.values():
        taken = [configuration.name for configuration in configurations]
        configurations.append(Configuration(_name_of(runs, taken), runs))
    return configurations


def differing_settings(configurations: Sequence[Configuration]) -> list[tuple[str, list[Any]]]:
    """The settings in which the configurations differ, each with its value in all of them."""
    values = [dict(_settings_that_count(configuration.runs[0].config)) for configuration in configurations]
    return [
        (name, [entry[name] for entry in values])
        for name in values[0]
        if any(entry[name] != values[0][name] for entry in values)
    ]


def _settings_that_count(config: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for section, field, _ in all_settings():
        if field.metadata["affects"] != "nothing" and field.name not in REPETITION:
            yield field.name, config[section][field.name]


def _complete(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A stored configuration; settings that it lacks, as another version has written it, have their defaults."""
    return {section: {**values, **stored.get(section, {})} for section, values in Config().to_dict().items()}


def _name_of(runs: Sequence[RunData], taken: Sequence[str]) -> str:
    """The run's name; for several what their names begin with, or the method."""
    name = runs[0].name
    if len(runs) > 1:
        common = os.path.commonprefix([run.name for run in runs]).rstrip("-_. 0123456789")
        name = common.removesuffix("seed").removesuffix("order").rstrip("-_. ") or runs[0].metrics["method"]
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name} ({number})"
    return unique
