"""Everything a run needs, built and checked before its first file is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ciss_fast.data import (
    EvaluationSet,
    MemoryCache,
    SegmentationDataset,
    StepBatches,
    Task,
    TrainingSet,
    TrainingTransform,
    build_dataset,
    evaluation_label_table,
    make_evaluation_loader,
    make_loader,
    scan_classes,
    select_images,
    training_label_table,
)
from ciss_fast.data.dataset import check_options
from ciss_fast.engine.config import Config, DataConfig
from ciss_fast.engine.effective_config import effective_config, method_settings, published_dataset
from ciss_fast.engine.memory_use import available_memory_bytes
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.processes import ALONE, Processes, processes_on_this_machine
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.seeding import step_seed
from ciss_fast.errors import ConfigError, DataError
from ciss_fast.methods import Method, MethodSettings, get_method
from ciss_fast.methods.published import PUBLISHED_DATASETS


@dataclass(frozen=True)
class Plan:
    """The checked ingredients of a run.

    Attributes:
        config: the effective configuration, published values filled in.
        task: as named by the user; scores are grouped by its steps.
        training_task: what is learnt in which step (joint training: everything in one).
        training_images, test_images: image indices of every training step, and of the tests after it.
        preview_images: test images to show in the report.
        data_fingerprint: of the training images, see `ClassScan`.
    """

    config: Config
    task: Task
    training_task: Task
    method: Method
    settings: MethodSettings
    train_data: SegmentationDataset
    test_data: SegmentationDataset
    training_images: list[np.ndarray]
    test_images: list[np.ndarray]
    preview_images: list[int]
    data_fingerprint: str

    def settings_at(self, step: int) -> MethodSettings:
        """What the method reads at a step: later steps may have learning-rate multipliers and frozen batch norms of
        their own.
        """
        if step == 0:
            return self.settings
        optimisation = self.config.optimisation
        names = (
            "backbone_lr_multiplier", "head_lr_multiplier", "new_classifier_lr_multiplier", "freeze_batch_norm",
        )  # fmt: skip
        later = {name: getattr(optimisation, f"later_{name}") for name in names}
        return dataclasses.replace(self.settings, **{name: value for name, value in later.items() if value is not None})

    @property
    def num_steps(self) -> int:
        return self.training_task.num_steps

    def training_batches(
        self,
        step: int,
        replay: Sequence[int] = (),
        stream: int = 0,
        processes: Processes = ALONE,
    ) -> StepBatches:
        """The augmented training batches of a step, from its images and ``replay``, see `training_set`; of several
        processes each gets its part of every batch.
        """
        images, data = self.training_set(step, replay, stream), self.config.data
        return make_loader(
            images,
            processes.share_of(data.batch_size),
            seed=images.seed,
            workers=data.workers,
            pin_memory=Precision.from_config(self.config.run).device.type == "cuda",
            shard=processes.rank,
            num_shards=processes.count,
        )

    def training_set(self, step: int, replay: Sequence[int] = (), stream: int = 0) -> TrainingSet:
        """The augmented training images of a step and ``replay``, images (indices) of steps before; all are
        labelled as the setting says, see `ciss_fast.data.tasks`. ``stream``: which random numbers, see `step_seed`.
        """
        data = self.config.data
        transform = TrainingTransform(
            data.crop_size, scale=(data.scale_min, data.scale_max), flip=0.5 if data.flip else 0.0
        )
        table = training_label_table(self.training_task, step, data.setting, **self.method.label_options(step))
        indices = np.union1d(self.training_images[step], np.asarray(replay, dtype=np.int64))
        if isinstance(self.train_data, MemoryCache):  # before the loader processes start, so that they share the memory
            self.train_data.keep(indices, load=data.workers > 0)
        return TrainingSet(self.train_data, indices, table, transform, step_seed(self.config.run.seed, step, stream))

    def test_batches(
        self,
        step: int,
        processes: Processes = ALONE,
    ) -> StepBatches:
        """The images that the model after a step is scored on, same-size ones together; of several processes each
        gets some.
        """
        settings = self.config.evaluation
        return make_evaluation_loader(
            self._test_set(self.test_images[step], step),
            settings.eval_batch_size,
            workers=self.config.data.workers,
            shard=processes.rank,
            num_shards=processes.count,
        )

    def previews(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """Image and label of every preview, as they are tested after a step."""
        if not self.preview_images:
            return []
        shown = self._test_set(np.array(self.preview_images), step)
        return [shown[i] for i in range(len(shown))]

    def _test_set(self, indices: np.ndarray, step: int) -> EvaluationSet:
        settings = self.config.evaluation
        table = evaluation_label_table(
            self.training_task, step, settings.unseen, ignore_background=settings.ignore_background
        )
        return EvaluationSet(self.test_data, indices, table, settings.eval_crop)


def make_plan(config: Config, reporter: Reporter) -> Plan:
    """Build and check a run's ingredients; no file but the class-presence cache is written.

    Raises `ConfigError` or `DataError` for an unknown data set, task, method or setting, missing data,
    settings that do not fit the number of steps, and a step without images.
    """
    method = get_method(config.method.method)
    data = config.data
    if data.scale_min > data.scale_max:
        raise ConfigError(f"--scale-min: expected at most --scale-max ({data.scale_max}), got {data.scale_min}")
    root = Path(data.data_root) if data.data_root is not None else None
    check_options(data.dataset, data.data_option)
    train_data = build_dataset(data.dataset, root, "train", **data.data_option)
    test_data = build_dataset(data.dataset, root, "val", **data.data_option)
    task = Task.parse(data.task, class_names=train_data.class_names, class_order=data.class_order)
    config = config.with_settings({"task": task.name, "class_order": own_class_order(task)})
    training_task = method.steps_of(task)
    settings = method_settings(config, method)
    method.check_settings(settings, task.num_steps)
    config = effective_config(config, method, settings)
    data = config.data
    check_per_step_settings(config, task.num_steps)
    if method.feature_memory and settings.feature_replay == "rotated" and config.model.head_channels < 2:
        raise ConfigError(
            f"--head-channels: {method.name} rotates features, expected at least 2, got {config.model.head_channels} "
            f"(--feature-replay unrotated or none does without)"
        )
    steps = range(training_task.num_steps)
    scan = scan_classes(train_data, progress=reporter.counter("reading training label maps"))
    presence = scan.presence
    training_images = [select_images(presence, training_task, step, data.setting, "train") for step in steps]
    if method.feature_memory and settings.feature_replay != "none":
        check_every_class_is_shown(presence, training_task, training_images)
    test_presence = scan_classes(test_data, progress=reporter.counter("reading test label maps")).presence
    test_images = [select_images(test_presence, training_task, step, data.setting, "test") for step in steps]
    plan = Plan(
        config=config,
        task=task,
        training_task=training_task,
        method=method,
        settings=settings,
        train_data=_cached(train_data, data, reporter) if data.cache_images else train_data,
        test_data=test_data,
        training_images=training_images,
        test_images=test_images,
        preview_images=choose_previews(test_presence, task, config.run.previews),
        data_fingerprint=scan.fingerprint,
    )
    if published_dataset(config) in PUBLISHED_DATASETS and not settings.published:
        reporter.message(f"loss weights are not a paper's for {method.name} on {published_dataset(config)} {task.name}")
    reporter.message(
        f"{data.dataset} {task.name} ({data.setting}), {method.name}: training images by step "
        f"{[len(images) for images in training_images]}, test images "
        f"{[len(images) for images in test_images]}"
    )
    return plan


def _cached(dataset: SegmentationDataset, data: DataConfig, reporter: Reporter) -> MemoryCache:
    """The data set with a cache as large as wanted: by default this process's share of half of the free memory."""
    if data.cache_megabytes is not None:
        limit = int(data.cache_megabytes * 1e6)
    else:
        free = available_memory_bytes()
        limit = None if free is None else free // 2 // processes_on_this_machine()
    return MemoryCache(dataset, limit, reporter.counter("reading images into memory"))


