"""The stage "train": from a prepared model to a trained one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ciss_fast.data import StepBatches
from ciss_fast.engine.config import Config, OptimisationConfig
from ciss_fast.engine.processes import Processes
from ciss_fast.engine.schedule import PolySchedule
from ciss_fast.engine.settings import at_step
from ciss_fast.methods.method import LossAndTerms

if TYPE_CHECKING:
    from ciss_fast.engine.stages import StageContext


def step_epochs(config: Config, step: int) -> float:
    """Passes over the training images of a step."""
    settings = config.optimisation
    return settings.epochs_base if step == 0 else at_step(settings.epochs_later, step, "--epochs-later")


def step_learning_rate(config: Config, step: int) -> float:
    """The initial learning rate of a step, before the factors of parameter groups."""
    settings = config.optimisation
    return settings.lr_base if step == 0 else at_step(settings.lr_later, step, "--lr-later")


def build_optimiser(groups: list[dict[str, Any]], settings: OptimisationConfig, step: int) -> torch.optim.Optimizer:
    """The step's configured optimiser over a method's parameter groups, which bring their own learning rates."""
    name = settings.optimiser if step == 0 or settings.later_optimiser is None else settings.later_optimiser
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        groups,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )


def region_factors(
    labels: Sequence[Tensor], terms: Mapping[str, str], processes: Processes
) -> list[dict[str, float]]:
    """By what to multiply each part's ``terms``, means over a region of its label [b, H, W], so that the parts' losses,
    weighted by their numbers of images and averaged over the processes, give the mean over the whole batch's region.
    """
    # [parts, 2]: pixels without a label and with one; ignored ones count as such (see `ciss_fast.softmax_loss`).
    unlabelled = np.array([int((label == 0).sum()) for label in labels], dtype=np.int64)
    sizes = np.array([label.numel() for label in labels], dtype=np.int64)
    counts = {"unlabelled": unlabelled, "not_unlabelled": sizes - unlabelled}
    totals = processes.total(np.array([sizes.sum(), *(count.sum() for count in counts.values())]))
    whole = dict(zip(counts, totals[1:], strict=True))
    return [
        {
            name: float(counts[region][part] / max(1, whole[region]) * totals[0] / sizes[part])
            for name, region in terms.items()
        }
        for part in range(len(labels))
    ]


def train_model(context: StageContext, batches: StepBatches) -> None:
    """Train the context's model (prepared for its step; changed in place) with the method's loss.

    Raises `CissFastError` if the loss becomes infinite or NaN.
    """
    step, model, teacher, precision = context.step, context.model, context.teacher, context.precision
    method, config, settings = context.plan.method, context.plan.config, context.settings
    optimisation = config.optimisation
    method.set_train_mode(model, step, settings)
    groups = method.parameter_groups(model, step, settings, step_learning_rate(config, step))
    schedule = PolySchedule(
        build_optimiser(groups, optimisation, step),
        max(1, round(step_epochs(config, step) * len(batches))),
        power=optimisation.poly_power,
        warmup=optimisation.warmup,
        warmup_start=optimisation.warmup_start,
    )
    loop = context.loop(schedule, epoch_length=len(batches), title="training", scaler=precision.loss_scaler())
    items = loop.timed(batches.endless(loop.first))
    shared = context.progress.together.count > 1
    if shared:
        devices = [precision.device] if precision.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices)
    network = model
    if config.run.compile:
        network, teacher = (None if one is None else torch.compile(one) for one in (network, teacher))

    def compute_loss(images: Tensor, label: Tensor, factors: dict[str, float]) -> LossAndTerms:
        images = precision.place_images(images)
        label = label.to(precision.device, non_blocking=True)
        with precision.autocast():
            output = network(images)
            with torch.no_grad():
                teacher_output = teacher(images) if teacher is not None else None
        if not factors:
            return method.loss(output, teacher_output, label, step, settings)
        weights = {name: factors.get(name, 1.0) * settings.loss_weight(name, step) for name in method.loss_terms}
        loss, terms = method.loss(output, teacher_output, label, step, replace(settings, loss_weights=weights))
        return loss, {name: value * factors.get(name, 1.0) for name, value in terms.items()}

    def compute_losses(iteration: int) -> Iterator[LossAndTerms]:
        """One for every part of the batch, weighted by its share of the images."""
        images, label = next(items)
        parts = min(optimisation.accumulate, len(images))
        split = list(zip(images.tensor_split(parts), label.tensor_split(parts), strict=True))
        factors = [{}] * parts
        if optimisation.region_means == "batch" and step > 0:
            factors = region_factors([part for _, part in split], method.regions(settings), context.progress.together)
        for number, (part, factor) in enumerate(zip(split, factors, strict=True), start=1):
            # Gradients are exchanged with the last part's, while that is differentiated.
            with model.no_sync() if shared and number < parts else nullcontext():
                loss, terms = compute_loss(*part, factor)
                if parts > 1:
                    share = len(part[0]) / len(images)
                    loss, terms = loss * share, {name: value * share for name, value in terms.items()}
                yield loss, terms

    with closing(items):  # ends the loader processes at once, whatever happens
        loop.run(compute_losses, optimisation.clip_norm)
