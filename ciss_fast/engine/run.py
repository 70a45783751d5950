"""A whole run: every step trained, scored and written down; steps already done are not done again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ciss_fast.data import denormalise
from ciss_fast.engine.checkpoint import StepCheckpoint, checkpoint_path, load_weights, save_checkpoint
from ciss_fast.engine.config import Config
from ciss_fast.engine.memory_use import peak_memory_bytes, reset_peak_memory
from ciss_fast.engine.metrics import run_scores
from ciss_fast.engine.plan import Plan, make_plan
from ciss_fast.engine.plots import draw_curves, draw_predictions
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.processes import Processes, join_processes
from ciss_fast.engine.progress import Reporter, duration
from ciss_fast.engine.results import ResultsFolder, steps_table
from ciss_fast.engine.resume import StepProgress, earlier_progress_path, progress_path
from ciss_fast.engine.reuse import load_base, load_own, load_progress, set_aside
from ciss_fast.engine.run_clock import TEST, RunClock
from ciss_fast.engine.scoring import metrics_entry, run_tests
from ciss_fast.engine.seeding import seed_everything
from ciss_fast.engine.stages import StageContext, run_stages
from ciss_fast.engine.summaries import NoSummaries, Summaries
from ciss_fast.engine.tables import percent
from ciss_fast.engine.train_step import step_learning_rate
from ciss_fast.engine.trained_model import build_network
from ciss_fast.engine.wandb_log import WandbLog, check_wandb
from ciss_fast.engine.workload import planned_work
from ciss_fast.errors import ConfigError, DamagedFile
from ciss_fast.methods.method import batch_norms
from ciss_fast.models import SegmentationModel

LARGE_SHARE = 0.15
"""The user is told what may help where a larger part of the training is waiting for images."""


@contextmanager
def planned(
    config: Config, reporter: Reporter | None = None
) -> Iterator[tuple[Plan, Reporter, Precision, Processes]]:
    """What a run begins with, for as long as its processes are together; only the first one reports."""
    reporter = reporter or Reporter()
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    precision = Precision.from_config(config.run)
    with join_processes(precision.device) as processes:
        if not processes.is_first:
            reporter = Reporter(silent=True)
        yield make_plan(config, reporter), reporter, precision, processes


def train(config: Config, reporter: Reporter | None = None) -> Path:
    """Train and score all steps that are not done yet; returns the results folder.

    Everything that can be wrong with the arguments is found before the first file is written. Raises
    `ConfigError`, `DataError` or `CheckpointError`, each a single line.
    """
    with planned(config, reporter) as (plan, reporter, precision, processes):
        reporter.clock = RunClock(planned_work(plan))
        run = Run(plan, reporter, precision, processes)
        run.prepare()
        with run.wandb:
            for step in range(run.plan.num_steps):
                run.do_step(step)
        run.report()
        return run.results.path


def default_output(config: Config) -> Path:
    """The results folder of a run that names none."""
    data = config.data
    name = f"{data.dataset}-{data.task}-{data.setting}-{config.method.method}-seed{config.run.seed}"
    if data.class_order is not None:  # papers report means over many orders, which are runs of their own
        name += f"-order{sha256(repr(data.class_order).encode()).hexdigest()[:6]}"
    return Path("runs") / name


def _waiting(stages: list[dict[str, Any]]) -> str:
    """The part of the training's time that it has waited for images, as text; empty if that is next to nothing."""
    train = next((stage for stage in stages if stage["name"] == "train"), {"seconds": 0})
    if not train["seconds"]:
        return ""
    share = train.get("seconds_waiting", 0.0) / train["seconds"]
    hint = "; --workers or --cache-images may help" if share > LARGE_SHARE else ""
    return f", {100 * share:.0f} % of it waiting for images{hint}" if share >= 0.01 else ""


