"""Sections of the page: tables and curves of scores, the matrix of class groups, the heat map of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from ciss_fast.report.charts import Series, line_chart
from ciss_fast.report.configurations import Configuration, Statistic
from ciss_fast.report.html import cell, framed, heat_cell, legend, name_cell, score_cell, table

CURVES = {
    "miou_base": "mIoU base",
    "miou_new": "mIoU new",
    "miou_all": "mIoU all",
    "hiou": "hIoU",
    "pixel_accuracy": "pixel accuracy",
    "miou_all_foreground": "mIoU all, without background",
}
WITH_BACKGROUND = ("miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy")
WITHOUT_BACKGROUND = (
    "miou_base_foreground", "miou_new", "miou_all_foreground", "hiou_foreground", "pixel_accuracy_foreground",
)  # fmt: skip
COLUMNS = ("base mIoU", "new mIoU", "all mIoU", "hIoU", "pixel acc.")


def summary(configurations: Sequence[Configuration]) -> str:
    """Two tables of the scores at the end, with and without the background."""
    return (
        "<h2>Scores after the last step</h2>"
        + _summary_table(configurations, WITH_BACKGROUND, "miou_all")
        + "<h3>Without the background class</h3>"
        + _summary_table(configurations, WITHOUT_BACKGROUND, "miou_all_foreground")
    )


def _summary_table(configurations: Sequence[Configuration], names: Sequence[str], averaged: str) -> str:
    header = ["configuration", "method", "runs", "steps", *COLUMNS, "all mIoU, mean over steps", "forgetting"]
    columns: list[list[Statistic | None]] = [
        *([entry.at_end(name) for entry in configurations] for name in names),
        [entry.of_runs(lambda metrics: metrics["mean_over_steps"][averaged]) for entry in configurations],
        [entry.of_runs(lambda metrics: metrics["mean_forgetting"]) for entry in configurations],
    ]
    rows = []
    for number, entry in enumerate(configurations):
        finished = sorted({len(run.steps) for run in entry.runs})
        steps = "–".join(str(count) for count in dict.fromkeys((finished[0], finished[-1])))
        scores = []
        for place, column in enumerate(columns):
            best = min if place == len(columns) - 1 else max
            means = [statistic.mean for statistic in column if statistic is not None]
            is_best = len(means) > 1 and column[number] is not None and column[number].mean == best(means)
            scores.append(score_cell(column[number], "best" if is_best else ""))
        about = (cell(entry.method, "text"), cell(str(len(entry.runs))), cell(f"{steps}/{entry.num_steps}"))
        rows.append([name_cell(entry.name), *about, *scores])
    return table(header, rows)


def curves(configurations: Sequence[Configuration]) -> str:
    """Scores over the steps. What learns everything in one step is a dotted line."""
    steps = sorted({step for entry in configurations for step in entry.steps})
    longest = max(entry.num_steps for entry in configurations)
    at_once = [entry.num_steps == 1 < longest for entry in configurations]
    charts = []
    for name, title in CURVES.items():
        lines = []
        for number, (entry, dotted) in enumerate(zip(configurations, at_once, strict=True)):
            values = [entry.at_step(step, lambda metrics, name=name: metrics[name]) for step in entry.steps]
            points = list(zip(entry.steps, values, strict=True))
            if dotted and points:
                points = [(step, points[0][1]) for step in (steps[0], steps[-1])]
            lines.append(
                Series(
                    entry.name,
                    number,
                    [(step, None if value is None else 100 * value.mean) for step, value in points],
                    [None if value is None or not value.deviation else 100 * value.deviation for _, value in points],
                    reference=dotted,
                    markers=not dotted,
                )
            )
        tops = [y + (d or 0) for line in lines for (_, y), d in zip(line.points, line.deviations, strict=True) if y]
        highest = min(100, 10 * math.ceil(max(tops, default=100) / 10))
        charts.append(line_chart(title, lines, x_label="step", y_label="%", y_range=(0, highest), x_ticks=steps))
    note = '<p class="note">Bands: standard deviation over runs.</p>' if _repeated(configurations) else ""
    names = [entry.name for entry in configurations]
    return f"<h2>Scores over steps</h2>{note}{legend(names, at_once)}<div class=\"charts\">{''.join(charts)}</div>"


def losses(configurations: Sequence[Configuration]) -> str:
    """The loss of the first run of every configuration over all its iterations; same terms share a chart."""
    charts: dict[tuple[str, ...], list[Configuration]] = {}
    for entry in configurations:
        charts.setdefault(_terms(entry), []).append(entry)
    colours = {entry.name: number for number, entry in enumerate(configurations)}
    drawn = "".join(_loss_chart(terms, entries, colours) for terms, entries in charts.items())
    return (
        '<h2>Training loss</h2><p class="note">First run of each configuration; vertical lines: next step. Losses of '
        "the same method and terms share a chart.</p>"
        f'{legend(list(colours))}<div class="charts">{drawn}</div>'
    )


def _terms(entry: Configuration) -> tuple[str, ...]:
    """The method, and the terms that it has logged."""
    names = {name for step in entry.runs[0].metrics["steps"] for item in step["loss_log"] for name in item}
    return entry.method, *sorted(names - {"iteration", "learning_rate", "loss"})


def _loss_chart(terms: Sequence[str], entries: Sequence[Configuration], colours: Mapping[str, int]) -> str:
    lines, marks = [], set()
    for entry in entries:
        points: list[tuple[float, float | None]] = []
        offset, steps = 0, entry.runs[0].metrics["steps"]
        for step in steps:
            points += [(offset + item["iteration"], item["loss"]) for item in step["loss_log"]]
            offset += step["iterations"]
            if step is not steps[-1]:
                marks.add(offset)
                points.append((offset, None))
        lines.append(Series(entry.name, colours[entry.name], _thinned(points), markers=False))
    title, places = ", ".join(terms), sorted(marks)
    return line_chart(title, lines, x_label="iteration", y_label="loss", marks=places, logarithmic=True)


def _thinned(points: list[tuple[float, float | None]], most: int = 1500) -> list[tuple[float, float | None]]:
    every = -(-len(points) // most)
    return [point for place, point in enumerate(points) if place % every == 0 or point[1] is None]


def group_matrices(configurations: Sequence[Configuration]) -> str:
    """Step by class group, and what each group has lost."""
    parts = []
    for entry in configurations:
        width = max(len(run.metrics["forgetting"]) for run in entry.runs)
        rows = [
            [name_cell(f"after step {step}"), *(heat_cell(_group_at(entry, step, group)) for group in range(width))]
            for step in entry.steps
        ]
        lost = [entry.of_runs(lambda run, group=group: _get(run["forgetting"], group)) for group in range(width)]
        rows.append([name_cell("forgetting"), *(heat_cell(value, lost=True) for value in lost)])
        header = ["mIoU, %", *(f"step {group}" for group in range(width))]
        parts.append(f"<div><h3>{escape(entry.name)}</h3>{table(header, rows, 'heat')}</div>")
    return (
        '<h2>Class groups over steps</h2><p class="note">Columns: the classes that a step brought. Forgetting: the '
        "best score after an earlier step, minus that after the last (negative: gained).</p>"
        f'<div class="matrices">{"".join(parts)}</div>'
    )


def _group_at(entry: Configuration, step: int, group: int) -> Statistic | None:
    return entry.at_step(step, lambda metrics: _get(metrics["miou_by_step"], group))


def _get(values: Sequence[float | None], place: int) -> float | None:
    return values[place] if place < len(values) else None


def class_heat_map(configurations: Sequence[Configuration]) -> str:
    """IoU of every class after every step."""
    learnt = _learnt_at(configurations)
    top = ['<th rowspan="2">class</th>', '<th rowspan="2" title="learnt at step">learnt</th>']
    second = []
    for entry in configurations:
        name = escape(entry.name)
        top.append(
            f'<th class="group edge" colspan="{len(entry.steps)}" title="{name}">{name}</th>'
        )
        second += [f'<th{_EDGE if place == 0 else ""}>{step}</th>' for place, step in enumerate(entry.steps)]
    rows, before = [], None
    for name, step in learnt.items():
        cells = [name_cell(name), cell(step)]
        for entry in configurations:
            for place, at in enumerate(entry.steps):
                value = entry.at_step(at, _reader(name))
                title = f"{entry.name}, after step {at}, {name}"
                cells.append(heat_cell(value, "" if place else "edge", title=title))
        rows.append(f'<tr{"" if before in (None, step) else _DIVIDE}>{"".join(cells)}</tr>')
        before = step
    content = f"<thead><tr>{''.join(top)}</tr><tr>{''.join(second)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return (
        '<h2>IoU by class</h2><p class="note">In percent, after every step; a dash: not learnt yet, or no pixel in the '
        f"ground truth.</p>{framed(content, 'heat', tall=True)}"
    )


_DIVIDE, _EDGE = ' class="divide"', ' class="edge"'


def _reader(name: str) -> Callable[[Any], float | None]:
    return lambda metrics: metrics["iou"].get(name)


def _learnt_at(configurations: Sequence[Configuration]) -> dict[str, str]:
    """Every class in the order the first run learns it, with the step in which it did; "var." where class orders
    differ.
    """
    found: dict[str, set[int]] = {}
    longest = sorted(configurations, key=lambda entry: -entry.num_steps)
    for entry in longest:
        for run in entry.runs:
            for step in run.metrics["steps"]:
                for name in step["new_classes"]:
                    if entry.num_steps > 1 or name not in found:
                        found.setdefault(name, set()).add(step["step"])
    return {name: str(*steps) if len(steps) == 1 else "var." for name, steps in found.items()}


def _repeated(configurations: Sequence[Configuration]) -> bool:
    return any(len(entry.runs) > 1 for entry in configurations)
