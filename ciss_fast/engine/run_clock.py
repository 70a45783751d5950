"""How much of a run's time is left, from what has been measured of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
TEST = "test"
"""The name of the work that comes after a step's stages."""


@dataclass(frozen=True)
class Work:
    """A stage of a step, or its test.

    Attributes:
        step: number of the step.
        name: the stage's name, or `TEST`.
        images: images or crops that go through the network.
        iterations: updates; 0 for what is no training loop.
    """

    step: int
    name: str
    images: float
    iterations: int = 0

    @property
    def kind(self) -> tuple[str, bool]:
        """Work of one kind takes the same time an image. Later steps have a teacher and are kinds of their own."""
        return self.name, self.step > 0


# Rough costs of an image, for work that has not been measured yet: a pass forward is a third of training, and at later
# steps there is a teacher's pass too.
_COSTS = {"train": 1.0, "rotations": 2 / 3, "classifiers": 2 / 3}
_ONE_PASS, _TRAINING_WITH_TEACHER = 1 / 3, 4 / 3


def _cost(kind: tuple[str, bool]) -> float:
    return _TRAINING_WITH_TEACHER if kind == ("train", True) else _COSTS.get(kind[0], _ONE_PASS)


class RunClock:
    """Measures how long work takes and says how much time is left for the whole run.

    The pace of work that has not been measured yet is guessed from the same at another step or, where there is none,
    from all that has been measured.
    """

    def __init__(self, work: Sequence[Work]) -> None:
        self.work = {(item.step, item.name): item for item in work}
        self.left = dict.fromkeys(self.work, 1.0)  # the part of each that is still to be done
        self.measured: dict[tuple[str, bool], tuple[float, float]] = {}  # seconds and images
        self._current: tuple[int, str] | None = None

    def begin(self, step: int, name: str) -> None:
        """What is followed from now on belongs to this work."""
        self._current = (step, name) if (step, name) in self.work else None

    def follow(self, items: Iterable[Item], total: int, done: int = 0) -> Iterator[Item]:
        """Pass the items of the work's loop on, of which ``done`` are done already, and take the time."""
        if self._current is None or total <= 0:
            yield from items
            return
        current, start, seconds = self._current, time.monotonic(), 0.0
        self.left[current] = 1 - done / total
        iterator = iter(items)
        try:
            for item in iterator:
                yield item
                done += 1
                self.left[current] = 1 - done / total
                passed = time.monotonic() - start
                self._add(self.work[current], passed - seconds, 1 / total)
                seconds = passed
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
        self.left[current] = 0.0

    def finish(self, step: int, stages: Iterable[Mapping[str, Any]]) -> None:
        """These stages (as a checkpoint has them: "name" and "seconds") have been done, maybe in an earlier session."""
        for stage in stages:
            key = (step, stage["name"])
            if self.left.get(key):
                self.left[key] = 0.0
                self._add(self.work[key], stage["seconds"], 1.0)

    def skip(self, step: int, name: str) -> None:
        """This work is not going to be done."""
        if (step, name) in self.left:
            self.left[step, name] = 0.0

    def set_pace(self, step: int, name: str, seconds_per_image: float) -> None:
        """So long an image takes, whatever has been measured before."""
        self.measured[self.work[step, name].kind] = (seconds_per_image, 1.0)

    def at_least(self, name: str, later: bool, seconds_per_image: float) -> None:
        """Count no less than this for a kind of work that has been measured."""
        seconds, images = self.measured.get((name, later), (0.0, 0.0))
        if images:
            self.measured[name, later] = (max(seconds, seconds_per_image * images), images)

    def seconds_per_image(self, work: Work) -> float | None:
        """Of this kind of work, or of what there is a measurement of; None at the very start."""
        name, later = work.kind
        kinds = [kind for kind in ((name, later), (name, not later)) if kind in self.measured][:1]
        measured = {kind: self.measured[kind] for kind in kinds or self.measured}
        cost = sum(images * _cost(kind) for kind, (_, images) in measured.items())
        return sum(seconds for seconds, _ in measured.values()) / cost * _cost(work.kind) if cost else None

    def seconds_left(self, step: int | None = None) -> float | None:
        """For the whole run, or one step; None as long as nothing has been measured."""
        seconds = 0.0
        for key, part in self.left.items():
            if part and self.work[key].images and step in (None, key[0]):
                rate = self.seconds_per_image(self.work[key])
                if rate is None:
                    return None
                seconds += part * self.work[key].images * rate
        return seconds

    def _add(self, work: Work, seconds: float, part: float) -> None:
        if work.images:
            before = self.measured.get(work.kind, (0.0, 0.0))
            self.measured[work.kind] = before[0] + seconds, before[1] + part * work.images
