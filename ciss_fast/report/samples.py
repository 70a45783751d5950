"""Section of the page: sample predictions after every step beside the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from ciss_fast.palette import class_palette
from ciss_fast.report.configurations import Configuration
from ciss_fast.report.html import name_cell, table
from ciss_fast.report.pictures import label_map, photograph


@dataclass
class Sample:
    """An image, its ground truth, and for each configuration the predicted class ids by step."""

    image: np.ndarray
    label: np.ndarray
    predictions: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)


def samples(
    configurations: Sequence[Configuration], class_names: Sequence[str], photographs: bool = True
) -> str:
    """The section; empty if no run has previews. Without ``photographs`` predictions only."""
    collected = collect_samples(configurations)
    if not collected:
        return ""
    shown = np.unique(np.concatenate([_ids(sample, photographs) for sample in collected]))
    palette = class_palette()
    swatches = "".join(
        f'<li><span class="swatch" style="background:rgb({",".join(str(int(part)) for part in palette[class_id])})">'
        f"</span>{escape(class_names[class_id] if class_id < len(class_names) else f'class {class_id}')}</li>"
        for class_id in shown
        if class_id != 255
    )
    note = "the ground truth is that after the last step" if photographs else "without the images they are of"
    return (
        f'<h2>Sample predictions</h2><p class="note">First run of each configuration; {note}.</p>'
        f'<ul class="legend">{swatches}</ul>{"".join(_section(sample, photographs) for sample in collected)}'
    )


def collect_samples(configurations: Sequence[Configuration]) -> list[Sample]:
    """The previews of the first runs, those of the same image and ground truth together."""
    collected: dict[bytes, Sample] = {}
    for configuration in configurations:
        run = configuration.runs[0]
        if not run.folder.previews_path.exists():
            continue
        images, labels = run.folder.read_preview_images()
        by_step = {step: run.folder.read_previews(step) for step in run.steps}
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            sample = collected.setdefault(image.tobytes() + label.tobytes(), Sample(image, label))
            sample.predictions[configuration.name] = {
                step: predictions[number] for step, predictions in by_step.items() if number < len(predictions)
            }
    return list(collected.values())


def _ids(sample: Sample, with_label: bool) -> np.ndarray:
    maps = [ids for steps in sample.predictions.values() for ids in steps.values()]
    maps += [sample.label] if with_label else []
    return np.unique(np.concatenate([np.unique(ids) for ids in maps]))


def _section(sample: Sample, photographs: bool) -> str:
    steps = sorted({step for predictions in sample.predictions.values() for step in predictions})
    rows = [
        [name_cell(name), *(_prediction(predictions.get(step), f"{name}, after step {step}") for step in steps)]
        for name, predictions in sample.predictions.items()
    ]
    truth = ""
    if photographs:
        image, label = photograph(sample.image), label_map(sample.label)
        truth = f'<div class="truth">{_figure(image, "image", "photo")}{_figure(label, "ground truth", "")}</div>'
    predicted = table(["", *(f"after step {step}" for step in steps)], rows)
    return f'<div class="sample">{truth}{predicted}</div>'


def _figure(address: str, caption: str, css: str) -> str:
    return f'<figure><img class="{css}" src="{address}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _prediction(class_ids: np.ndarray | None, title: str) -> str:
    if class_ids is None:
        return "<td></td>"
    return f'<td><img src="{label_map(class_ids)}" alt="{escape(title)}" title="{escape(title)}"></td>'
