"""Loss terms, learning rate and scores for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Summaries:
    """Writes one step's scalars. Entries of an interrupted attempt at the same step are superseded.

    ``first_iteration`` is the number of iterations of all earlier steps, so that the steps' curves follow one
    another on one axis.
    """

    def __init__(self, folder: Path, first_iteration: int) -> None:
        # Imported late: it takes a second that no other command should pay.
        from torch.utils.tensorboard import SummaryWriter

        self.first_iteration = first_iteration
        self.writer = SummaryWriter(str(folder), purge_step=first_iteration)

    def add_losses(self, step: int, entry: dict[str, float]) -> None:
        """One entry of the loss log."""
        at = self.first_iteration + int(entry["iteration"])
        for name, value in entry.items():
            if name == "learning_rate":
                self.writer.add_scalar("learning_rate", value, at)
            elif name != "iteration":
                self.writer.add_scalar(f"loss/{name}", value, at)
        self.writer.add_scalar("step", step, at)

    def add_scores(self, step: int, entry: dict[str, Any]) -> None:
        """The scores after a step, at the step's last iteration."""
        at = self.first_iteration + entry["iterations"]
        for name in ("miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy"):
            if entry[name] is not None:
                self.writer.add_scalar(f"score/{name}", entry[name], at)

    def close(self) -> None:
        self.writer.close()
