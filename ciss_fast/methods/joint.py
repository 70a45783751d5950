"""Joint training: all classes in one step; the upper bound."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .fine_tuning import FineTuning

if TYPE_CHECKING:
    from ..data.tasks import Task


class Joint(FineTuning):
    """Cross-entropy in a single step that has the classes of all steps, in the same order."""

    name = "joint"

    def steps_of(self, task: Task) -> Task:
        """``task`` with all its steps as one, so channels stay as in the incremental task."""
        return dataclasses.replace(task, steps=(tuple(c for step in task.steps for c in step),))
