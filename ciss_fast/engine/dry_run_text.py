"""What a dry run prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ciss_fast.engine.plan import Plan
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.progress import duration
from ciss_fast.engine.recipes import to_toml
from ciss_fast.engine.run_clock import TEST, RunClock
from ciss_fast.engine.tables import text_table
from ciss_fast.engine.train_step import step_learning_rate

if TYPE_CHECKING:
    from ciss_fast.engine.dry_run import Measurement

MEGABYTE = 1e6
NAMED_CLASSES = 4
KINDS = {False: "base step", True: "later steps"}


def describe(
    plan: Plan, folder: Path, clock: RunClock, measurement: Measurement, state: str, processes: int
) -> Iterator[str]:
    """The lines, one or several an item: steps, pace, memory, files, the whole time, and every setting as a recipe.

    ``state``: what the results folder holds already; the time left does not count that.
    """
    yield f"dry run of {folder}: {state}"
    yield _steps(plan, clock)
    yield f"\nmeasured on {_device(plan, processes)}:"
    yield from _pace(plan, clock, measurement)
    yield from _memory(plan, measurement)
    yield "\nfiles:"
    yield from _files(plan, folder, measurement)
    left = clock.seconds_left()
    yield f"\ntime: {'nothing is left to be done' if not left else 'about ' + duration(left)}"
    yield f"\n# every setting of the run; this text is a recipe file itself\n{to_toml(plan.config)}".rstrip()


def _steps(plan: Plan, clock: RunClock) -> str:
    rows = []
    for step in range(plan.num_steps):
        names = [plan.training_task.class_names[class_id] for class_id in plan.training_task.steps[step]]
        shown = ", ".join(names[:NAMED_CLASSES]) + (", ..." if len(names) > NAMED_CLASSES else "")
        left = clock.seconds_left(step)
        stages = [clock.work[step, stage.name] for stage in plan.method.stages(step)]
        rows.append(
            [
                f"{step} ({len(names)} class{'es' if len(names) > 1 else ''}: {shown})",
                str(len(plan.training_images[step])),
                " + ".join(str(work.iterations) for work in stages if work.iterations),
                f"{step_learning_rate(plan.config, step):g}",
                str(len(plan.test_images[step])),
                "done" if not left else duration(left),
            ]
        )
    header = ["step", "images", "iterations", "learning rate", "test images", "time"]
    return text_table(header, rows)


def _device(plan: Plan, processes: int) -> str:
    device = Precision.from_config(plan.config.run).device
    if device.type == "cuda":
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    else:
        threads = torch.get_num_threads()
        name = f"the processor, {threads} thread{'s' if threads > 1 else ''}"
    batch = f"batches of {plan.config.data.batch_size}"
    return f"{name}, {plan.config.run.precision}, {batch}" + (f", {processes} processes" if processes > 1 else "")


def _pace(plan: Plan, clock: RunClock, measurement: Measurement) -> Iterator[str]:
    for later, seconds in measurement.seconds.items():
        waiting = f"{100 * measurement.waiting[later]:.0f} % of it waiting for images"
        yield f"  training, {KINDS[later]}: {_short(seconds)} an iteration, {waiting}"
    workers = plan.config.data.workers
    those = f"; {workers} are to load" if workers else ""
    yield f"  loading a batch: {_short(measurement.loading)} in one process{those}"
    for step in range(min(2, plan.num_steps)):
        for name in [*(stage.name for stage in plan.method.stages(step)), TEST]:
            work = clock.work[step, name]
            if name != "train" and work.kind in clock.measured:
                yield f"  {name}, {KINDS[step > 0]}: {_short(clock.seconds_per_image(work))} an image"


def _memory(plan: Plan, measurement: Measurement) -> Iterator[str]:
    for later, peak in measurement.peak_bytes.items():
        if peak is not None:
            yield f"  most memory in use, {KINDS[later]}: {peak / MEGABYTE:,.0f} MB"
    yield f"  parameters: {measurement.trained_bytes / 4e6:.1f} million"


def _files(plan: Plan, folder: Path, measurement: Measurement) -> Iterator[str]:
    checkpoint = measurement.model_bytes
    optimisation = plan.config.optimisation
    names = {optimisation.optimiser} | ({optimisation.later_optimiser} if plan.num_steps > 1 else set())
    states = 2 if "adamw" in names else 1
    under_way = 2 * (checkpoint + states * measurement.trained_bytes)
    names = "checkpoints/step_0.pt"
    if plan.num_steps > 1:
        names += f" to step_{plan.num_steps - 1}.pt"
    total = plan.num_steps * checkpoint + under_way
    yield f"  {names}: {checkpoint / MEGABYTE:,.0f} MB each"
    yield f"  checkpoints/in_progress.pt, in_progress_before.pt, during a step: {under_way / MEGABYTE:,.0f} MB together"
    if plan.method.feature_memory and plan.config.replay.feature_replay != "none" and plan.num_steps > 1:
        config = plan.config
        each = 4 * config.replay.features_per_class * config.model.head_channels
        # Complete ones after every step but the last, rotated ones of the classes before.
        counts = [len(plan.training_task.seen(step)) for step in range(plan.num_steps - 1)]
        size = 2 * sum(counts) * each
        total += size
        yield f"  memory/: features, {size / MEGABYTE:,.1f} MB in all"
    elif plan.method.image_memory and plan.num_steps > 1:
        yield "  memory/: lists of images"
    others = ["metrics.json", "scores.csv", "class_iou.csv", "evaluation/", "tensorboard/", "curves.png"]
    if plan.preview_images:
        others.append("predictions.png")
    yield f"  config.json, {', '.join(others)}: a few MB"
    yield f"  all in {folder}: about {total / MEGABYTE:,.0f} MB"


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
