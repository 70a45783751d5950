"""Published network, batch size, epochs and learning rates by method, data set and task.

Sources: those of `ciss_fast.methods.published`. Keys are the names of the settings of a run
(`ciss_fast.engine.config`); a list has one value per later step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..memory.image_memory import published_memory_size
from .published import pos_weights, rotation_weight

if TYPE_CHECKING:
    from .method import Method

# Data sets other than VOC and ADE20K take VOC's values; so do tasks that are not named.
_SOFTMAX: dict[str, dict[str, Any]] = {
    "voc": {"batch_size": 24, "epochs_base": 30, "epochs_later": 30, "lr_base": 1e-2, "lr_later": 1e-3, "warmup": 0.0},
    "ade20k": {
        "batch_size": 24, "epochs_base": 60, "epochs_later": 60, "lr_base": 1e-2, "lr_later": 1e-3, "warmup": 0.0,
    },
}  # fmt: skip

_ALIFE_EPOCHS_LATER: dict[tuple[str, str], float | list[float]] = {
    ("voc", "19-1"): 5,
    ("voc", "15-5"): 10,
    ("voc", "15-1"): [10, 5, 5, 5, 5],
}

_DKD: dict[str, dict[str, Any]] = {
    "voc": {"batch_size": 32, "epochs_base": 60, "epochs_later": 60, "lr_base": 1e-3, "lr_later": 1e-4, "warmup": 0.0},
    "ade20k": {
        "batch_size": 24, "epochs_base": 100, "epochs_later": 100, "lr_base": 2.5e-3, "lr_later": 2.5e-4,
        "warmup": 0.2,
    },
}  # fmt: skip


def run_settings(method: Method, dataset: str, task: str) -> dict[str, Any]:
    """The values of a run's settings that a method is published with, by name.

    ``dataset`` is "voc" or "ade20k"; any other takes the values of VOC. The settings are those that depend on the
    method: of the network, of the schedule, and those that only methods with a sigmoid head or a memory read.
    """
    schedules = _DKD if method.prediction_kind == "sigmoid" else _SOFTMAX
    values = dict(schedules.get(dataset, schedules["voc"]))
    if method.name.startswith("alife"):
        values["epochs_later"] = _ALIFE_EPOCHS_LATER.get((dataset, task), values["epochs_later"])
    values.update(
        align_corners=method.align_corners,
        dropout=method.dropout,
        backbone_batch_norm_momentum=method.backbone_batch_norm_momentum,
    )
    for group in ("backbone", "head", "old_classifiers", "new_classifier"):
        values[f"{group}_lr_multiplier"] = method.lr_multipliers.get(group, 1.0)
    if method.prediction_kind == "sigmoid":
        values["pos_weight_base"], values["pos_weight_later"] = pos_weights(method.name, dataset)
    if method.feature_memory:
        values["rotation_weight"] = rotation_weight(dataset, task)
    if method.image_memory:
        values["memory_images"] = published_memory_size(dataset)
    return values


def evaluation_settings(method: Method, dataset: str) -> dict[str, Any]:
    """How the method's own code treats labels when it tests after a step: settings of a run, by name.

    Not part of `run_settings`: methods compare only where all of them are tested in the same way, which is what a
    run does that is not asked for another.
    """
    ade20k = dataset == "ade20k"
    ignores_unseen = method.name == "mib" or (method.name in ("dkd", "dkd-m") and ade20k)
    return {
        "unseen": "ignore" if ignores_unseen else "background",
        "ignore_background": method.name == "mib" and ade20k,
    }