def own_class_order(task: Task) -> tuple[int, ...] | None:
    """The foreground classes in learning order by id; None if that is the order of the ids."""
    order = task.seen(task.num_steps - 1)[1:]
    return None if list(order) == sorted(order) else order


def check_per_step_settings(config: Config, num_steps: int) -> None:
    """Raise `ConfigError` if a per-step list has not one value for each later step."""
    values = {"--epochs-later": config.optimisation.epochs_later, "--lr-later": config.optimisation.lr_later}
    for name, value in values.items():
        if isinstance(value, tuple) and len(value) != num_steps - 1:
            raise ConfigError(
                f"{name}: expected one value or {num_steps - 1} (one for each later step), got {len(value)}"
            )


def check_every_class_is_shown(presence: np.ndarray, task: Task, training_images: list[np.ndarray]) -> None:
    """Raise `DataError` unless the images of every step but the last, from which features are kept, show all of
    its classes (the background needs no check).
    """
    for step, images in enumerate(training_images[:-1]):
        for class_id in task.steps[step]:
            if class_id != 0 and not presence[images, class_id].any():
                raise DataError(
                    f"step {step}: features of every class are kept; expected training images that show "
                    f"{task.class_names[class_id]}, got none of {len(images)}"
                )


def choose_previews(presence: np.ndarray, task: Task, count: int) -> list[int]:
    """Up to ``count`` test images, taking the task's steps in turn: of the images that show a class of the
    step, the one with most foreground classes that is not chosen yet (the first of them)."""
    chosen: list[int] = []
    richness = presence[:, 1:].sum(axis=1)
    for turn in range(max(1, math.ceil(count / task.num_steps)) * task.num_steps):
        classes = [class_id for class_id in task.steps[turn % task.num_steps] if class_id != 0]
        candidates = [i for i in np.flatnonzero(presence[:, classes].any(axis=1)) if i not in chosen]
        if candidates and len(chosen) < count:
            chosen.append(int(max(candidates, key=lambda i: (richness[i], -i))))
    return chosen
