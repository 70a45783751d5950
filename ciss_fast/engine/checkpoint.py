"""The checkpoint of a step, finished or under way: one file, atomic, checksummed, loaded without running code."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ciss_fast.atomic_files import atomic_write
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


def checkpoint_path(run: str | Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return Path(run) / "checkpoints" / f"step_{step}.pt"


def save_checkpoint(path: str | Path, checkpoint: StepCheckpoint) -> Path:
    """Write a checkpoint in one step: a crash leaves the old file, the new one or none, never half of one."""
    content = {field.name: _on_cpu(getattr(checkpoint, field.name)) for field in dataclasses.fields(checkpoint)}
    content["model"] = {name: tensor.contiguous() for name, tensor in content["model"].items()}
    content["format"] = FORMAT
    content["sha256"] = _digest(content)
    return atomic_write(path, lambda file: torch.save(content, file))


def load_checkpoint(path: str | Path) -> StepCheckpoint:
    """Read a checkpoint to the CPU.

    Raises `CheckpointError` naming the file if it is missing, cannot be read, is not a checkpoint of this
    package, or if its content is not what was written (checksum).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, there is no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive surfaces as almost anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {reason}") from None
    names = {field.name for field in dataclasses.fields(StepCheckpoint)}
    if not isinstance(content, dict) or not names <= content.keys() or not _is_state(content["model"]):
        raise CheckpointError(f"{path}: expected a step checkpoint of ciss_fast, got another kind of file")
    if content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected checkpoint format {FORMAT}, got {content.get('format')}")
    if content.get("sha256") != _digest(content):
        raise CheckpointError(f"{path}: damaged, its content does not match its checksum")
    return StepCheckpoint(**{name: content[name] for name in names})


def load_weights(model: torch.nn.Module, checkpoint: StepCheckpoint, path: str | Path) -> None:
    """Put a checkpoint's weights into ``model``.

    Raises `CheckpointError` naming the file and the first entry that does not fit.
    """
    expected = model.state_dict()
    problem = _first_mismatch(expected, checkpoint.model)
    if problem is not None:
        raise CheckpointError(f"{path}: does not fit the model: {problem}")
    model.load_state_dict(checkpoint.model)


def _is_state(model: Any) -> bool:
    return isinstance(model, Mapping) and all(isinstance(value, torch.Tensor) for value in model.values())


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


def _on_cpu(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples with every tensor detached and on the CPU, strides kept."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_on_cpu(entry) for entry in value]
    return value


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over everything but the digest itself. torch.load does not verify the bytes of a tensor."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} {value.stride()};".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            digest.update(f"dict {len(value)};".encode())
            for key, entry in value.items():
                digest.update(f"{key!r}:".encode())
                add(entry)
        elif isinstance(value, list):
            digest.update(f"list {len(value)};".encode())
            for entry in value:
                add(entry)
        else:
            digest.update(f"{value!r};".encode())

    add({name: value for name, value in content.items() if name != "sha256"})
    return digest.hexdigest()
