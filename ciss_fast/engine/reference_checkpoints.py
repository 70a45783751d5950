"""Checkpoints of the papers' code, turned into ours.

- DKD (Baek et al., NeurIPS 2022), as published: the weights lie under ``state_dict``; ``cls.0`` is the auxiliary
  classifier, ``cls.1`` and on are those of the steps.
- ALIFE (Oh et al., NeurIPS 2022), as its code writes them: a bare state dict; ``decoder.classifier.N`` is that of step
  N, the background in the first.

Both networks are DeepLab-v3 on a ResNet-101 with output stride 16; they differ from ours in names only, and ALIFE's
dilates one convolution more (``dilate_first_block``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ciss_fast.checked_files import is_state
from ciss_fast.data import Task
from ciss_fast.data.ade20k import ADE20K_CLASSES
from ciss_fast.data.voc import VOC_CLASSES
from ciss_fast.engine.checkpoint import StepCheckpoint
from ciss_fast.engine.config import Config
from ciss_fast.engine.trained_model import model_of
from ciss_fast.errors import CheckpointError

CLASSES = {"voc": VOC_CLASSES, "ade20k": ADE20K_CLASSES}
_HEADS = {"dkd": ("aspp.last_conv.", "cls."), "alife": ("decoder.last_conv.", "decoder.classifier.")}


def convert_reference(
    path: str | Path, dataset: str, task: str, class_order: Sequence[int | str] | None = None
) -> StepCheckpoint:
    """Read a checkpoint that DKD's or ALIFE's code has written; which of them its names tell.

    ``dataset`` ("voc" or "ade20k") and ``task`` (such as "15-1") say what the channels mean; the number of classifiers
    says how many of the task's steps the model has learnt. Raises `CheckpointError` naming the file for one that is
    missing, cannot be read without running code, is of neither or does not fit the task; `ConfigError` for a task that
    the data set does not have.
    """
    theirs = _read_state(path)
    method = _method_of(theirs, path)
    names = {key: _our_name(key, method) for key in theirs}
    state = {ours: theirs[key] for key, ours in names.items() if ours is not None}
    found = _classes_per_step(state, method, path)
    parsed = Task.parse(task, class_names=CLASSES[dataset], class_order=class_order)
    if found != parsed.classes_per_step[: len(found)]:
        raise CheckpointError(
            f"{path}: expected classifiers of {parsed.classes_per_step} channels for {dataset} {parsed.name} "
            f"(or the first of them; channel 0 counted in), got {found}"
        )
    step = len(found) - 1
    settings: dict[str, Any] = {
        "dataset": dataset, "task": parsed.name, "method": method, "dilate_first_block": method == "alife",
        "align_corners": method == "alife", "dropout": 0.5 if method == "alife" else 0.1,
        "class_order": None if class_order is None else parsed.seen(parsed.num_steps - 1)[1:],
    }  # fmt: skip
    checkpoint = StepCheckpoint(
        model=state,
        step=step,
        method=method,
        config=Config().with_settings(settings).to_dict(),
        class_names=list(parsed.class_names),
        channel_order=list(parsed.seen(step)),
        classes_per_step=found,
        data_fingerprint="",
        seconds=0.0,
        history=[],
    )
    model_of(checkpoint, path)  # finds a key that is missing, not expected or of another shape
    return checkpoint


def _read_state(path: str | Path) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, there is no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive surfaces as almost anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: cannot be read as weights only: {reason}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not is_state(content):
        raise CheckpointError(f"{path}: expected a state dict, bare or under 'state_dict', got another kind of file")
    return {key.removeprefix("module."): value for key, value in content.items()}  # DistributedDataParallel's prefix


def _method_of(state: Mapping[str, Tensor], path: str | Path) -> str:
    for method, prefixes in _HEADS.items():
        if all(any(key.startswith(prefix) for key in state) for prefix in prefixes):
            return method
    raise CheckpointError(
        f"{path}: expected the names of DKD's network (cls.N, aspp.last_conv) or of ALIFE's (decoder.classifier.N, "
        f"decoder.last_conv), got {next(iter(state))} and others"
    )


def _our_name(key: str, method: str) -> str | None:
    """Our name of an entry; None for what our network does not have."""
    head, classifiers = _HEADS[method]
    if key.startswith(head):
        return "head." + key.removeprefix(head)
    match = re.fullmatch(re.escape(classifiers) + r"([0-9]+)\.(weight|bias)", key)
    if match is None:
        return None if re.match(r"backbone\.fc\.", key) else key
    number = int(match[1])
    if method == "alife":
        return f"classifiers.{number}.{match[2]}"
    return f"auxiliary.{match[2]}" if number == 0 else f"classifiers.{number - 1}.{match[2]}"


def _classes_per_step(state: Mapping[str, Tensor], method: str, path: str | Path) -> list[int]:
    """Channels of every step, channel 0 counted in the first."""
    counts: list[int] = []
    while (name := f"classifiers.{len(counts)}.weight") in state:
        counts.append(state[name].shape[0])
    if not counts:
        raise CheckpointError(f"{path}: expected the classifier of the base step, there is none")
    if method == "dkd":
        counts[0] += 1
    return counts