class Run:
    """The state of a run between its steps: the last step's checkpoint and the scores so far."""

    def __init__(self, plan: Plan, reporter: Reporter, precision: Precision, processes: Processes) -> None:
        self.plan, self.reporter, self.precision, self.processes = plan, reporter, precision, processes
        self.config = plan.config
        self.results = ResultsFolder(plan.config.run.output or default_output(plan.config))
        self.wandb = WandbLog(plan.config, self.results.path, first_process=processes.is_first)
        self._trains_batch_norms = False  # known after `check`
        self.last: StepCheckpoint | None = None
        self.start: SegmentationModel | StepCheckpoint | None = None
        self.metrics: dict[str, Any] = {}

    def prepare(self) -> None:
        """Find what can be wrong, then claim the folder."""
        self.check()
        if self.processes.is_first:
            self.results.claim(self.config)
        self.processes.wait()
        self.metrics = self._read_metrics()
        if self.processes.count > 1 and self.precision.device.type == "cpu" and self._trains_batch_norms:
            share = self.processes.share_of(self.config.data.batch_size)
            self.reporter.message(
                f"batch norms in training are not synchronised between processes on CPUs (on GPUs they are): each "
                f"takes the statistics of its own {share} images; --freeze-batch-norm all (and no "
                "--later-freeze-batch-norm) leaves none in training"
            )

    def check(self) -> None:
        """Go through all steps without training, find what step 0 starts from (which finds a wrong weights file or
        base), and look whether the folder is this run's; nothing is written.
        """
        check_wandb(self.config)
        self.processes.share_of(self.config.data.batch_size)
        self._rehearse()
        if not checkpoint_path(self.results.path, 0).exists():
            if self.config.run.base_from is not None:
                self.start = load_base(self.config.run.base_from, self.plan)
            else:
                self.start = self.untrained_model(pretrained=True)
        self.results.check(self.config)

    def untrained_model(self, *, pretrained: bool = False) -> SegmentationModel:
        """The model that the base step starts from; ``pretrained``: the backbone with its weights."""
        seed_everything(self.config.run.seed, 0)
        return self._build_model(self.plan.training_task.classes_per_step[:1], pretrained=pretrained)

    def _rehearse(self) -> None:
        """Go through all steps with a model without memory, so that settings it cannot be trained with (a batch
        of one image, no learning rate above 0) are found now.

        Raises `ConfigError` naming the step.
        """
        plan, data = self.plan, self.config.data
        with torch.device("meta"):
            model = self._build_model(plan.training_task.classes_per_step[:1], pretrained=False)
        for step in range(plan.num_steps):
            count, settings = len(plan.training_images[step]), plan.settings_at(step)
            if step > 0:
                model.add_classifier(plan.training_task.classes_per_step[step])
            plan.method.set_train_mode(model, step, settings)
            self._trains_batch_norms |= any(norm.training for norm in batch_norms(model))
            smallest = max(1, min(data.batch_size, count) // self.config.optimisation.accumulate)
            try:
                plan.method.parameter_groups(model, step, settings, step_learning_rate(self.config, step))
                if smallest == 1:  # of which a batch norm may see a single value
                    model(torch.empty(1, 3, data.crop_size, data.crop_size, device="meta"))
            except (ConfigError, ValueError) as error:  # a batch norm of a single value is torch's ValueError
                raise ConfigError(f"step {step} with {count} training images: {error}") from None

    def do_step(self, step: int) -> None:
        """Train a step and score its model, or find that this has been done."""
        path, memory = checkpoint_path(self.results.path, step), None
        finished = self._load_finished(step)
        if finished is not None:
            self.last = finished
            self.reporter.clock.finish(step, finished.stages)
            done = any(entry["step"] == step for entry in self.metrics["steps"])
            if done and self.results.has_evaluation(step):
                self.reporter.clock.skip(step, TEST)
                self.reporter.message(f"step {step}: already done")
                return
        else:
            reset_peak_memory(self.precision.device)
            self.last = self._make_step(step)
            memory = peak_memory_bytes(self.precision.device)
            if self.processes.is_first:
                save_checkpoint(path, self.last)
                for saved in (progress_path(self.results.path), earlier_progress_path(self.results.path)):
                    saved.unlink(missing_ok=True)
            self.processes.wait()
        self._score_step(step, self.last, memory)

    def _load_finished(self, step: int) -> StepCheckpoint | None:
        """The step's checkpoint if there is one. A damaged one is trained again, unless a later step has been."""
        path = checkpoint_path(self.results.path, step)
        if not path.exists():
            return None
        try:
            return load_own(self.results.path, step, self.plan)
        except DamagedFile as error:
            if checkpoint_path(self.results.path, step + 1).exists():
                raise
            self.processes.wait()  # all have read it
            if self.processes.is_first:
                set_aside(path, error)
            self.processes.wait()
            return None

    def report(self) -> None:
        """Draw the pictures and print the table."""
        if not self.processes.is_first:
            return
        pictures = [draw_curves(self.results.path / "curves.png", self.metrics)]
        if self.plan.preview_images:
            pictures.append(self._draw_predictions())
        self.reporter.result(steps_table(self.metrics))
        self.reporter.result(
            f"results: {self.results.path} ({', '.join(path.name for path in pictures)}, "
            f"{self.results.metrics_path.name})"
        )

    def _make_step(self, step: int) -> StepCheckpoint:
        plan, folder = self.plan, self.results.path
        base = self.start if step == 0 and isinstance(self.start, StepCheckpoint) else None
        before = base or self.last
        model, teacher = self.prepare_models(step, self.start if before is None else self._model_of(before))
        progress = StepProgress(folder, self.empty_checkpoint(step), model, self.config.run, self.processes)
        saved = load_progress(folder, step, plan)
        if saved is not None:
            checkpoint, path = saved
            self.processes.wait()  # all have read it
            if self.processes.is_first and path != progress_path(folder):
                # Else the next save would put the damaged file, or none, in the place of the only sound one.
                path.replace(progress_path(folder))
            progress.restore(checkpoint)
            self.reporter.message(f"step {step}: goes on after {progress.describe()}")
        elif base is not None:
            progress.take_over(base)
            self.reporter.message(f"step 0: taken over from {self.config.run.base_from}")
        with self._summaries(step, supersede=True) as summaries:
            for entry in progress.history:
                summaries.add_losses(entry, new=False)
            context = StageContext(
                plan, step, model, teacher, self.precision, self.reporter, folder, progress, summaries.add_losses
            )
            stages = plan.method.stages(step)
            if base is not None and progress.has_finished("train"):  # what comes before it is not done either
                stages = stages[[stage.name for stage in stages].index("train") + 1 :]
            run_stages(stages, context)
        return progress.checkpoint()

    def prepare_models(
        self, step: int, before: SegmentationModel
    ) -> tuple[SegmentationModel, SegmentationModel | None]:
        """The model that a step trains, made of the one before (changed in place), and its teacher, on the device."""
        plan = self.plan
        teacher = before.frozen_copy() if plan.method.needs_teacher(step) else None
        # Everything random from here on depends on the seed and the step only, not on how the run got here.
        seed_everything(self.config.run.seed, step)
        plan.method.prepare_step(before, step, plan.training_task.classes_per_step[step], plan.settings_at(step))
        if self.processes.rank > 0:
            seed_everything(self.config.run.seed, step, self.processes.rank)
        model = self.processes.synchronise_batch_norms(before, self.precision.device)
        for network in (model, teacher):
            if network is not None:
                self.precision.place_model(network)
        return model, teacher

    def _score_step(self, step: int, checkpoint: StepCheckpoint, training_memory: int | None) -> None:
        start = time.monotonic()
        self.reporter.clock.begin(step, TEST)
        model = self.precision.place_model(self._model_of(checkpoint))
        confusion, previews = run_tests(self.plan, step, model, self.precision, self.reporter, self.processes)
        if self.processes.is_first:
            self.results.write_evaluation(step, confusion, previews)
            if previews:
                self.results.write_preview_images(*self._previews())
        entry = metrics_entry(self.plan, step, checkpoint, confusion, time.monotonic() - start, training_memory)
        others = [other for other in self.metrics["steps"] if other["step"] != step]
        self.metrics["steps"] = sorted([*others, entry], key=lambda other: other["step"])
        self.metrics |= run_scores(self.metrics["steps"])
        if self.processes.is_first:
            self.results.write_metrics(self.metrics)
        self.processes.wait()
        with self._summaries(step) as summaries:
            summaries.add_scores(entry)
        self.reporter.message(
            f"step {step}: mIoU base {percent(entry['miou_base'])}, new {percent(entry['miou_new'])}, all "
            f"{percent(entry['miou_all'])}, hIoU {percent(entry['hiou'])} "
            f"({duration(entry['seconds_training'])} training, {duration(entry['seconds_testing'])} testing"
            f"{_waiting(entry['stages'])})"
        )
        left = self.reporter.clock.seconds_left()
        if left:
            others = self.plan.num_steps - 1 - step
            what = f"{others} steps" if others > 1 else "step"
            self.reporter.message(f"about {duration(left)} for the {what} to come")

    def empty_checkpoint(self, step: int) -> StepCheckpoint:
        """A step's checkpoint as far as it is known before training."""
        task = self.plan.training_task
        return StepCheckpoint(
            model={},
            step=step,
            method=self.plan.method.name,
            config=self.config.to_dict(),
            class_names=list(task.class_names),
            channel_order=list(task.seen(step)),
            classes_per_step=task.classes_per_step[: step + 1],
            data_fingerprint=self.plan.data_fingerprint,
            seconds=0.0,
            history=[],
        )

    def _build_model(self, classes_per_step: list[int], *, pretrained: bool) -> SegmentationModel:
        auxiliary = self.plan.method.uses_auxiliary_classifier
        return build_network(
            self.config.model, classes_per_step, auxiliary_classifier=auxiliary, pretrained=pretrained
        )

    def _model_of(self, checkpoint: StepCheckpoint) -> SegmentationModel:
        model = self._build_model(checkpoint.classes_per_step, pretrained=False)
        load_weights(model, checkpoint, checkpoint_path(self.results.path, checkpoint.step))
        return model

    def _read_metrics(self) -> dict[str, Any]:
        if self.results.metrics_path.exists():
            metrics = self.results.read_metrics()
        else:
            metrics = {"steps": []}
        plan, data = self.plan, self.config.data
        return {
            "dataset": data.dataset,
            "class_names": list(plan.task.class_names),
            "task": plan.task.name,
            "setting": data.setting,
            "method": plan.method.name,
            "seed": self.config.run.seed,
            "num_steps": plan.num_steps,
            "published_loss_weights": plan.settings.published,
            **metrics,
        }

    def _summaries(self, step: int, *, supersede: bool = False) -> Summaries | NoSummaries:
        if not self.processes.is_first:
            return NoSummaries()
        folder, first = self.results.path / "tensorboard", self._iterations_before(step)
        return Summaries(folder, first, self.wandb, supersede=supersede)

    def _iterations_before(self, step: int) -> int:
        return sum(entry["iterations"] for entry in self.metrics["steps"] if entry["step"] < step)

    def _previews(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The preview images and their ground truth as class ids, as they are tested after the last step."""
        plan = self.plan
        class_of_label = np.full(256, 255, dtype=np.uint8)
        order = plan.training_task.seen(plan.num_steps - 1)
        class_of_label[: len(order)] = order
        items = plan.previews(plan.num_steps - 1)
        return [denormalise(image) for image, _ in items], [class_of_label[label.numpy()] for _, label in items]

    def _draw_predictions(self) -> Path:
        images, labels = self._previews()
        return draw_predictions(
            self.results.path / "predictions.png",
            images,
            labels,
            [self.results.read_previews(step) for step in range(self.plan.num_steps)],
            self.plan.training_task.class_names,
        )
