"""A reporter that cuts loops short and measures their pace, for a dry run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch

from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.resume import StepProgress

Item = TypeVar("Item")
MOST_ITEMS, FEWEST_ITEMS, SECONDS = 10, 3, 15.0


class IterationTimer(Reporter):
    """Prints nothing. A loop that is ``cut`` ends after a few items: `MOST_ITEMS`, or after `SECONDS` once there are
    `FEWEST_ITEMS`, or at once if its first one alone took that long.

    Args:
        device: whose work has to be waited for before the time is taken.
        alone: whether this is the run's only process. Several must all make the same number of iterations.
    """

    def __init__(self, device: torch.device, *, alone: bool) -> None:
        super().__init__(silent=True)
        self.device, self.alone = device, alone
        self._step, self._name, self._cut, self._progress = 0, "", True, None
        self._times: list[float] = []
        self._waited: list[float] = []
        self._total = 0

    def begin(self, step: int, name: str, progress: StepProgress, *, cut: bool = True) -> None:
        """What is followed from now on is this work."""
        self._step, self._name, self._cut, self._progress = step, name, cut, progress
        self._times, self._waited, self._total = [], [], 0

    def follow(
        self, items: Iterable[Item], total: int, title: str, status: Mapping[str, Any], done: int = 0
    ) -> Iterator[Item]:
        """Pass some of the items on and take the time of each."""
        self._total, iterator = total, iter(items)
        start, waited = time.monotonic(), self._progress.seconds_waiting
        try:
            for item in iterator:
                yield item
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                now = time.monotonic()
                self._times.append(now - start)
                self._waited.append(self._progress.seconds_waiting - waited)
                start, waited = now, self._progress.seconds_waiting
                if self._cut and self._enough():
                    return
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def end(self, images: int | None = None) -> None:
        """Tell the clock how long an image takes. ``images``: those of the whole loop, if it is not the planned one."""
        if self._times:
            count = self.clock.work[self._step, self._name].images if images is None else images
            self.clock.set_pace(self._step, self._name, self.seconds_per_iteration * self._total / count)

    @property
    def seconds_per_iteration(self) -> float:
        """Without the first one, which starts processes and chooses algorithms, where there are others. The median; of
        loops that are not cut, whose items come in bursts, the mean.
        """
        if not self._cut:
            return statistics.mean(self._times)
        return statistics.median(self._times[1:] or self._times)

    @property
    def waiting_share(self) -> float:
        """The part of the time that the loop has waited for batches."""
        seconds = sum(self._times[1:] or self._times)
        return sum(self._waited[1:] or self._waited) / seconds if seconds else 0.0

    def _enough(self) -> bool:
        count, seconds = len(self._times), sum(self._times)
        if count >= MOST_ITEMS or not self.alone:
            return count >= MOST_ITEMS
        return seconds >= SECONDS and (count >= FEWEST_ITEMS or count == 1)
