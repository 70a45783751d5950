"""``ciss-fast train --dry-run``: what a run would do and write, and how long it would take, found by doing a little."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ciss_fast.data import class_presence
from ciss_fast.engine.checkpoint import checkpoint_path
from ciss_fast.engine.config import Config
from ciss_fast.engine.dry_run_text import describe
from ciss_fast.engine.feature_replay import COMPLETE
from ciss_fast.engine.iteration_timer import IterationTimer
from ciss_fast.engine.memory_use import peak_memory_bytes, reset_peak_memory
from ciss_fast.engine.plan import Plan
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.resume import StepProgress
from ciss_fast.engine.reuse import load_progress
from ciss_fast.engine.run import Run, planned
from ciss_fast.engine.run_clock import TEST, RunClock
from ciss_fast.engine.scoring import run_tests
from ciss_fast.engine.stages import StageContext
from ciss_fast.engine.workload import planned_work
from ciss_fast.errors import CissFastError
from ciss_fast.memory.feature_memory import FeatureMemory, extractor_fingerprint, save_feature_memory
from ciss_fast.methods import Stage

IMAGES_OF_A_CLASS = 3
FEATURES_OF_A_CLASS = 2
BATCHES_OF_SELECTION = 4


@dataclass
class Measurement:
    """What trying out a step of each kind (base, later) has shown.

    Attributes:
        seconds: of one iteration of the training, by kind.
        waiting: the part of that time in which the loop waited for images.
        loading: seconds that one process takes to load a batch.
        peak_bytes: most memory in use, by kind; None where the system does not say.
        model_bytes, trained_bytes: size of the last step's model tried, and of its parameters.
    """

    seconds: dict[bool, float] = field(default_factory=dict)
    waiting: dict[bool, float] = field(default_factory=dict)
    loading: float = 0.0
    peak_bytes: dict[bool, int | None] = field(default_factory=dict)
    model_bytes: int = 0
    trained_bytes: int = 0


def dry_run(config: Config, reporter: Reporter | None = None) -> RunClock:
    """Print what `train` would do with ``config``: steps, files, memory, time, every setting.

    A few real iterations of every stage are made, at the base step and at a later one; their results are thrown away
    and nothing is written below the results folder (reading the label maps for the first time leaves the cache that
    the run will use). Returns the clock, which knows how long everything would take. Raises what `train` raises before
    it writes its first file.
    """
    with planned(config, reporter) as (plan, reporter, precision, processes):
        timer = IterationTimer(precision.device, alone=processes.count == 1)
        run = Run(plan, timer, precision, processes)
        run.check()
        clock = timer.clock = RunClock(planned_work(plan))
        with _shared_folder(run) as folder:
            measurement = _try_out(run, timer, folder)
        state = _what_is_done(run, clock)
        for line in describe(plan, run.results.path, clock, measurement, state, processes.count):
            reporter.result(line)
    return clock


@contextmanager
def _shared_folder(run: Run) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ciss_fast-") as own:
        yield Path(run.processes.from_first(own))
        run.processes.wait()


def _try_out(run: Run, timer: IterationTimer, folder: Path) -> Measurement:
    """Measure every stage of the base step and of the one after it."""
    plan, measurement = run.plan, Measurement()
    model = run.untrained_model()
    for step in range(min(2, plan.num_steps)):
        reset_peak_memory(run.precision.device)
        model, teacher = run.prepare_models(step, model)
        progress = StepProgress(folder, run.empty_checkpoint(step), model, plan.config.run, run.processes)
        context = StageContext(
            plan, step, model, teacher, run.precision, timer, folder, progress, lambda entry: None
        )
        for stage in plan.method.stages(step):
            _try_stage(stage, context, timer)
            if stage.name == "train":
                measurement.seconds[step > 0] = timer.seconds_per_iteration
                measurement.waiting[step > 0] = timer.waiting_share
        timer.begin(step, TEST, progress)
        run_tests(dataclasses.replace(plan, preview_images=[]), step, model, run.precision, timer, run.processes)
        timer.end(len(plan.test_images[step]))
        measurement.peak_bytes[step > 0] = peak_memory_bytes(run.precision.device)
    measurement.loading = _seconds_to_load(plan)
    workers = plan.config.data.workers
    if workers:  # what the loader processes had ready hides how fast they are
        for later in measurement.seconds:
            timer.clock.at_least("train", later, measurement.loading / workers / plan.config.data.batch_size)
    measurement.model_bytes = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    measurement.trained_bytes = sum(value.numel() * value.element_size() for value in model.parameters())
    return measurement


def _try_stage(stage: Stage, context: StageContext, timer: IterationTimer) -> None:
    """Run a stage's loop as long as it takes to know its pace; of features and selected images take a few."""
    whole, step, images = context.plan, context.step, None
    if stage.name == "features":
        if step > 0:  # as at the base step
            return
        context.plan = _plan_for_features(whole)
        images = FEATURES_OF_A_CLASS * len(whole.training_task.steps[0])
    elif stage.name == "selection":
        context.plan = _plan_for_selection(whole)
        images = len(context.plan.training_images[step - 1])
    timer.begin(step, stage.name, context.progress, cut=images is None)
    try:
        context.progress.run_stage(stage, context)
    except CissFastError:
        if stage.name != "features":  # of so few images some may show too little of their class
            raise
    timer.end(images)
    context.plan, context.progress.state = whole, None
    if stage.name == "features" and context.progress.processes.is_first:
        _write_features(context)


