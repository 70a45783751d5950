"""Checkpoints as safetensors files: the weights as tensors, everything else as JSON in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ciss_fast.atomic_files import atomic_write
from ciss_fast.checked_files import is_state, tensors_digest
from ciss_fast.engine.checkpoint import StepCheckpoint
from ciss_fast.errors import CheckpointError, ConfigError

FORMAT = "1"
_PLAIN = (
    "step", "method", "config", "class_names", "channel_order", "classes_per_step", "data_fingerprint", "seconds",
    "history", "stages",
)  # fmt: skip


def save_safetensors(path: str | Path, checkpoint: StepCheckpoint) -> Path:
    """Write a finished step's checkpoint in one step. Raises `ConfigError` where safetensors is not installed."""
    library = _library()
    metadata = {name: json.dumps(getattr(checkpoint, name)) for name in _PLAIN}
    metadata |= {"ciss_fast_format": FORMAT, "sha256": _digest(checkpoint.model)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.model.items()}
    content = library.torch.save(tensors, metadata=metadata)
    return atomic_write(path, lambda file: file.write(content))


def load_safetensors(path: str | Path) -> StepCheckpoint:
    """The inverse of `save_safetensors`.

    Raises `CheckpointError` naming the file if it is missing, damaged or of another kind, `ConfigError` where
    safetensors is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, there is no such file")
    library = _library()
    try:
        with library.safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:  # the library's own error type, or the system's
        raise CheckpointError(f"{path}: damaged or not a safetensors file: {' '.join(str(error).split())}") from None
    if metadata.get("ciss_fast_format") != FORMAT or not is_state(model):
        raise CheckpointError(
            f"{path}: expected a checkpoint that ciss_fast exported in format {FORMAT}, "
            f"got {metadata.get('ciss_fast_format')!r}"
        )
    try:
        plain = {name: json.loads(metadata[name]) for name in _PLAIN}
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged, its metadata cannot be read: {error}") from None
    if metadata.get("sha256") != _digest(model):
        raise CheckpointError(f"{path}: damaged, its content does not match its checksum")
    return StepCheckpoint(model=model, **plain)


def _digest(model: dict[str, Tensor]) -> str:
    return tensors_digest(dict(sorted(model.items())))  # the file has an order of its own


def _library() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise ConfigError(
            "safetensors: expected the package to be installed (pip install 'ciss_fast[safetensors]'), it is not"
        ) from None
    return safetensors
