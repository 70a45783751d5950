"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ciss_fast.engine.plots import draw_comparison
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.tables import percent, text_table
from ciss_fast.errors import CheckpointError, ConfigError


def compare_runs(runs: Sequence[Path], plot: str | Path | None = None) -> tuple[str, Path]:
    """A table of the runs' last scores and the path of a plot over all steps.

    Args:
        runs: results folders with at least one finished step each.
        plot: where the plot goes; ``comparison.png`` beside the first run by default.

    Raises `CheckpointError` for a folder that is not a run or has no finished step, `ConfigError` for runs of
    different data or tasks, or a plot that cannot be written.
    """
    metrics = read_runs(runs)
    path = Path(plot) if plot is not None else Path(runs[0]).resolve().parent / "comparison.png"
    try:
        draw_comparison(path, metrics)
    except OSError as error:
        raise ConfigError(f"--output: cannot write {path}: {error.strerror or error}") from None
    return comparison_table(metrics), path


def read_runs(runs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The metrics of runs by name, in order; errors as `compare_runs`."""
    metrics = {name: _read(run) for name, run in zip(_names(runs), runs, strict=True)}
    first, *others = metrics.items()
    for name, entry in others:
        for key in ("dataset", "task", "setting"):
            if entry[key] != first[1][key]:
                raise ConfigError(
                    f"runs: expected one {key}, got {first[1][key]} in {first[0]} and {entry[key]} in {name}"
                )
    return metrics


def comparison_table(metrics: dict[str, dict[str, Any]]) -> str:
    """One row a run, in percent: its last scores, what the base classes lost since the base step, and the mean
    over steps of all-class mIoU.
    """
    rows = []
    for name, entry in metrics.items():
        first, last = entry["steps"][0], entry["steps"][-1]
        lost = None
        if len(entry["steps"]) > 1 and None not in (first["miou_base"], last["miou_base"]):
            lost = first["miou_base"] - last["miou_base"]
        rows.append(
            [
                name,
                entry["method"],
                f"{len(entry['steps'])}/{entry['num_steps']}",
                *(percent(last[score]) for score in ("miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy")),
                percent(lost),
                percent(entry["mean_miou_all"]),
            ]
        )
    header = [
        "run",
        "method",
        "steps",
        "base mIoU",
        "new mIoU",
        "all mIoU",
        "hIoU",
        "pixel acc.",
        "base lost",
        "mean over steps",
    ]
    return text_table(header, rows)


def _read(run: Path) -> dict[str, Any]:
    folder = ResultsFolder(run)
    begun = folder.config_path.exists() and not folder.metrics_path.exists()  # inside the base step
    metrics = {"steps": []} if begun else folder.read_metrics()
    if not metrics["steps"]:
        raise CheckpointError(f"{run}: expected a run with a finished step, got none")
    return metrics


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names; whole paths where two are alike."""
    names = [Path(run).resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    paths = [str(run) for run in runs]
    repeated = next((path for path in paths if paths.count(path) > 1), None)
    if repeated is not None:
        raise ConfigError(f"runs: expected different folders, got {repeated} twice")
    return paths
