"""A whole run: every step trained, scored and written down; steps already done are not done again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ciss_fast.data import denormalise
from ciss_fast.engine.checkpoint import (
    StepCheckpoint,
    checkpoint_path,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from ciss_fast.engine.config import Config, first_difference
from ciss_fast.engine.evaluate import confusion_matrix, predict_images
from ciss_fast.engine.metrics import compute_scores
from ciss_fast.engine.plan import Plan, make_plan
from ciss_fast.engine.plots import draw_curves, draw_predictions
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.results import ResultsFolder, steps_table
from ciss_fast.engine.seeding import seed_everything
from ciss_fast.engine.summaries import Summaries
from ciss_fast.engine.tables import percent
from ciss_fast.engine.train_step import train_step
from ciss_fast.errors import CheckpointError
from ciss_fast.models import SegmentationModel, build_model


def train(config: Config, reporter: Reporter | None = None) -> Path:
    """Train and score all steps that are not done yet; returns the results folder.

    Everything that can be wrong with the arguments is found before the first file is written. Raises
    `ConfigError`, `DataError` or `CheckpointError`, each a single line.
    """
    reporter = reporter or Reporter()
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    run = Run(make_plan(config, reporter), reporter)
    run.prepare()
    for step in range(run.plan.num_steps):
        run.do_step(step)
    run.report()
    return run.results.path


def default_output(config: Config) -> Path:
    """The results folder of a run that names none."""
    data = config.data
    return (
        Path("runs")
        / f"{data.dataset}-{data.task}-{data.setting}-{config.method.method}-seed{config.run.seed}"
    )


class Run:
    """The state of a run between its steps: the last step's checkpoint and the scores so far."""

    def __init__(self, plan: Plan, reporter: Reporter) -> None:
        self.plan, self.reporter = plan, reporter
        self.config = plan.config
        self.precision = Precision.from_config(plan.config.run)
        self.results = ResultsFolder(plan.config.run.output or default_output(plan.config))
        self.last: StepCheckpoint | None = None
        self.base: StepCheckpoint | None = None
        self.metrics: dict[str, Any] = {}

    def prepare(self) -> None:
        """Check what the run starts from, then claim the results folder."""
        checkpoint = checkpoint_path(self.results.path, 0)
        if self.config.run.base_from is not None and not checkpoint.exists():
            self.base = load_base(self.config.run.base_from, self.plan)
        elif not checkpoint.exists():
            self._new_model()  # finds a wrong weights file before anything is written
        self.results.claim(self.config)
        self.metrics = self._read_metrics()

    def do_step(self, step: int) -> None:
        """Train a step and score its model, or find that this has been done."""
        path = checkpoint_path(self.results.path, step)
        if path.exists():
            self.last = self._load_own(path, step)
            done = any(entry["step"] == step for entry in self.metrics["steps"])
            if done and self.results.evaluation_path(step).exists():
                self.reporter.message(f"step {step}: already done")
                return
        else:
            self.last = self._make_step(step)
            save_checkpoint(path, self.last)
        self._score_step(step, self.last)

    def report(self) -> None:
        """Draw the pictures and print the table."""
        pictures = [draw_curves(self.results.path / "curves.png", self.metrics)]
        if self.plan.preview_images:
            pictures.append(self._draw_predictions())
        self.reporter.result(steps_table(self.metrics))
        self.reporter.result(
            f"results: {self.results.path} ({', '.join(path.name for path in pictures)}, "
            f"{self.results.metrics_path.name})"
        )

    def _make_step(self, step: int) -> StepCheckpoint:
        if step == 0 and self.base is not None:
            self.reporter.message(f"step 0: taken over from {self.config.run.base_from}")
            return self._checkpoint(0, self.base.model, self.base.seconds, self.base.history)
        plan, seed = self.plan, self.config.run.seed
        if step == 0:
            seed_everything(seed, step)
            model, teacher = self._new_model(), None
        else:
            assert self.last is not None
            model = self._model_of(self.last, checkpoint_path(self.results.path, step - 1))
            teacher = model.frozen_copy() if plan.method.needs_teacher(step) else None
            seed_everything(seed, step)
        plan.method.prepare_step(model, step, plan.training_task.classes_per_step[step])
        self.precision.place_model(model)
        if teacher is not None:
            self.precision.place_model(teacher)
        start = time.monotonic()
        with self._summaries(step) as summaries:
            history = train_step(
                model,
                teacher,
                plan.method,
                plan.settings,
                step,
                plan.training_batches(step),
                self.config,
                self.precision,
                self.reporter,
                lambda entry: summaries.add_losses(step, entry),
            )
        return self._checkpoint(step, model.state_dict(), time.monotonic() - start, history)

    def _score_step(self, step: int, checkpoint: StepCheckpoint) -> None:
        start = time.monotonic()
        model = self._model_of(checkpoint, checkpoint_path(self.results.path, step))
        self.precision.place_model(model)
        align_corners = self.config.model.align_corners
        confusion = confusion_matrix(
            model,
            self.reporter.follow(
                batches := self.plan.test_batches(step), len(batches), f"testing step {step}", {}
            ),
            model.num_classes,
            self.precision,
            align_corners=align_corners,
        )
        previews = self.plan.previews(step)
        channels = predict_images(
            model,
            [previews[i][0] for i in range(len(previews))] if previews else [],
            self.precision,
            align_corners=align_corners,
        )
        class_of_channel = np.array(checkpoint.channel_order, dtype=np.uint8)
        self.results.write_evaluation(step, confusion, [class_of_channel[image] for image in channels])
        entry = self._metrics_entry(step, checkpoint, confusion, time.monotonic() - start)
        steps = [other for other in self.metrics["steps"] if other["step"] != step]
        self.metrics["steps"] = sorted([*steps, entry], key=lambda other: other["step"])
        scores = [other["miou_all"] for other in self.metrics["steps"] if other["miou_all"] is not None]
        self.metrics["mean_miou_all"] = sum(scores) / len(scores) if scores else None
        self.results.write_metrics(self.metrics)
        with self._summaries(step) as summaries:
            summaries.add_scores(step, entry)
        self.reporter.message(
            f"step {step}: mIoU base {percent(entry['miou_base'])}, new {percent(entry['miou_new'])}, all "
            f"{percent(entry['miou_all'])}, hIoU {percent(entry['hiou'])} "
            f"({entry['seconds_training']:.0f} s training, {entry['seconds_testing']:.0f} s testing)"
        )

    def _metrics_entry(
        self, step: int, checkpoint: StepCheckpoint, confusion: np.ndarray, seconds: float
    ) -> dict[str, Any]:
        scores = compute_scores(confusion, groups_of(self.plan.task.classes_per_step, confusion.shape[0]))
        names = [checkpoint.class_names[class_id] for class_id in checkpoint.channel_order]
        return {
            "step": step,
            "new_classes": [checkpoint.class_names[c] for c in self.plan.training_task.steps[step]],
            "training_images": len(self.plan.training_images[step]),
            "test_images": len(self.plan.test_images[step]),
            "iterations": int(checkpoint.history[-1]["iteration"]) + 1,
            "seconds_training": checkpoint.seconds,
            "seconds_testing": seconds,
            **scores.summary(),
            "iou": dict(zip(names, scores.iou, strict=True)),
            "loss_log": checkpoint.history,
        }

    def _checkpoint(
        self, step: int, model: dict[str, torch.Tensor], seconds: float, history: list[dict[str, float]]
    ) -> StepCheckpoint:
        task = self.plan.training_task
        return StepCheckpoint(
            model=model,
            step=step,
            method=self.plan.method.name,
            config=self.config.to_dict(),
            class_names=list(task.class_names),
            channel_order=list(task.seen(step)),
            classes_per_step=task.classes_per_step[: step + 1],
            data_fingerprint=self.plan.train_data.fingerprint,
            seconds=seconds,
            history=history,
        )

    def _load_own(self, path: Path, step: int) -> StepCheckpoint:
        checkpoint = load_checkpoint(path)
        difference = checkpoint_difference(checkpoint, step, self.plan, ("base", "later"))
        if difference is not None:
            raise CheckpointError(f"{path}: belongs to another run: {difference}")
        return checkpoint

    def _new_model(self) -> SegmentationModel:
        settings = self.config.model
        return build_model(
            backbone=settings.backbone,
            output_stride=settings.output_stride,
            classes_per_step=self.plan.training_task.classes_per_step[:1],
            dropout=settings.dropout,
            head_channels=settings.head_channels,
            weights=settings.weights,
        )

    def _model_of(self, checkpoint: StepCheckpoint, path: Path) -> SegmentationModel:
        settings = self.config.model
        model = build_model(
            backbone=settings.backbone,
            output_stride=settings.output_stride,
            classes_per_step=checkpoint.classes_per_step,
            dropout=settings.dropout,
            head_channels=settings.head_channels,
            weights=None,
        )
        load_weights(model, checkpoint, path)
        return model

    def _read_metrics(self) -> dict[str, Any]:
        if self.results.metrics_path.exists():
            metrics = self.results.read_metrics()
        else:
            metrics = {"steps": []}
        plan, data = self.plan, self.config.data
        return {
            "dataset": data.dataset,
            "task": plan.task.name,
            "setting": data.setting,
            "method": plan.method.name,
            "seed": self.config.run.seed,
            "num_steps": plan.num_steps,
            "published_loss_weights": plan.settings.published,
            **metrics,
        }

    @contextmanager
    def _summaries(self, step: int) -> Iterator[Summaries]:
        first = sum(entry["iterations"] for entry in self.metrics["steps"] if entry["step"] < step)
        summaries = Summaries(self.results.path / "tensorboard", first)
        try:
            yield summaries
        finally:
            summaries.close()

    def _draw_predictions(self) -> Path:
        plan = self.plan
        shown = plan.previews(plan.num_steps - 1)
        class_of_label = np.full(256, 255, dtype=np.uint8)
        order = plan.training_task.seen(plan.num_steps - 1)
        class_of_label[: len(order)] = order
        items = [shown[i] for i in range(len(shown))]
        return draw_predictions(
            self.results.path / "predictions.png",
            [denormalise(image) for image, _ in items],
            [class_of_label[label.numpy()] for _, label in items],
            [self.results.read_previews(step) for step in range(plan.num_steps)],
            plan.training_task.class_names,
        )


