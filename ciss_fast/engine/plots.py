"""Pictures of a run: loss and score curves, predictions next to the ground truth, several runs compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ciss_fast.atomic_files import atomic_write
from ciss_fast.palette import IGNORED_COLOUR, class_palette

SCORES = {"miou_base": "base", "miou_new": "new", "miou_all": "all", "hiou": "hIoU"}
NOT_A_TERM = ("iteration", "learning_rate")


def draw_curves(path: Path, metrics: dict[str, Any]) -> Path:
    """Loss terms over all iterations (steps one after another) and scores over steps."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    _draw_losses(losses, metrics["steps"])
    steps = [entry["step"] for entry in metrics["steps"]]
    for name, title in SCORES.items():
        scores.plot(steps, [_percent(entry[name]) for entry in metrics["steps"]], marker="o", label=title)
    _finish_score_axes(scores, steps, f"{metrics['method']}, {metrics['dataset']} {metrics['task']}")
    scores.legend()
    return save_figure(figure, path)


def _draw_losses(axes: Any, steps: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for entry in steps for item in entry["loss_log"] for name in item))
    offset = 0.0
    series: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names if name not in NOT_A_TERM}
    for entry in steps:
        # Where a stage ends; the step's own end follows below.
        ends = set(itertools.accumulate(stage["iterations"] for stage in entry.get("stages", ())))
        ends.discard(entry["iterations"])
        for item in entry["loss_log"]:
            for name, (x, y) in series.items():
                x.append(offset + item["iteration"])
                y.append(item.get(name, float("nan")))
            if item["iteration"] + 1 in ends:
                _end_lines(axes, series, offset + item["iteration"] + 1, ":")
        offset += entry["iterations"]
        if entry is not steps[-1]:
            _end_lines(axes, series, offset, "-")
    for name, (x, y) in series.items():
        # The marker shows what no line can: a step with a single entry.
        axes.plot(x, y, label=name, linewidth=2 if name == "loss" else 1, marker=".", markersize=4)
    axes.set(xlabel="iteration (lines: next step, dotted: next stage)", ylabel="value, unweighted terms", title="loss")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.grid(alpha=0.3)
    if series:
        axes.legend()


def _end_lines(axes: Any, series: dict[str, tuple[list[float], list[float]]], at: float, style: str) -> None:
    """Mark where something ends, with a gap, so that no line leads from its losses to those of what follows."""
    axes.axvline(at, color="0.7", linewidth=0.8, linestyle=style)
    for x, y in series.values():
        x.append(at)
        y.append(float("nan"))


def draw_predictions(
    path: Path,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    predictions_by_step: Sequence[Sequence[np.ndarray]],
    class_names: Sequence[str],
) -> Path:
    """One row an image: the image, its ground truth, the prediction after every step.

    Args:
        images: uint8 [H, W, 3] each.
        labels: class ids with 255 for ignored pixels, [H, W] each.
        predictions_by_step: for every step, class ids [H, W] of every image.
        class_names: name of every class id; those that occur are listed under the picture.
    """
    columns = 2 + len(predictions_by_step)
    figure = Figure(figsize=(2.3 * columns, 2.3 * len(images) + 0.6), layout="constrained")
    axes = figure.subplots(len(images), columns, squeeze=False)
    palette = class_palette()
    palette[255] = IGNORED_COLOUR
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        maps = [palette[label], *(palette[step[row]] for step in predictions_by_step)]
        for cell, picture in zip(axes[row], [image, *maps], strict=True):
            cell.imshow(picture, interpolation="nearest")
            cell.set_axis_off()
    titles = ["image", "ground truth", *(f"after step {step}" for step in range(len(predictions_by_step)))]
    for cell, title in zip(axes[0], titles, strict=True):
        cell.set_title(title, fontsize=10)
    shown = np.unique(np.concatenate([np.unique(item) for item in [*labels, *sum(map(list, predictions_by_step), [])]]))
    patches = [Patch(facecolor=palette[i] / 255, edgecolor="0.5", label=class_names[i]) for i in shown if i != 255]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(8, len(patches)), fontsize=8)
    return save_figure(figure, path)


def draw_comparison(path: Path, runs: dict[str, dict[str, Any]]) -> Path:
    """Base, new and all mIoU and hIoU over the steps, one line a run; ``runs`` is metrics by the run's
    name.
    """
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    panels = figure.subplots(1, len(SCORES), sharey=True)
    steps = sorted({entry["step"] for metrics in runs.values() for entry in metrics["steps"]})
    for axes, (score, title) in zip(panels, SCORES.items(), strict=True):
        for name, metrics in runs.items():
            entries = metrics["steps"]
            axes.plot(
                [entry["step"] for entry in entries],
                [_percent(entry[score]) for entry in entries],
                marker="o",
                label=name,
            )
        _finish_score_axes(axes, steps, title if score == "hiou" else f"mIoU {title}")
    panels[0].legend()
    return save_figure(figure, path)


def _finish_score_axes(axes: Any, steps: Sequence[int], title: str) -> None:
    axes.set(xlabel="step", ylabel="%", title=title, ylim=(0, 100))
    axes.set_xticks(steps)
    axes.grid(alpha=0.3)


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write a figure as PNG, whole or not at all; returns ``path``."""
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return atomic_write(path, lambda file: file.write(buffer.getvalue()))
