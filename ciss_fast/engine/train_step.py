"""Training one step: from a prepared model to a trained one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from ciss_fast.data import StepBatches
from ciss_fast.engine.config import Config, OptimisationConfig
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.schedule import PolySchedule
from ciss_fast.engine.settings import at_step
from ciss_fast.errors import CissFastError
from ciss_fast.methods import Method, MethodSettings
from ciss_fast.models import SegmentationModel

LogEntry = dict[str, float]


def step_epochs(config: Config, step: int) -> float:
    """Passes over the training images of a step."""
    settings = config.optimisation
    return settings.epochs_base if step == 0 else at_step(settings.epochs_later, step, "--epochs-later")


def step_learning_rate(config: Config, step: int) -> float:
    """The initial learning rate of a step, before the factors of parameter groups."""
    settings = config.optimisation
    return settings.lr_base if step == 0 else at_step(settings.lr_later, step, "--lr-later")


def build_optimiser(groups: list[dict[str, Any]], settings: OptimisationConfig) -> torch.optim.Optimizer:
    """The configured optimiser over a method's parameter groups, which bring their own learning rates."""
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=settings.lr_base,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )


class LossLog:
    """Collects loss terms on the device and averages them every few iterations, so that each one costs no
    wait.
    """

    def __init__(self, every: int, sink: Callable[[LogEntry], None]) -> None:
        self.every, self.sink = every, sink
        self.entries: list[LogEntry] = []
        self._pending: list[dict[str, Tensor]] = []

    def add(self, iteration: int, terms: dict[str, Tensor], learning_rate: float, *, last: bool) -> None:
        """Record the terms of one iteration.

        Raises `CissFastError` when entries are averaged and the loss has become infinite or NaN.
        """
        self._pending.append(terms)
        if len(self._pending) < self.every and not last:
            return
        means = {name: float(torch.stack([entry[name].float() for entry in self._pending]).mean()) for name in terms}
        if not math.isfinite(means["loss"]):
            raise CissFastError(
                f"iteration {iteration}: the loss is {means['loss']}; a lower learning rate, "
                "--clip-norm or --precision fp32 may help"
            )
        entry = {"iteration": iteration, "learning_rate": learning_rate, **means}
        self.entries.append(entry)
        self._pending.clear()
        self.sink(entry)


def endless(batches: StepBatches) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch of batches, without end."""
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        yield from batches


class StepTrainer:
    """Trains the steps of a run, one call each; holds what all of them share.

    ``sink`` is called with every new entry of the loss log.
    """

    def __init__(
        self,
        method: Method,
        config: Config,
        precision: Precision,
        reporter: Reporter,
        sink: Callable[[LogEntry], None],
    ) -> None:
        self.method, self.config = method, config
        self.precision, self.reporter, self.sink = precision, reporter, sink

    def train(
        self,
        step: int,
        model: SegmentationModel,
        teacher: SegmentationModel | None,
        batches: StepBatches,
        settings: MethodSettings,
    ) -> list[LogEntry]:
        """Train ``model`` (prepared for ``step``; changed in place) and return the loss log.

        ``teacher`` is the frozen model of the step before, if the method reads it; ``settings`` is what the
        method takes from the configuration. Raises `CissFastError` if the loss becomes infinite or NaN.
        """
        optimisation = self.config.optimisation
        self.method.set_train_mode(model, step, settings)
        groups = self.method.parameter_groups(model, step, settings, step_learning_rate(self.config, step))
        optimiser = build_optimiser(groups, optimisation)
        iterations = max(1, round(step_epochs(self.config, step) * len(batches)))
        schedule = PolySchedule(
            optimiser,
            iterations,
            power=optimisation.poly_power,
            warmup=optimisation.warmup,
            warmup_start=optimisation.warmup_start,
        )
        log = LossLog(self.config.run.log_every, self.sink)
        status: dict[str, float] = {}
        numbered = enumerate(itertools.islice(endless(batches), iterations))
        followed = self.reporter.follow(numbered, iterations, f"step {step}", status)
        with closing(followed):  # so that an error finds the progress bar put away
            for iteration, (images, label) in followed:
                schedule.set_iteration(iteration)
                images = self.precision.place_images(images)
                label = label.to(self.precision.device, non_blocking=True)
                with self.precision.autocast():
                    output = model(images)
                    with torch.no_grad():
                        teacher_output = teacher(images) if teacher is not None else None
                loss, terms = self.method.loss(output, teacher_output, label, step, settings)
                self._update(optimiser, loss)
                # The number of pixels in every region comes with the terms; it is not for the log.
                values = {name: value for name, value in terms.items() if not name.startswith("pixels_")}
                values = {"loss": loss.detach(), **values}
                log.add(iteration, values, schedule.learning_rate, last=iteration == iterations - 1)
                if log.entries:
                    status["loss"] = log.entries[-1]["loss"]
        return log.entries

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.optimisation.clip_norm is not None:
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.config.optimisation.clip_norm)
        optimiser.step()
