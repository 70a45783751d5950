"""ALIFE-M's stages beside training: a memory of features is filled, rotated into a new feature space, and replayed.

The memory's files are those of `StageContext.memory_path`: after step t ``step_t.pt`` holds all classes seen so far,
in the feature space of the model after step t. Inside step t ``step_t-rotated.pt`` holds the old classes, brought into
the feature space of the step's new model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import ciss_fast
from ciss_fast.data import StepBatches
from ciss_fast.engine.schedule import PolySchedule
from ciss_fast.engine.seeding import EXTRACTION, REPLAY, step_seed
from ciss_fast.engine.train_step import build_optimiser
from ciss_fast.errors import CissFastError
from ciss_fast.memory.feature_extraction import FeatureExtraction
from ciss_fast.memory.feature_memory import (
    FeatureMemory,
    describe_cost,
    extractor_fingerprint,
    load_fitting_memory,
    save_feature_memory,
)
from ciss_fast.memory.replay import joint_classifier, train_classifiers_only
from ciss_fast.memory.rotation_fit import (
    batch_prototypes,
    initial_rotations,
    rotate_memory,
    rotation_optimiser,
)
from ciss_fast.methods.method import LossAndTerms
from ciss_fast.models import SegmentationModel

if TYPE_CHECKING:
    from ciss_fast.engine.loop import TrainingLoop
    from ciss_fast.engine.stages import StageContext

COMPLETE, ROTATED = ".pt", "-rotated.pt"


def extract_features(context: StageContext) -> None:
    """Take features of the step's classes with the step's final model and append them to the memory.

    At the last step there is nothing to do: no step would read them.
    """
    plan, step, model = context.plan, context.step, context.model
    if context.settings.feature_replay == "none" or step == plan.num_steps - 1:
        return
    task, data = plan.training_task, plan.config.data
    classes = task.steps[step]
    extraction = FeatureExtraction(
        plan.training_set(step, stream=EXTRACTION),
        task.channel_of_class[list(classes)],
        plan.config.replay.features_per_class,
        class_names=[task.class_names[class_id] for class_id in classes],
        align_corners=plan.config.model.align_corners,
        batch_size=data.batch_size,
        workers=data.workers,
    )
    if context.progress.state is not None:
        extraction.load_state_dict(context.progress.state)
    model.eval()
    found = context.reporter.follow(
        extraction.run(lambda images: feature_maps(context, model, images)),
        extraction.num_wanted,
        f"step {step}, features",
        {},
        done=extraction.num_found,
    )
    with closing(found):
        for count, _ in enumerate(found, extraction.num_found + 1):
            context.progress.save_if_due(count, False, extraction.state_dict)
    extracted = extraction.result()
    finite = torch.isfinite(extracted.features).flatten(1).all(dim=1)
    if not finite.all():
        name = task.class_names[classes[int(finite.int().argmin())]]
        raise CissFastError(
            f"step {step}: the model's features of {name} are not finite; a lower learning rate, --clip-norm or "
            f"--precision fp32 may help"
        )
    for note in extracted.notes:
        context.reporter.message(f"step {step}: {note}")
    if step == 0:
        fingerprint = extractor_fingerprint(model)
        memory = FeatureMemory(
            extracted.features, classes, 0, fingerprint, extracted.source_images, extracted.source_bytes
        )
    else:
        memory = load_memory(context, model, step, ROTATED).appended(
            extracted.features, classes, extracted.source_images, extracted.source_bytes
        )
    save_feature_memory(context.memory_path(step, COMPLETE), memory)
    context.reporter.message(f"step {step}: {describe_cost(memory)}")
    context.results["memory"] = {
        "classes": memory.num_classes,
        "features_per_class": memory.features_per_class,
        "dimension": memory.dimension,
        "bytes": memory.num_bytes,
        "source_images": memory.source_images,
        "source_bytes": memory.source_bytes,
        "crops": extracted.crops,
        "notes": list(extracted.notes),
    }


def check_features(context: StageContext) -> None:
    """Read the memory that `rotate_features` starts from, so that a damaged one stops the step at its beginning."""
    if context.settings.feature_replay != "none":
        load_memory(context, context.teacher, context.step - 1, COMPLETE)


def rotate_features(context: StageContext) -> None:
    """Bring the memory of the old classes into the feature space of the step's model (ALIFE-M, stage 2).

    Fits the rotations on the step's images and rotates every feature; with ``feature_replay`` "unrotated" the
    features stay as they are.
    """
    if context.settings.feature_replay == "none":
        return
    step, model = context.step, context.model
    memory = load_memory(context, context.teacher, step - 1, COMPLETE)
    features = memory.features
    if context.settings.feature_replay == "rotated":
        features = features.to(context.precision.device)
        features = rotate_memory(fit_rotations(context, features), features).cpu()
    moved = memory.moved(features, step, extractor_fingerprint(model))
    save_feature_memory(context.memory_path(step, ROTATED), moved)


def fit_rotations(context: StageContext, features: Tensor) -> Tensor:
    """Fit a rotation for every old class of the memory [K, S, D]; returns their parameters [K, D(D-1)/2]."""
    plan, step, model = context.plan, context.step, context.model
    config, settings = plan.config.replay, context.settings
    model.eval().requires_grad_(False)
    weight, bias = joint_classifier(model)
    generator = torch.Generator().manual_seed(step_seed(plan.config.run.seed, step, REPLAY))
    params = initial_rotations(features.shape[0], features.shape[2], generator).to(features.device).requires_grad_()
    batches = plan.training_batches(step, stream=REPLAY)
    iterations = iterations_of(config.rotation_epochs, batches)
    schedule = PolySchedule(
        rotation_optimiser(params, config.rotation_lr, config.rotation_weight_decay),
        iterations,
        power=plan.config.optimisation.poly_power,
    )
    loop = context.loop(schedule, epoch_length=len(batches), title="rotations", tensors={"rotations": params})
    items = loop.timed(batches.endless(loop.first))
    kept_from = iterations - replay_iterations(context, batches)

    def compute_loss(iteration: int) -> LossAndTerms:
        images, label = next(items)
        previous, current = (feature_maps(context, network, images) for network in (context.teacher, model))
        if iteration >= kept_from and loop.first <= kept_from:
            context.kept.add((current, classify(context.teacher, previous), label.to(torch.uint8)))
        prototypes = batch_prototypes(previous, current, features, config.rotation_group)
        return ciss_fast.rotation_loss(params, *prototypes, weight, bias, settings.rotation_weight)

    with closing(items):  # ends the loader processes at once, whatever happens
        loop.run(lambda iteration: [compute_loss(iteration)])
    return params.detach()


def train_classifiers(context: StageContext) -> None:
    """Train the classifiers, old and new, on the step's images and the memory (ALIFE-M, stage 3).

    Nothing before the classifiers moves, so the batches are the last ones of the rotations' fit, whose feature maps
    need not be computed again where ``context.kept`` still has them.
    """
    plan, step, model, device = context.plan, context.step, context.model, context.precision.device
    settings, optimisation = context.settings, plan.config.optimisation
    memory = None
    if settings.feature_replay != "none":
        memory = load_memory(context, model, step, ROTATED).features.to(device)
    groups = [{"name": "classifiers", "params": train_classifiers_only(model), "lr": plan.config.replay.replay_lr}]
    batches = plan.training_batches(step, stream=REPLAY)
    iterations = replay_iterations(context, batches)
    schedule = PolySchedule(build_optimiser(groups, optimisation, step), iterations, power=optimisation.poly_power)
    loop = context.loop(schedule, epoch_length=len(batches), title="classifiers")
    items = replayed_batches(context, batches, loop)

    def compute_loss(iteration: int) -> LossAndTerms:
        current, teacher, label = next(items)
        student = classify(model, current)
        return plan.method.replay_loss(
            student, teacher, label.to(device), joint_classifier(model), memory, step, settings
        )

    with closing(items):
        loop.run(lambda iteration: [compute_loss(iteration)], optimisation.clip_norm)


def replayed_batches(context: StageContext, batches: StepBatches, loop: TrainingLoop) -> Iterator[tuple[Tensor, ...]]:
    """The batches of `train_classifiers` from the loop's first on: feature maps, the teacher's logits, label."""
    fit = iterations_of(context.plan.config.replay.rotation_epochs, batches)
    number = max(0, fit - replay_iterations(context, batches))
    if loop.first == 0:  # else an interruption came between, and nothing has been kept
        while kept := context.kept.take():
            number += 1
            yield kept
    with closing(loop.timed(batches.endless(number + loop.first))) as items:
        for images, label in items:
            previous, current = (
                feature_maps(context, network, images) for network in (context.teacher, context.model)
            )
            yield current, classify(context.teacher, previous), label


def replay_iterations(context: StageContext, batches: StepBatches) -> int:
    """Iterations of `train_classifiers`."""
    return iterations_of(context.plan.config.replay.replay_epochs, batches)


def iterations_of(epochs: float, batches: StepBatches) -> int:
    return max(1, round(epochs * len(batches)))


@torch.no_grad()
def feature_maps(context: StageContext, network: SegmentationModel, images: Tensor) -> Tensor:
    """The network's feature maps of a batch of images, in the run's arithmetic."""
    with context.precision.autocast():
        return network.extract(context.precision.place_images(images))


def classify(network: SegmentationModel, maps: Tensor) -> Tensor:
    """The logits of feature maps, in float32."""
    return network.classify(maps.float()).logits


def load_memory(context: StageContext, network: SegmentationModel, step: int, suffix: str) -> FeatureMemory:
    """The memory of a step, which has to lie in the feature space of ``network``."""
    task = context.plan.training_task
    return load_fitting_memory(
        context.memory_path(step, suffix),
        network,
        class_ids=task.seen(step if suffix == COMPLETE else step - 1),
        step=step,
        features_per_class=context.plan.config.replay.features_per_class,
    )


class KeptBatches:
    """Batches that one stage hands to the next in memory, in order, as far as they fit.

    After an interruption it is empty; whoever reads it must be able to make the batches anew.
    """

    def __init__(self, max_bytes: int) -> None:
        self.free = max_bytes
        self._batches: deque[tuple[Tensor, ...]] = deque()

    def add(self, batch: tuple[Tensor, ...]) -> None:
        """Keep a batch, unless it or one before did not fit."""
        self.free -= sum(tensor.numel() * tensor.element_size() for tensor in batch)
        if self.free >= 0:
            self._batches.append(batch)

    def take(self) -> tuple[Tensor, ...] | None:
        """Hand out the first batch that is left, None if there is none."""
        return self._batches.popleft() if self._batches else None
