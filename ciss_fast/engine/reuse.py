"""Whether a checkpoint that exists may be used by a run, and if not, why."""

from __future__ import annotations

import warnings
from pathlib import Path

from ciss_fast.engine.checkpoint import StepCheckpoint, checkpoint_path, load_checkpoint
from ciss_fast.engine.config import first_difference
from ciss_fast.engine.plan import Plan
from ciss_fast.engine.resume import earlier_progress_path, progress_path
from ciss_fast.engine.settings import Affects
from ciss_fast.errors import CheckpointError, ConfigError
from ciss_fast.methods import get_method


def load_own(run: str | Path, step: int, plan: Plan) -> StepCheckpoint:
    """A step's checkpoint in the run's own folder.

    Raises `CheckpointError` if it is damaged or another configuration, task or data set has made it.
    """
    path = checkpoint_path(run, step)
    checkpoint = _load_finished(path)
    difference = checkpoint_difference(checkpoint, step, plan, ("base", "later"))
    if difference is not None:
        raise CheckpointError(f"{path}: belongs to another run: {difference}")
    return checkpoint


def load_progress(run: str | Path, step: int, plan: Plan) -> tuple[StepCheckpoint, Path] | None:
    """What an interrupted run had saved of a step last, and in which file; None if it has saved nothing.

    Instead of a damaged file the one before is taken, with a warning. Raises `CheckpointError` if another
    configuration, task or data set has made it.
    """
    for path, instead in (
        (progress_path(run), "what was saved before is taken"),
        (earlier_progress_path(run), f"step {step} starts from its beginning"),
    ):
        if not path.is_file():
            continue
        try:
            saved = load_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error}; {instead}", stacklevel=2)
            continue
        if saved.progress is None or saved.step != step:  # left behind by a step that has been finished since
            return None
        difference = checkpoint_difference(saved, step, plan, ("base", "later"))
        if difference is not None:
            raise CheckpointError(f"{path}: belongs to another run: {difference}")
        return saved, path
    return None


def set_aside(path: Path, error: CheckpointError) -> None:
    """Rename a step's damaged checkpoint, with a warning, so that the step is trained again."""
    aside = path.with_name(path.name + ".damaged")
    path.replace(aside)
    warnings.warn(f"{error}; it is {aside.name} now, and the step is trained again", stacklevel=2)


def load_base(run: str | Path, plan: Plan) -> StepCheckpoint:
    """The base step's checkpoint of another run.

    Raises `CheckpointError` if it has none, or if a setting that changes the base step differs.
    """
    path = checkpoint_path(run, 0)
    if not path.is_file():
        raise CheckpointError(f"--base-from: expected a run with a finished base step, there is no {path}")
    checkpoint = _load_finished(path)
    difference = checkpoint_difference(checkpoint, 0, plan, ("base",))
    if difference is not None:
        raise CheckpointError(f"--base-from: the base step in {run} does not fit: {difference}")
    return checkpoint


def checkpoint_difference(
    checkpoint: StepCheckpoint, step: int, plan: Plan, affects: tuple[Affects, ...]
) -> str | None:
    """In what a checkpoint differs from what the plan wants at this step, as text; None if it fits."""
    family, own = _head_family(checkpoint.method), plan.method.prediction_kind
    if family != own:
        return f"the head is {family} there ({checkpoint.method}) and {own} here ({plan.method.name})"
    difference = first_difference(checkpoint.config, plan.config, affects)
    if difference is not None:
        return difference
    task = plan.training_task
    wanted = {
        "step": step,
        "classes": list(task.class_names),
        "class order": list(task.seen(step)),
        "classes per step": task.classes_per_step[: step + 1],
    }
    found = {
        "step": checkpoint.step,
        "classes": checkpoint.class_names,
        "class order": checkpoint.channel_order,
        "classes per step": checkpoint.classes_per_step,
    }
    for name, value in wanted.items():
        if found[name] != value:
            return f"{name} is {found[name]!r} there and {value!r} here"
    if checkpoint.data_fingerprint != plan.data_fingerprint:
        return "the training data has changed since (image list, class names, label maps or the size of image files)"
    return None


def _head_family(method: str) -> str:
    try:
        return get_method(method).prediction_kind
    except ConfigError:
        return "unknown"


def _load_finished(path: Path) -> StepCheckpoint:
    checkpoint = load_checkpoint(path)
    if checkpoint.progress is not None:
        raise CheckpointError(f"{path}: expected a finished step, got one under way")
    return checkpoint
