"""How far a step has come, and the file from which an interrupted step goes on."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ciss_fast.engine.checkpoint import StepCheckpoint, load_weights, save_checkpoint
from ciss_fast.engine.config import RunConfig
from ciss_fast.engine.processes import ALONE, Processes
from ciss_fast.engine.seeding import random_state, set_random_state
from ciss_fast.methods.stage import Stage

LogEntry = dict[str, float]


def progress_path(run: str | Path) -> Path:
    """Where a run keeps what the step under way has done so far."""
    return Path(run) / "checkpoints" / "in_progress.pt"


def earlier_progress_path(run: str | Path) -> Path:
    """Where the last but one save of the step under way is, for the case that the last is damaged."""
    return Path(run) / "checkpoints" / "in_progress_before.pt"


class StepProgress:
    """A step under way: finished stages, loss log, training time, and where the stage that runs had got to.

    Saved, it is a checkpoint of the step with a ``progress`` entry: the model as it is, the state that the running
    stage has given, and the state of all random generators. An interrupted step is restored from it and goes on
    as if nothing had happened.

    Args:
        run: the run's folder.
        checkpoint: the step's checkpoint as far as it is known before training: everything but model, times,
            log and stages.
        model: the model in training.
        settings: when to save.
        processes: those of the run; all of them are in the same place of the step.

    Attributes:
        state: what the running stage had saved when it was interrupted; None if it starts.
        history: the loss log of the step so far.
        stages: what is known about every finished stage: "name", "iterations", "seconds", its results and, of a loop,
            "seconds_waiting" for batches.
        together: the processes that work on the running stage.
        seconds_waiting: how long the running stage's loop has waited for batches.
    """

    def __init__(
        self,
        run: Path,
        checkpoint: StepCheckpoint,
        model: torch.nn.Module,
        settings: RunConfig,
        processes: Processes = ALONE,
    ) -> None:
        self.run, self.model, self.settings = run, model, settings
        self.processes = self.together = processes
        self.state: dict[str, Any] | None = None
        self.history: list[LogEntry] = []
        self.stages: list[dict[str, Any]] = []
        self._checkpoint = checkpoint
        self._random_of_waiting: list[dict[str, Any]] = []
        self.seconds_waiting = 0.0
        self._seconds = 0.0  # of this step before `_since`
        self._since = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time of the step so far, over all interruptions."""
        return self._seconds + time.monotonic() - self._since

    @property
    def iterations(self) -> int:
        """Iterations of the finished stages together; the loss log numbers them one after another."""
        return sum(stage["iterations"] for stage in self.stages)

    def restore(self, saved: StepCheckpoint) -> None:
        """Go on from what was saved: model, stages, log, time, the running stage's state, random generators.

        Raises `CheckpointError` if the model does not fit.
        """
        load_weights(self.model, saved, progress_path(self.run))
        self.history, self.stages = list(saved.history), list(saved.stages)
        self._seconds, self._since = saved.seconds, time.monotonic()
        self.state = saved.progress["state"]
        by_process = saved.progress["random"]
        if self.processes.rank < len(by_process):  # more processes than there were: new ones have their seeds
            set_random_state(by_process[self.processes.rank])

    def take_over(self, base: StepCheckpoint) -> None:
        """Count the training of another run's base step, whose model this one already has, as done here."""
        self.stages = [stage for stage in base.stages if stage["name"] == "train"]
        self.history = [entry for entry in base.history if entry["iteration"] < self.iterations]
        self._seconds, self._since = sum(stage["seconds"] for stage in self.stages), time.monotonic()

    def run_stage(self, stage: Stage, context: Any) -> dict[str, Any]:
        """Run the stage and return its results: all processes together where the stage is for all of them; else the
        first does it, and the others get its model, log and results.
        """
        everyone = self.processes
        if stage.for_all or everyone.count == 1:
            stage.run(context)
            return context.results
        self._random_of_waiting = everyone.gather(random_state())
        self.together = ALONE
        if everyone.is_first:
            stage.run(context)
        self.together, self._random_of_waiting = everyone, []
        everyone.share_weights(self.model)
        self.history, results = everyone.from_first((self.history, context.results))
        return results

    def describe(self) -> str:
        """How far the step has come, for the user."""
        done = [stage["name"] for stage in self.stages]
        if self.state is not None and "iteration" in self.state:
            done.append(f"{self.state['iteration']} iterations")
        return ", ".join(done) or "its preparation"

    def has_finished(self, stage: str) -> bool:
        return any(entry["name"] == stage for entry in self.stages)

    def finish_stage(self, name: str, results: dict[str, Any]) -> None:
        """Record that the running stage has come to its end."""
        iterations = int(self.history[-1]["iteration"]) + 1 - self.iterations if self.history else 0
        seconds = self.seconds - sum(stage["seconds"] for stage in self.stages)
        record = {"name": name, "iterations": iterations, "seconds": seconds, **results}
        if iterations:
            record["seconds_waiting"] = self.seconds_waiting
        self.stages.append(record)
        self.state, self.seconds_waiting = None, 0.0

    def save_if_due(
        self, iteration: int, epoch_ended: bool, make_state: Callable[[], dict[str, Any]], interrupted: bool = False
    ) -> None:
        """Save the running stage's state if it is time: when ``save_minutes`` have passed since the last save, at the
        end of an epoch when a twentieth of them has (a large model takes seconds to save, an epoch on few images
        less), or after every ``save_every`` iterations. If ``interrupted``, save and raise `KeyboardInterrupt`.
        """
        every, longest = self.settings.save_every, 60 * self.settings.save_minutes
        passed = time.monotonic() - self._saved
        due = passed >= (longest / 20 if epoch_ended else longest) or (every is not None and iteration % every == 0)
        due, interrupted = self.together.from_first((due or interrupted, interrupted))
        if due:
            self.save(make_state())
        if interrupted:
            run = shlex.quote(str(self.run))
            raise KeyboardInterrupt(
                f"saved after {iteration} iterations of step {self._checkpoint.step}; to go on: the same command, or "
                f"ciss-fast train --recipe {shlex.quote(str(Path(self.run) / 'config.json'))} --output {run}"
            )

    def save(self, state: dict[str, Any] | None) -> None:
        """Write the file, the one before being kept: the step as it is now, and ``state`` (nested dicts and lists of
        tensors, numbers and text) for the running stage; None if it has to start from its beginning.
        """
        random = self.together.gather(random_state())
        random += self._random_of_waiting[len(random) :]
        if self.processes.is_first:
            progress = {"state": state, "random": random}
            path = progress_path(self.run)
            if path.exists():
                path.replace(earlier_progress_path(self.run))
            save_checkpoint(path, dataclasses.replace(self.checkpoint(), progress=progress))
        self._saved = time.monotonic()

    def checkpoint(self) -> StepCheckpoint:
        """The step's checkpoint with the model as it is now."""
        return dataclasses.replace(
            self._checkpoint,
            model=self.model.state_dict(),
            seconds=self.seconds,
            history=self.history,
            stages=self.stages,
        )
