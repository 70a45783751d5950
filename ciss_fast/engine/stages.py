"""What a stage of a step has at hand, and running a step's stages one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ciss_fast.engine import feature_replay, image_replay
from ciss_fast.engine.feature_replay import KeptBatches
from ciss_fast.engine.loop import TrainingLoop
from ciss_fast.engine.plan import Plan
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.resume import LogEntry, StepProgress
from ciss_fast.engine.schedule import PolySchedule
from ciss_fast.engine.train_step import train_model
from ciss_fast.methods import MethodSettings, Stage
from ciss_fast.models import SegmentationModel


@dataclass
class StageContext:
    """What a stage works with.

    Attributes:
        plan: data, task, method and configuration of the run.
        step: the step being trained, from 0.
        model: prepared for the step and placed on the device; a stage changes it in place.
        teacher: the frozen model that the step before ended with; None unless `Method.needs_teacher`.
        precision: device, arithmetic and memory layout.
        reporter: where messages go.
        folder: the run's results folder.
        progress: what the step has done so far, see `StepProgress`; a stage without a `loop` may save a state of
            its own there.
        sink: called with every new entry of the loss log.
        kept: batches that a stage leaves in memory for the one after it, see `KeptBatches`.
        results: what the stage wants to have in ``metrics.json``, in JSON's types; empty when a stage starts.
    """

    plan: Plan
    step: int
    model: SegmentationModel
    teacher: SegmentationModel | None
    precision: Precision
    reporter: Reporter
    folder: Path
    progress: StepProgress
    sink: Callable[[LogEntry], None]
    results: dict[str, Any] = field(default_factory=dict)
    kept: KeptBatches = field(init=False)

    def __post_init__(self) -> None:
        self.kept = KeptBatches(int(self.plan.config.replay.keep_megabytes * 1e6))

    @property
    def settings(self) -> MethodSettings:
        """What the method reads of the configuration at this step."""
        return self.plan.settings_at(self.step)

    def memory_path(self, step: int, suffix: str) -> Path:
        """Where the run keeps the memory (images, features) that belongs to a step, e.g. with suffix ".pt"."""
        return self.folder / "memory" / f"step_{step}{suffix}"

    def loop(
        self,
        schedule: PolySchedule,
        *,
        epoch_length: int,
        title: str,
        tensors: dict[str, Tensor] | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> TrainingLoop:
        """A training loop of this stage (one a stage) that can be interrupted at any iteration.

        Args:
            schedule: of the learning rate; it knows the optimiser and the number of iterations.
            epoch_length: iterations of an epoch, after which the progress may be saved.
            title: what the user reads beside the number of iterations.
            tensors: what is trained besides the model, such as rotations, by name. Saved with the progress and
                restored in place.
            scaler: of the losses, see `Precision.loss_scaler`; None for none.
        """
        return TrainingLoop(
            schedule,
            self.progress,
            self.reporter,
            self.sink,
            log_every=self.plan.config.run.log_every,
            epoch_length=epoch_length,
            title=f"step {self.step}, {title}",
            tensors=tensors or {},
            scaler=scaler or torch.amp.GradScaler(enabled=False),
        )

    def train(self) -> None:
        """Train the model with the method's loss on the step's images and, with an image memory, those it replays."""
        replay = image_replay.images_to_replay(self) if self.plan.method.image_memory and self.step > 0 else ()
        train_model(self, self.plan.training_batches(self.step, replay, processes=self.progress.processes))

    def select_images(self) -> None:
        """Choose the images that the step replays, see `image_replay.select_images`."""
        image_replay.select_images(self)

    def check_features(self) -> None:
        """Raise `CheckpointError` unless the feature memory that `rotate_features` reads is there and fits."""
        feature_replay.check_features(self)

    def rotate_features(self) -> None:
        """Bring the feature memory into the new feature space, see `feature_replay.rotate_features`."""
        feature_replay.rotate_features(self)

    def train_classifiers(self) -> None:
        """Train the classifiers alone, with the feature memory, see `feature_replay.train_classifiers`."""
        feature_replay.train_classifiers(self)

    def extract_features(self) -> None:
        """Add the step's classes to the feature memory, see `feature_replay.extract_features`."""
        feature_replay.extract_features(self)


def run_stages(stages: Sequence[Stage], context: StageContext) -> None:
    """Run the stages that ``context.progress`` does not know as finished, in order, recording each; all of their
    checks come first.
    """
    progress, clock = context.progress, context.reporter.clock
    clock.finish(context.step, progress.stages)
    for stage in stages:
        if stage.check is not None and not progress.has_finished(stage.name):
            stage.check(context)
    for number, stage in enumerate(stages):
        if progress.has_finished(stage.name):
            continue
        context.results = {}
        clock.begin(context.step, stage.name)
        progress.finish_stage(stage.name, progress.run_stage(stage, context))
        if number < len(stages) - 1:  # the last one's end is the end of the step, which has its own file
            progress.save(None)
