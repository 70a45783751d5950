"""Files of tensors and plain values: written in one step, checksummed, loaded without running code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ciss_fast.atomic_files import atomic_write
from ciss_fast.errors import CheckpointError, DamagedFile

_OWN_NAMES = ("format", "sha256")


def save_checked(path: str | Path, content: Mapping[str, Any], format: int) -> Path:  # noqa: A002 - what it is
    """Write ``content`` in one step: a crash leaves the old file, the new one or none, never half of one.

    Its values are numbers, texts, booleans, None and tensors, in lists and dictionaries as deep as wanted; tensors
    are stored on the CPU with their strides. ``format`` is the number of the layout, to be raised when it changes.
    Raises `TypeError` for a value of another type.
    """
    stored = {name: _on_cpu(value) for name, value in content.items()}
    stored["format"] = format
    stored["sha256"] = _digest(stored)
    return atomic_write(path, lambda file: torch.save(stored, file))


def load_checked(path: str | Path, kind: str, names: Iterable[str], format: int) -> dict[str, Any]:  # noqa: A002
    """The content of a file of `save_checked`, tensors on the CPU.

    Args:
        kind: what the file should be, for messages, such as "feature memory".
        names: entries that it must have.

    Raises `CheckpointError` naming the file if it is missing, lacks an entry or has another format, and its kind
    `DamagedFile` if it cannot be read or its content is not what was written (checksum).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a {kind}, there is no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive surfaces as almost anything
        reason = "expected tensors and plain values, got something else"
        if isinstance(error, (RuntimeError, OSError)) and str(error).strip():  # the others say nothing of use
            reason = str(error).strip().splitlines()[0]
        raise DamagedFile(f"{path}: damaged or not a {kind}: {reason}") from None
    if not isinstance(content, dict) or not set(names) <= content.keys():
        raise CheckpointError(f"{path}: expected a {kind} of ciss_fast, got another kind of file")
    if content.get("format") != format:
        raise CheckpointError(f"{path}: expected {kind} format {format}, got {content.get('format')}")
    try:
        digest = _digest(content)
    except TypeError:  # something that is neither plain nor a tensor
        digest = None
    if digest is None or content.get("sha256") != digest:
        raise DamagedFile(f"{path}: damaged, its content does not match its checksum")
    return {name: value for name, value in content.items() if name not in _OWN_NAMES}


def is_state(value: Any) -> bool:
    """Whether ``value`` is a dictionary of tensors."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, Tensor) for item in value.values())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) over the names, dtypes, shapes and values of ``tensors``."""
    digest = hashlib.sha256()
    _update(digest, tensors)
    return digest.hexdigest()


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        # torch.save writes the whole storage behind a view.
        is_view = tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
        return tensor.clone() if is_view else tensor
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_on_cpu(item) for item in value]
    return value


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over everything but the digest itself. torch.load does not verify the bytes of a tensor."""
    digest = hashlib.sha256()
    _update(digest, {name: value for name, value in content.items() if name != "sha256"})
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        digest.update(f"dictionary of {len(value)};".encode())
        for key, item in value.items():
            digest.update(f"{key!r}:".encode())
            _update(digest, item)
    elif isinstance(value, list):
        digest.update(f"list of {len(value)};".encode())
        for item in value:
            _update(digest, item)
    elif value is None or isinstance(value, (bool, int, float, str)):
        digest.update(f"{value!r};".encode())
    else:
        raise TypeError(f"expected numbers, text and tensors in lists and dictionaries, got {type(value).__name__}")
