"""Loss terms, learning rate and scores for TensorBoard, and by option for Weights & Biases."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ciss_fast.engine.wandb_log import WandbLog


class Summaries:
    """Writes one step's scalars. A disk that is full ends the curves, with a warning, not the training.

    Args:
        folder: of the event files.
        first_iteration: the number of iterations of all earlier steps, so that the steps' curves follow one
            another on one axis.
        supersede: hide what an interrupted attempt at this step (and anything after it) has written.
        also: gets everything that is new, too.
    """

    def __init__(self, folder: Path, first_iteration: int, also: WandbLog, *, supersede: bool = False) -> None:
        self.folder, self.first_iteration, self.also = folder, first_iteration, also
        self.purge_from = first_iteration if supersede else None

    def __enter__(self) -> Summaries:
        # Imported late: it takes a second that no other command should pay.
        from torch.utils.tensorboard import SummaryWriter

        self.writer = None
        self.writer = self._try(lambda: SummaryWriter(str(self.folder), purge_step=self.purge_from))
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self._try(self.writer.close)

    def add_losses(self, entry: dict[str, float], *, new: bool = True) -> None:
        """One entry of the loss log. ``new``: not of an earlier session."""
        self._add(loss_scalars(entry), self.first_iteration + int(entry["iteration"]), new)

    def add_scores(self, entry: dict[str, Any]) -> None:
        """The scores after a step, at the step's last iteration."""
        self._add(score_scalars(entry), self.first_iteration + entry["iterations"] - 1, True)

    def _add(self, scalars: dict[str, float], at: int, new: bool) -> None:
        if new:
            self.also.add(scalars, at)
        for name, value in scalars.items():
            if self.writer is not None:
                self._try(lambda name=name, value=value: self.writer.add_scalar(name, value, at))

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            self.writer = None
            warnings.warn(f"{self.folder}: no more curves are written: {error.strerror or error}", stacklevel=2)
            return None


def loss_scalars(entry: dict[str, float]) -> dict[str, float]:
    """The curves' names and values for one entry of the loss log."""
    return {
        name if name == "learning_rate" else f"loss/{name}": value
        for name, value in entry.items()
        if name != "iteration"
    }


def score_scalars(entry: dict[str, Any]) -> dict[str, float]:
    """The same for the scores after a step; those that there are."""
    names = ("miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy")
    return {f"score/{name}": entry[name] for name in names if entry[name] is not None}


class NoSummaries:
    """Writes nothing: for every process but the first."""

    def __enter__(self) -> NoSummaries:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_losses(self, entry: dict[str, float], *, new: bool = True) -> None:
        """Nothing is done."""

    def add_scores(self, entry: dict[str, Any]) -> None:
        """Nothing is done."""
