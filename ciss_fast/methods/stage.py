"""The stages that a step of training is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.stages import StageContext


@dataclass(frozen=True)
class Stage:
    """One of the things done, one after another, to train a step.

    name: what the user reads, in messages and in ``metrics.json``; different for every stage of a step.
    run: does it, by changing the context's model in place and writing files below the context's folder.
    check: called before the step's first stage runs; raises an error for what would stop ``run`` later, such as a
        damaged file that an earlier step has written.
    for_all: of several processes all do it together; otherwise the first one does.

    A stage may be interrupted at any moment. It then runs again: from its beginning, with the model as the stage
    before has left it, or, inside a loop of `StageContext.loop`, from the last iteration that was saved. So a file
    that a stage reads must not be one that it writes.
    """

    name: str
    run: Callable[[StageContext], None]
    check: Callable[[StageContext], None] | None = None
    for_all: bool = False


TRAIN = Stage("train", lambda context: context.train(), for_all=True)
"""The model on the step's images with the method's loss."""

ROTATE = Stage(
    "rotations", lambda context: context.rotate_features(), check=lambda context: context.check_features()
)
"""The feature memory into the new model's feature space."""

REPLAY = Stage("classifiers", lambda context: context.train_classifiers())
"""The classifiers alone, on the step's images and the feature memory."""

EXTRACT = Stage("features", lambda context: context.extract_features())
"""Features of the step's classes into the memory."""

SELECT = Stage("selection", lambda context: context.select_images())
"""The images of earlier steps that the step replays."""
