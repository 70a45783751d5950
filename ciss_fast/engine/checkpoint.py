"""The checkpoint of a step, finished or under way: one file, atomic, checksummed, loaded without running code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ciss_fast.checked_files import is_state, load_checked, save_checked
from ciss_fast.errors import CheckpointError

FORMAT = 2


@dataclass(frozen=True)
class StepCheckpoint:
    """A model after one step, or somewhere in it, with all that is needed to use it or to go on from it.

    Attributes:
        model: state dict, on the CPU.
        step: the step trained last, from 0.
        method: the method's name.
        config: `Config.to_dict` of the run that trained it.
        class_names: name of every class id of the data set.
        channel_order: class id behind every channel of the model, background first.
        classes_per_step: channels that each step so far brought.
        data_fingerprint: that of the training images' list, to notice changed data.
        seconds: training time of the step.
        history: the loss log: one entry of name -> number every few iterations.
        stages: the finished stages of the step in order, each with "name", "iterations", "seconds" and results.
        progress: None after a finished step. Inside one: "state", what the running stage has saved, and "random",
            the state of all random generators.
    """

    model: dict[str, torch.Tensor]
    step: int
    method: str
    config: dict[str, Any]
    class_names: list[str]
    channel_order: list[int]
    classes_per_step: list[int]
    data_fingerprint: str
    seconds: float
    history: list[dict[str, float]]
    stages: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    progress: dict[str, Any] | None = None


_NAMES = tuple(field.name for field in dataclasses.fields(StepCheckpoint))


def checkpoint_path(run: str | Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return Path(run) / "checkpoints" / f"step_{step}.pt"


def save_checkpoint(path: str | Path, checkpoint: StepCheckpoint) -> Path:
    """Write a checkpoint in one step: a crash leaves the old file, the new one or none, never half of one."""
    return save_checked(path, {name: getattr(checkpoint, name) for name in _NAMES}, FORMAT)


def load_checkpoint(path: str | Path) -> StepCheckpoint:
    """Read a checkpoint to the CPU.

    Raises `CheckpointError` naming the file if it is missing, cannot be read, is not a checkpoint of this
    package, or if its content is not what was written (checksum).
    """
    content = load_checked(path, "checkpoint", _NAMES, FORMAT)
    if not is_state(content["model"]):
        raise CheckpointError(f"{path}: expected a checkpoint of ciss_fast, got another kind of file")
    return StepCheckpoint(**{name: content[name] for name in _NAMES})


def load_weights(model: torch.nn.Module, checkpoint: StepCheckpoint, path: str | Path) -> None:
    """Put a checkpoint's weights into ``model``.

    Raises `CheckpointError` naming the file and the first entry that does not fit.
    """
    expected = model.state_dict()
    problem = _first_mismatch(expected, checkpoint.model)
    if problem is not None:
        raise CheckpointError(f"{path}: does not fit the model: {problem}")
    model.load_state_dict(checkpoint.model)


def _first_mismatch(expected: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor]) -> str | None:
    for name, tensor in expected.items():
        if name not in stored:
            return f"expected an entry {name}, there is none"
        if stored[name].shape != tensor.shape:
            return f"expected {name} of shape {tuple(tensor.shape)}, got {tuple(stored[name].shape)}"
    for name in stored:
        if name not in expected:
            return f"got an entry {name} that the model does not have"
    return None