def _plan_for_features(plan: Plan) -> Plan:
    """A few images of every class."""
    shows = class_presence(plan.train_data)[plan.training_images[0]]
    few = [np.flatnonzero(shows[:, class_id])[:IMAGES_OF_A_CLASS] for class_id in plan.training_task.steps[0]]
    images = plan.training_images[0][np.unique(np.concatenate(few))]
    config = plan.config.with_settings({"features_per_class": FEATURES_OF_A_CLASS})
    return dataclasses.replace(plan, config=config, training_images=[images, *plan.training_images[1:]])


def _plan_for_selection(plan: Plan) -> Plan:
    """A few batches."""
    images = plan.training_images[0][: BATCHES_OF_SELECTION * plan.config.data.batch_size]
    return dataclasses.replace(plan, training_images=[images, *plan.training_images[1:]])


def _write_features(context: StageContext) -> None:
    """A memory of the size that a whole base step leaves; what is in it makes no difference to the time."""
    config, classes = context.plan.config, context.plan.training_task.steps[0]
    if config.replay.feature_replay != "none":
        features = torch.randn(len(classes), config.replay.features_per_class, config.model.head_channels)
        memory = FeatureMemory(features, classes, 0, extractor_fingerprint(context.model))
        save_feature_memory(context.memory_path(0, COMPLETE), memory)


def _seconds_to_load(plan: Plan) -> float:
    """The time that one process takes for a batch of the base step's images."""
    images = plan.training_set(0)
    count = min(len(images), plan.config.data.batch_size)
    start = time.monotonic()
    for position in range(count):
        images[1, position]
    return time.monotonic() - start


def _what_is_done(run: Run, clock: RunClock) -> str:
    """What the results folder holds of the run already; it counts as done."""
    plan, folder = run.plan, run.results.path
    finished = 0
    while finished < plan.num_steps and checkpoint_path(folder, finished).exists():
        for stage in plan.method.stages(finished):
            clock.skip(finished, stage.name)
        if run.results.has_evaluation(finished):
            clock.skip(finished, TEST)
        finished += 1
    if plan.config.run.base_from is not None and not finished:
        clock.skip(0, "train")
    if finished == plan.num_steps:
        return "all steps are done"
    saved = load_progress(folder, finished, plan)
    if saved is None:
        return f"goes on with step {finished}" if finished else "is new"
    for stage in saved[0].stages:
        clock.skip(finished, stage["name"])
    return f"goes on inside step {finished}"