def groups_of(classes_per_step: list[int], channels: int) -> list[int]:
    """The task's class groups that a model of so many channels covers (joint training: all of them at
    once).
    """
    groups: list[int] = []
    for count in classes_per_step:
        if sum(groups) < channels:
            groups.append(count)
    return groups


def load_base(run: str | Path, plan: Plan) -> StepCheckpoint:
    """The base step's checkpoint of another run.

    Raises `CheckpointError` if it has none, or if a setting that changes the base step differs.
    """
    path = checkpoint_path(run, 0)
    if not path.is_file():
        raise CheckpointError(f"--base-from: expected a run with a finished base step, there is no {path}")
    checkpoint = load_checkpoint(path)
    difference = checkpoint_difference(checkpoint, 0, plan, ("base",))
    if difference is not None:
        raise CheckpointError(f"--base-from: the base step in {run} does not fit: {difference}")
    return checkpoint


def checkpoint_difference(
    checkpoint: StepCheckpoint, step: int, plan: Plan, affects: tuple[Any, ...]
) -> str | None:
    """In what a checkpoint differs from what the plan wants at this step, as text; None if it fits."""
    difference = first_difference(checkpoint.config, plan.config, affects)
    if difference is not None:
        return difference
    task = plan.training_task
    wanted = {
        "step": step,
        "classes": list(task.class_names),
        "class order": list(task.seen(step)),
        "classes per step": task.classes_per_step[: step + 1],
        "training data": plan.train_data.fingerprint,
    }
    found = {
        "step": checkpoint.step,
        "classes": checkpoint.class_names,
        "class order": checkpoint.channel_order,
        "classes per step": checkpoint.classes_per_step,
        "training data": checkpoint.data_fingerprint,
    }
    for name, value in wanted.items():
        if found[name] != value:
            return f"{name} is {found[name]!r} there and {value!r} here"
    return None
