"""Section of the page: what the pixels of the base step's classes are called after every step."""

from __future__ import annotations

from collections.abc import Sequence

from ciss_fast.engine.metrics import base_pixels
from ciss_fast.report.configurations import Configuration, RunData, Statistic
from ciss_fast.report.html import cell, heat_cell, name_cell, table

COLUMNS = {
    "right": "right", "background": "background", "base": "another base class", "later": "a class of a later step",
}  # fmt: skip


def base_pixel_table(configurations: Sequence[Configuration]) -> str:
    """The section: whether old classes are lost to the background, to each other or to new classes. Empty if nothing
    is learnt in more than one step, or no run has its confusion matrices.
    """
    longest = max(configurations, key=lambda entry: entry.num_steps)
    if longest.num_steps == 1:
        return ""
    base_classes = len(longest.runs[0].metrics["steps"][0]["iou"])
    rows = []
    for entry in configurations:
        name = entry.name
        for step in entry.steps:
            found = [_parts(run, step, base_classes) for run in entry.runs if step in run.steps]
            values = [Statistic.of([parts and parts[name] for parts in found]) for name in COLUMNS]
            if any(value is not None for value in values):
                rows.append([name_cell(name), cell(str(step)), *(heat_cell(value) for value in values)])
                name = ""  # once a configuration
    if not rows:
        return ""
    header = ["configuration", "after step", *COLUMNS.values()]
    return (
        '<h2>Pixels of the base classes</h2><p class="note">What the test pixels of the base step\'s classes, '
        f"background left out, are called; percent of them.</p>{table(header, rows, 'heat', tall=True)}"
    )


def _parts(run: RunData, step: int, base_classes: int) -> dict[str, float] | None:
    confusion = run.folder.read_confusion(step)
    return None if confusion is None else base_pixels(confusion, base_classes)
