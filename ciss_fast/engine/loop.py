"""Training loops that go on after an interruption with the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import torch
from torch import Tensor

from ciss_fast.engine.interruption import DeferredInterruption
from ciss_fast.engine.processes import ALONE, Processes
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.resume import LogEntry, StepProgress
from ciss_fast.engine.schedule import PolySchedule
from ciss_fast.errors import CissFastError

Item = TypeVar("Item")


class LossLog:
    """Collects loss terms on the device and averages them every few iterations, so that each one costs no
    wait.

    Args:
        every: iterations between two entries.
        entries: the list that new entries are appended to.
        sink: called with every new entry.
        first: number of the first iteration in the entries.
        processes: the entries are the means over them.
    """

    def __init__(
        self,
        every: int,
        entries: list[LogEntry],
        sink: Callable[[LogEntry], None],
        first: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        self.every, self.entries, self.sink, self.first, self.processes = every, entries, sink, first, processes
        self.pending: list[dict[str, Tensor]] = []

    def add(self, iteration: int, terms: dict[str, Tensor], learning_rate: float, *, last: bool) -> None:
        """Record the terms of one iteration, "loss" among them.

        Raises `CissFastError` when entries are averaged and the loss has become infinite or NaN.
        """
        self.pending.append(terms)
        if len(self.pending) < self.every and not last:
            return
        means = {name: float(torch.stack([entry[name].float() for entry in self.pending]).mean()) for name in terms}
        means = self.processes.mean(means)
        if not math.isfinite(means["loss"]):
            raise CissFastError(
                f"iteration {iteration}: the loss is {means['loss']}; a lower learning rate, "
                "--clip-norm or --precision fp32 may help"
            )
        entry = {"iteration": self.first + iteration, "learning_rate": learning_rate, **means}
        self.entries.append(entry)
        self.pending.clear()
        self.sink(entry)


class TrainingLoop:
    """The iterations of a stage, made by `StageContext.loop`.

    On construction optimiser, loss scaler, tensors and log get back what an interrupted run has saved; ``first`` is
    the iteration to go on with, 0 if there was none.
    """

    def __init__(
        self,
        schedule: PolySchedule,
        progress: StepProgress,
        reporter: Reporter,
        sink: Callable[[LogEntry], None],
        *,
        log_every: int,
        epoch_length: int,
        title: str,
        tensors: dict[str, Tensor],
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.schedule, self.progress, self.reporter, self.scaler = schedule, progress, reporter, scaler
        self.epoch_length, self.title, self.tensors = epoch_length, title, tensors
        self.log = LossLog(log_every, progress.history, sink, progress.iterations, progress.together)
        self.first = 0
        if progress.state is not None:
            self._restore(progress.state)

    def timed(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass batches on, counting how long the loop waits for them."""
        iterator = iter(items)
        try:
            while True:
                start = time.monotonic()
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self.progress.seconds_waiting += time.monotonic() - start
                yield item
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def run(
        self,
        compute_losses: Callable[[int], Iterable[tuple[Tensor, dict[str, Tensor]]]],
        clip_norm: float | None = None,
    ) -> None:
        """Optimise the sum of ``compute_losses(iteration)`` (scalars and their detached terms, which add up too) from
        iteration ``first`` on. Of several losses each is differentiated before the next one is asked for.

        An interruption (Ctrl-C, SIGTERM) waits for the end of the iteration, which is saved: `KeyboardInterrupt` then
        says how to go on.

        ``clip_norm``: largest norm of the whole gradient. Raises `CissFastError` if the loss becomes infinite or
        NaN.
        """
        schedule, iterations = self.schedule, self.schedule.iterations
        status: dict[str, float] = {}
        followed = self.reporter.follow(
            range(self.first, iterations), iterations, self.title, status, done=self.first
        )
        # closing: so that an error finds the progress bar put away
        with DeferredInterruption() as interruption, closing(followed):
            for iteration in followed:
                schedule.set_iteration(iteration)
                values: dict[str, Tensor] = {}
                update(schedule.optimiser, _logged(compute_losses(iteration), values), clip_norm, self.scaler)
                done = iteration + 1
                self.log.add(iteration, values, schedule.learning_rate, last=done == iterations)
                if self.log.entries:
                    status["loss"] = self.log.entries[-1]["loss"]
                alone = self.progress.together.count == 1  # else the processes might not agree on the last iteration
                if done < iterations or (interruption.requested and alone):
                    self.progress.save_if_due(
                        done, done % self.epoch_length == 0, lambda done=done: self._state(done), interruption.requested
                    )

    def _state(self, iteration: int) -> dict[str, Any]:
        return {
            "iteration": iteration,
            "optimiser": self.schedule.optimiser.state_dict(),
            "tensors": self.tensors,
            "pending": self.progress.together.gather(self.log.pending),
            "scaler": self.scaler.state_dict(),
            "seconds_waiting": self.progress.seconds_waiting,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.first = state["iteration"]
        self.progress.seconds_waiting = state.get("seconds_waiting", 0.0)
        optimiser = self.schedule.optimiser
        optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        device = optimiser.param_groups[0]["params"][0].device
        by_process = state["pending"]
        pending = by_process[min(self.progress.together.rank, len(by_process) - 1)]
        self.log.pending = [{name: value.to(device) for name, value in terms.items()} for terms in pending]
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(state["tensors"][name])


def _logged(losses: Iterable[tuple[Tensor, dict[str, Tensor]]], values: dict[str, Tensor]) -> Iterator[Tensor]:
    """The losses as they come; ``values`` becomes the sum of what they say for the log."""
    for loss, terms in losses:
        # The number of pixels in every region comes with the terms; it is not for the log.
        logged = {name: value for name, value in terms.items() if not name.startswith("pixels_")}
        for name, value in {"loss": loss.detach(), **logged}.items():
            values[name] = values[name] + value if name in values else value
        yield loss


def update(
    optimiser: torch.optim.Optimizer, losses: Iterable[Tensor], clip_norm: float | None, scaler: torch.amp.GradScaler
) -> None:
    """One step of the optimiser down the gradient of the sum of ``losses``, clipped to ``clip_norm`` as a whole."""
    optimiser.zero_grad(set_to_none=True)
    for loss in losses:
        scaler.scale(loss).backward()
    if clip_norm is not None:
        scaler.unscale_(optimiser)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    scaler.step(optimiser)
    scaler.update()
