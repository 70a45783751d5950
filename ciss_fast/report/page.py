"""The whole page: its sections in order, and the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.errors import ConfigError
from ciss_fast.report import scores
from ciss_fast.report.base_pixels import base_pixel_table
from ciss_fast.report.configurations import Configuration, Statistic, differing_settings, read_configurations
from ciss_fast.report.html import cell, name_cell, score_cell, table
from ciss_fast.report.samples import samples

GIBIBYTE = 2**30


def write_report(runs: Sequence[Path], output: str | Path, *, photographs: bool = True) -> Path:
    """Write a page that compares ``runs`` (results folders with a finished step each) to ``output``; returns its path.

    The page needs no other file and no network. Without ``photographs`` it shows nothing of the data set but
    predictions for its images: for data that may not be passed on. Raises `CheckpointError` for a folder that is not a
    run or has no finished step, `ConfigError` for runs of different data or tasks, or an output that cannot be written.
    """
    configurations = read_configurations(runs)
    try:
        return atomic_write_text(output, render(configurations, photographs))
    except OSError as error:
        raise ConfigError(f"--output: cannot write {output}: {error.strerror or error}") from None


def render(configurations: Sequence[Configuration], photographs: bool = True) -> str:
    """The page as HTML."""
    title = title_of(configurations)
    return document(title, f'<h1>{escape(title)}</h1>{body(configurations, photographs)}')


def document(title: str, content: str) -> str:
    """A page that needs no other file."""
    style = files("ciss_fast.report").joinpath("style.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{content}</body></html>\n"
    )


def title_of(configurations: Sequence[Configuration]) -> str:
    """Data set, task and setting of all of them."""
    first = configurations[0].runs[0].metrics
    return f"{first['dataset']} {first['task']} ({first['setting']})"


def body(configurations: Sequence[Configuration], photographs: bool = True) -> str:
    """Everything below the page's title."""
    count = sum(len(entry.runs) for entry in configurations)
    what = f"{count} run{'s' if count > 1 else ''}"
    if count > len(configurations):
        what += f" of {len(configurations)} configuration{'s' if len(configurations) > 1 else ''}"
        what += "; mean ± standard deviation over seeds and class orders"
    sections = [
        scores.summary(configurations),
        scores.curves(configurations),
        scores.group_matrices(configurations),
        base_pixel_table(configurations),
        samples(configurations, configurations[0].runs[0].metrics["class_names"], photographs),
        scores.class_heat_map(configurations),
        time_and_memory(configurations),
        scores.losses(configurations),
        settings(configurations),
        run_list(configurations),
    ]
    return (
        f'<p class="note">{escape(what)}. Scores in percent; classes with no pixel in the ground truth are left out of '
        f"means.</p>{''.join(sections)}"
    )


def time_and_memory(configurations: Sequence[Configuration]) -> str:
    """What training and testing took."""
    rows = []
    for entry in configurations:
        later = [step for step in entry.steps if step > 0]
        rows.append(
            [
                name_cell(entry.name),
                _plain(entry.of_runs(lambda metrics: sum(step["seconds_training"] for step in metrics["steps"]) / 60)),
                _plain(entry.of_runs(lambda metrics: sum(step["seconds_testing"] for step in metrics["steps"]) / 60)),
                _plain(entry.at_step(0, _iterations_per_second), 2),
                _plain(Statistic.of([_mean(entry.at_step(step, _iterations_per_second)) for step in later]), 2),
                _plain(entry.of_runs(_waiting_share)),
                _plain(entry.of_runs(peak_gibibytes), 2),
            ]
        )
    header = [
        "configuration", "training, min", "testing, min", "it/s base", "it/s later", "waiting for images, %",
        "peak memory, GiB",
    ]  # fmt: skip
    by_step = table(
        ["configuration", "step", "images", "iterations", "training, s", "testing, s", "peak memory, GiB"],
        [
            [
                name_cell(entry.name if place == 0 else ""),
                cell(str(step)),
                *(_plain(entry.at_step(step, _value(name)), 0) for name in ("training_images", "iterations")),
                *(_plain(entry.at_step(step, _value(name))) for name in ("seconds_training", "seconds_testing")),
                _plain(entry.at_step(step, _memory_of_step), 2),
            ]
            for entry in configurations
            for place, step in enumerate(entry.steps)
        ],
        tall=True,
    )
    return (
        '<h2>Time and memory</h2><p class="note">Wall-clock times of training with all its stages; a base step that '
        "was taken over has the time of its own run. Waiting: part of the loops' time. Memory: allocated on a GPU, or "
        f"the resident set of the process on a CPU.</p>{table(header, rows)}"
        f"<details><summary>By step</summary>{by_step}</details>"
    )


