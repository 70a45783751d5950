"""Loss terms, learning rate and scores for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Summaries:
    """Writes one step's scalars.

    Args:
        folder: of the event files.
        first_iteration: the number of iterations of all earlier steps, so that the steps' curves follow one
            another on one axis.
        supersede: hide what an interrupted attempt at this step (and anything after it) has written.
    """

    def __init__(self, folder: Path, first_iteration: int, *, supersede: bool = False) -> None:
        self.folder, self.first_iteration = folder, first_iteration
        self.purge_from = first_iteration if supersede else None

    def __enter__(self) -> Summaries:
        # Imported late: it takes a second that no other command should pay.
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder), purge_step=self.purge_from)
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def add_losses(self, entry: dict[str, float]) -> None:
        """One entry of the loss log."""
        at = self.first_iteration + int(entry["iteration"])
        for name, value in entry.items():
            if name == "learning_rate":
                self.writer.add_scalar("learning_rate", value, at)
            elif name != "iteration":
                self.writer.add_scalar(f"loss/{name}", value, at)

    def add_scores(self, entry: dict[str, Any]) -> None:
        """The scores after a step, at the step's last iteration."""
        at = self.first_iteration + entry["iterations"] - 1
        for name in ("miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy"):
            if entry[name] is not None:
                self.writer.add_scalar(f"score/{name}", entry[name], at)


class NoSummaries:
    """Writes nothing: for every process but the first."""

    def __enter__(self) -> NoSummaries:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_losses(self, entry: dict[str, float]) -> None:
        """Nothing is done."""

    def add_scores(self, entry: dict[str, Any]) -> None:
        """Nothing is done."""
