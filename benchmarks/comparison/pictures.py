"""What forgetting looks like: predictions for the same images after every step, a method a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ciss_fast.engine.plots import save_figure
from ciss_fast.palette import class_palette
from ciss_fast.report.configurations import Configuration
from ciss_fast.report.samples import collect_samples

COLUMNS = 12
"""About as many predictions side by side."""


def draw_picture(path: Path, entries: Sequence[Configuration]) -> Path | None:
    """A PNG of some of the previews; None if the runs have none. What learns all in one step is in the last column.

    Predictions only: neither the images nor their ground truth, which may not be passed on.
    """
    steps = max(entry.num_steps for entry in entries)
    samples = collect_samples(entries)
    if not samples:
        return None
    # The first is one of the base classes, the last one of those learnt last.
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), max(1, COLUMNS // steps))).round().astype(int)
    samples = [samples[place] for place in chosen]
    names = entries[0].runs[0].metrics["class_names"]
    palette, shown = class_palette(), set()
    figure = Figure(figsize=(1.2 * steps * len(samples) + 1.2, len(entries) + 0.9), layout="constrained")
    parts = figure.subfigures(1, len(samples), squeeze=False)[0]
    for place, (part, sample) in enumerate(zip(parts, samples, strict=True)):
        grid = part.subplots(len(entries), steps, squeeze=False)
        for entry, axes in zip(entries, grid, strict=True):
            for cell in axes:
                cell.set(xticks=[], yticks=[], frame_on=False)
            for step, prediction in sample.predictions.get(entry.name, {}).items():
                axes[step if entry.num_steps > 1 else -1].imshow(palette[prediction], interpolation="nearest")
                shown |= set(np.unique(prediction).tolist())
            if place == 0:
                axes[0].set_ylabel(entry.name, rotation="horizontal", ha="right", va="center", fontsize=9)
        for step, cell in enumerate(grid[0]):
            cell.set_title(f"step {step}", fontsize=9)
    patches = [Patch(facecolor=palette[i] / 255, edgecolor="0.5", label=names[i]) for i in sorted(shown)]
    figure.legend(handles=patches, loc="outside lower center", ncols=10, fontsize=8)
    return save_figure(figure, path, dpi=90)