def _plain(statistic: Statistic | None, digits: int = 1) -> str:
    return score_cell(statistic, scale=1, digits=digits)


def _mean(statistic: Statistic | None) -> float | None:
    return None if statistic is None else statistic.mean


def _value(name: str) -> Any:
    return lambda step: step[name]


def _iterations_per_second(step: Mapping[str, Any]) -> float | None:
    return step["iterations"] / step["seconds_training"] if step["seconds_training"] else None


def _waiting_share(metrics: Mapping[str, Any]) -> float | None:
    """The part of the loops' time, in percent, in which they waited for batches."""
    loops = [stage for step in metrics["steps"] for stage in step.get("stages", ()) if "seconds_waiting" in stage]
    seconds = sum(stage["seconds"] for stage in loops)
    return 100 * sum(stage["seconds_waiting"] for stage in loops) / seconds if seconds else None


def _memory_of_step(step: Mapping[str, Any]) -> float | None:
    return None if step["peak_memory_bytes"] is None else step["peak_memory_bytes"] / GIBIBYTE


def peak_gibibytes(metrics: Mapping[str, Any]) -> float | None:
    """The most memory that a run's training had in use; None where no step knows."""
    return max((value for step in metrics["steps"] if (value := _memory_of_step(step)) is not None), default=None)


def settings(configurations: Sequence[Configuration]) -> str:
    """The settings in which the configurations differ, and all settings of each."""
    different = differing_settings(configurations)
    names = [entry.name for entry in configurations]
    if len(configurations) == 1:
        section = ""
    else:
        rows = [[name_cell(name), *(cell(_text(value), "text") for value in values)] for name, values in different]
        section = f"<h2>What the configurations differ in</h2>{table(['setting', *names], rows)}"
    details = "".join(
        f"<details><summary>All settings: {escape(entry.name)}</summary>{_all_settings(entry)}</details>"
        for entry in configurations
    )
    return section + ("" if section else "<h2>Settings</h2>") + details


def _all_settings(entry: Configuration) -> str:
    rows = [
        [name_cell(name), cell(section, "text"), cell(_text(value), "text")]
        for section, values in entry.runs[0].config.items()
        for name, value in values.items()
    ]
    return table(["setting", "section", "value"], rows, tall=True)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def run_list(configurations: Sequence[Configuration]) -> str:
    """Every run by itself."""
    rows = []
    for entry in configurations:
        for run in entry.runs:
            last = run.metrics["steps"][-1]
            values = [Statistic.of([last[name]]) for name in scores.WITH_BACKGROUND]
            order = run.config["data"]["class_order"]
            rows.append(
                [
                    name_cell(run.name),
                    cell(entry.name, "text"),
                    cell(str(run.metrics["seed"])),
                    cell("by id" if order is None else " ".join(map(str, order)), "text"),
                    cell(f"{len(run.steps)}/{run.metrics['num_steps']}"),
                    *map(score_cell, values),
                ]
            )
    header = ["run", "configuration", "seed", "class order", "steps", *scores.COLUMNS]
    return f"<h2>Runs</h2>{table(header, rows, tall=len(rows) > 30)}"
