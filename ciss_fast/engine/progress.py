"""Telling the user how far a run is: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ciss_fast.engine.run_clock import RunClock

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 20.0


class Reporter:
    """Prints a run's messages and follows its loops. ``quiet`` keeps everything but `result` to itself, ``silent``
    that too.

    Attributes:
        clock: of the whole run, whose loops are followed.
    """

    def __init__(self, *, quiet: bool = False, silent: bool = False, console: Console | None = None) -> None:
        self.quiet, self.silent = quiet or silent, silent
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.clock = RunClock(())

    def message(self, text: str) -> None:
        """One line about what happens."""
        if not self.quiet:
            self.console.print(text, markup=False)

    def result(self, text: str) -> None:
        """What the user asked for, such as a table; printed even if quiet."""
        if self.silent:
            return
        self.console.print(text, markup=False)

    def counter(self, title: str) -> Callable[[int, int], None]:
        """A function to call with how many of how many are done, which says so every now and then."""
        printed = time.monotonic()

        def count(done: int, total: int) -> None:
            nonlocal printed
            if time.monotonic() - printed >= SECONDS_BETWEEN_LINES and done < total:
                printed = time.monotonic()
                self.message(f"{title}: {done}/{total}")

        return count

    def follow(
        self, items: Iterable[Item], total: int, title: str, status: Mapping[str, Any], done: int = 0
    ) -> Iterator[Item]:
        """Pass ``items`` on while showing how many of ``total`` are done and what ``status`` holds.

        ``status`` is read each time it is shown, so the loop's body may keep changing it. ``done`` were done
        before the first of ``items``.
        """
        if self.quiet:
            shown = iter(items)
        elif self.console.is_terminal:
            shown = self._follow_with_bar(items, total, title, status, done)
        else:
            shown = self._follow_with_lines(items, total, title, status, done)
        # The clock comes last, so that it has counted an item before that is shown.
        yield from self.clock.follow(shown, total, done)

    def _follow_with_bar(
        self, items: Iterable[Item], total: int, title: str, status: Mapping[str, Any], before: int
    ) -> Iterator[Item]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[whole]}"),
            TextColumn("{task.fields[status]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=total, completed=before, whole="", status="")
            for item in items:
                yield item
                bar.update(task, advance=1, whole=self._whole_run(), status=_describe(status))

    def _follow_with_lines(
        self, items: Iterable[Item], total: int, title: str, status: Mapping[str, Any], before: int
    ) -> Iterator[Item]:
        start = printed = time.monotonic()
        for done, item in enumerate(items, start=before + 1):
            yield item
            now = time.monotonic()
            if now - printed >= SECONDS_BETWEEN_LINES and done < total:
                printed = now
                left = (now - start) / (done - before) * (total - done)
                parts = [f"{title}: {done}/{total}", f"{duration(left)} left{self._whole_run()}", _describe(status)]
                self.message(", ".join(part for part in parts if part))

    def _whole_run(self) -> str:
        """How long the whole run will take from now on, as text; empty where that is not known."""
        seconds = self.clock.seconds_left()
        return f" (whole run {duration(seconds)})" if seconds else ""


def duration(seconds: float) -> str:
    """A length of time as people say it: ``41 s``, ``12 min``, ``3.4 h``, ``2.1 days``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def _describe(status: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in status.items())
