"""The image memory as a JSON file: one line per image, to be read by people; checked when it is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.data.dataset import SegmentationDataset
from ciss_fast.errors import CheckpointError, DataError
from ciss_fast.memory.image_memory import ImageMemory, MemoryImage

FORMAT = 1


def save_image_memory(path: str | os.PathLike[str], memory: ImageMemory, class_names: Sequence[str]) -> Path:
    """Write the memory in one step (see `ciss_fast.atomic_files`); classes are written by name.

    ``class_names``: the data set's, index = class id.
    """
    content = {
        "format": FORMAT,
        "step": memory.step,
        "size": memory.size,
        "dataset": memory.dataset,
        "fingerprint": memory.fingerprint,
        "images": [
            {
                "id": image.image_id,
                "chosen_for": class_names[image.chosen_for],
                "shows": [class_names[class_id] for class_id in image.classes],
                "from_step": image.step,
            }
            for image in memory.images
        ],
    }
    return atomic_write_text(path, _text({**content, "sha256": _digest(content)}))


def load_image_memory(
    path: str | os.PathLike[str], step: int, dataset: SegmentationDataset, dataset_name: str
) -> ImageMemory:
    """Read the memory that ``step`` replays and check it against the data set.

    Raises `CheckpointError` if the file is missing, cannot be read, is no memory list, was changed (checksum)
    or belongs to another step, and `DataError` if it belongs to another data set, or names images or classes
    that this one does not have. The messages name the file and the problem.
    """
    path = Path(path)
    content = _read(path)
    try:
        stored = _fields(content, {"step": int, "size": int, "dataset": str, "fingerprint": str})
        entries = _fields(content, {"images": list})["images"]
        kinds = {"id": str, "chosen_for": str, "shows": list, "from_step": int}
        images = [tuple(_fields(entry, kinds).values()) for entry in entries]
    except TypeError as error:
        raise CheckpointError(f"{path}: expected an image memory, got another kind of content: {error}") from None
    if stored["step"] != step:
        raise CheckpointError(f"{path}: expected the image memory of step {step}, got that of step {stored['step']}")
    if stored["dataset"] != dataset_name:
        raise DataError(f"{path}: expected images of data set {dataset_name!r}, got {stored['dataset']!r}")
    if stored["fingerprint"] != dataset.fingerprint:
        raise DataError(
            f"{path}: expected fingerprint {dataset.fingerprint} (the training images' list), "
            f"got {stored['fingerprint']}: the data have changed"
        )
    id_of = {name: class_id for class_id, name in enumerate(dataset.class_names)}
    known = set(dataset.ids)
    for image_id, chosen_for, shows, _ in images:
        if image_id not in known:
            raise DataError(f"{path}: expected ids of the data set, got {image_id!r}")
        for name in (chosen_for, *shows):
            if not isinstance(name, str) or name not in id_of:
                raise DataError(f"{path}: image {image_id!r}: expected classes of the data set, got {name!r}")
    return ImageMemory(
        images=tuple(
            MemoryImage(image_id, tuple(sorted(id_of[name] for name in shows)), from_step, id_of[chosen_for])
            for image_id, chosen_for, shows, from_step in images
        ),
        **stored,
    )


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: expected an image memory, there is no such file")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: damaged or not an image memory: {reason}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(f"{path}: expected an image memory, got another kind of content")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path}: expected image memory format {FORMAT}, got {content['format']!r}")
    if content.pop("sha256", None) != _digest(content):
        raise CheckpointError(f"{path}: damaged or edited, its content does not match its checksum")
    return content


def _fields(entry: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The named values of a JSON object; `TypeError` if it is none, or one is missing or of another type."""
    for name, kind in kinds.items():
        if not isinstance(entry, dict) or not isinstance(entry.get(name), kind):
            raise TypeError(f"expected {name} of type {kind.__name__}")
    return {name: entry[name] for name in kinds}


def _text(content: Mapping[str, Any]) -> str:
    """JSON with every entry and every image on a line of its own."""
    lines = []
    for name, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"    {json.dumps(entry)}" for entry in value) + "\n  ]"
        lines.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over the content, whatever its layout in the file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
