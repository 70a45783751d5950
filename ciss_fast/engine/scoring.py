"""Scoring the model of a step: what goes into ``metrics.json`` and ``evaluation/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ciss_fast.data import (
    EvaluationSet,
    Task,
    build_dataset,
    class_presence,
    evaluation_label_table,
    make_evaluation_loader,
    select_images,
)
from ciss_fast.engine.checkpoint import StepCheckpoint
from ciss_fast.engine.evaluate import confusion_matrix, predict_images
from ciss_fast.engine.metrics import compute_scores
from ciss_fast.engine.plan import Plan
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.processes import ALONE, Processes
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.trained_model import model_of
from ciss_fast.errors import CheckpointError, ConfigError
from ciss_fast.methods import get_method
from ciss_fast.models import SegmentationModel


def run_tests(
    plan: Plan,
    step: int,
    model: SegmentationModel,
    precision: Precision,
    reporter: Reporter,
    processes: Processes = ALONE,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The confusion matrix (channels) over a step's test images, which the processes share, and the predicted class
    ids of the previews.
    """
    how = {"align_corners": plan.config.model.align_corners, "kind": plan.method.prediction_kind}
    batches = plan.test_batches(step, processes)
    confusion = confusion_matrix(
        model,
        reporter.follow(batches, len(batches), f"testing step {step}", {}),
        model.num_classes,
        precision,
        **how,
    )
    confusion = processes.total(confusion)
    class_of_channel = np.array(plan.training_task.seen(step), dtype=np.uint8)
    images = [image for image, _ in plan.previews(step)]
    channels = predict_images(model, images, precision, **how)
    return confusion, [class_of_channel[preview] for preview in channels]


def metrics_entry(
    plan: Plan, step: int, checkpoint: StepCheckpoint, confusion: np.ndarray, seconds: float, memory: int | None
) -> dict[str, Any]:
    """What ``metrics.json`` says about a step; ``seconds`` is the time that testing took, ``memory`` the most that
    training did, if it is known.
    """
    scores = compute_scores(confusion, groups_of(plan.task.classes_per_step, confusion.shape[0]))
    names = [checkpoint.class_names[class_id] for class_id in checkpoint.channel_order]
    return {
        "step": step,
        "new_classes": [checkpoint.class_names[class_id] for class_id in plan.training_task.steps[step]],
        "training_images": len(plan.training_images[step]),
        "test_images": len(plan.test_images[step]),
        "iterations": int(checkpoint.history[-1]["iteration"]) + 1,
        "stages": checkpoint.stages,
        "seconds_training": checkpoint.seconds,
        "seconds_testing": seconds,
        "peak_memory_bytes": memory,
        **scores.summary(),
        "iou": dict(zip(names, scores.iou, strict=True)),
        "loss_log": checkpoint.history,
    }


def groups_of(classes_per_step: list[int], channels: int) -> list[int]:
    """The task's class groups that a model of so many channels covers (joint training: all of them at
    once).
    """
    groups: list[int] = []
    for count in classes_per_step:
        if sum(groups) < channels:
            groups.append(count)
    return groups


def score_checkpoint(
    checkpoint: StepCheckpoint, path: str | Path, settings: Mapping[str, Any], reporter: Reporter
) -> dict[str, Any]:
    """Score a model apart from any run; an entry as in ``metrics.json``, without what only training knows.

    ``settings`` (`Config.with_settings`) replace those of the checkpoint's configuration; ``path`` is for messages.
    Needs the test images only. Raises `CheckpointError`, `ConfigError` or `DataError`.
    """
    model, config = model_of(checkpoint, path)
    config = config.with_settings(settings)
    data, evaluation = config.data, config.evaluation
    method, precision = get_method(checkpoint.method), Precision.from_config(config.run)
    images = build_dataset(data.dataset, data.data_root, "val", **data.data_option)
    if list(images.class_names) != checkpoint.class_names:
        raise ConfigError(f"{path}: expected a data set with the classes of training, {data.dataset} has others")
    task = Task.parse(data.task, class_names=images.class_names, class_order=data.class_order)
    training_task, step = method.steps_of(task), checkpoint.step
    if list(training_task.seen(step)) != checkpoint.channel_order:
        raise CheckpointError(f"{path}: its class order is not that of its configuration's task {task.name}")
    chosen = select_images(class_presence(images), training_task, step, data.setting, "test")
    table = evaluation_label_table(
        training_task, step, evaluation.unseen, ignore_background=evaluation.ignore_background
    )
    batches = make_evaluation_loader(
        EvaluationSet(images, chosen, table, evaluation.eval_crop), evaluation.eval_batch_size, workers=data.workers
    )
    confusion = confusion_matrix(
        precision.place_model(model),
        reporter.follow(batches, len(batches), f"testing step {step}", {}),
        model.num_classes,
        precision,
        align_corners=bool(config.model.align_corners),
        kind=method.prediction_kind,
    )
    scores = compute_scores(confusion, groups_of(task.classes_per_step, confusion.shape[0]))
    names = [checkpoint.class_names[class_id] for class_id in checkpoint.channel_order]
    return {
        "step": step,
        "new_classes": [checkpoint.class_names[class_id] for class_id in training_task.steps[step]],
        "training_images": None,
        "test_images": len(chosen),
        "iterations": None,
        "seconds_training": None,
        "peak_memory_bytes": None,
        **scores.summary(),
        "iou": dict(zip(names, scores.iou, strict=True)),
    }
