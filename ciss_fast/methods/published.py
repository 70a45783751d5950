"""Published loss weights by method, data set and task, and what stands in where none is published.

Sources: MiB (Cermelli et al., CVPR 2020), ALIFE (Oh, Baek and Ham, NeurIPS 2022) and DKD (Baek et al.,
NeurIPS 2022), their reference implementations. A list has one value per later step, step 1 first.
"""

from __future__ import annotations

from .settings import MethodSettings

PUBLISHED_DATASETS = ("voc", "ade20k")

LossWeights = dict[str, float | list[float]]

# MiB uses 10 for every task it reports on.
_MIB: LossWeights = {"ckd": 10.0}
_MIB_TASKS = {
    "voc": ("19-1", "15-5", "15-1", "10-10", "10-5"),
    "ade20k": ("100-50", "100-10", "50-50"),
}

_ALIFE: dict[str, dict[str, LossWeights]] = {
    "voc": {
        "19-1": {"ali": 1.0, "kd": 1.0},
        "15-5": {"ali": 2.0, "kd": 1.0},
        "15-1": {"ali": [3.0, 5.0, 2.0, 3.0, 2.0], "kd": [1.0, 10.0, 1.0, 10.0, 1.0]},
    },
    "ade20k": {
        "100-50": {"ali": 1.0, "kd": 1.0},
        "100-10": {"ali": 1.0, "kd": 1.0},
        "50-50": {"ali": 1.0, "kd": 20.0},
    },
}

# Unpublished: the paper gives no value for these tasks or data sets. ADE20K keeps what most of its tasks
# share, anything else takes the values of VOC 15-5.
_ALIFE_UNPUBLISHED: dict[str, LossWeights] = {
    "ade20k": {"ali": 1.0, "kd": 1.0},
    "other": {"ali": 2.0, "kd": 1.0},
}

# ALIFE-M adds stage 3: ALI on the images ("replay_ali") and cross-entropy on the memory ("memory"). Its stage 1 is
# ALIFE's.
_ALIFE_M: dict[str, dict[str, LossWeights]] = {
    "voc": {
        "19-1": {"replay_ali": 1.0, "memory": 1.0},
        "15-5": {"replay_ali": 1.0, "memory": 10.0},
        "15-1": {"replay_ali": [3.0, 5.0, 2.0, 3.0, 1.0], "memory": [1.0, 20.0, 1.0, 2.0, 1.0]},
    },
    "ade20k": {
        "100-50": {"replay_ali": 0.0, "memory": 0.5},
        "100-10": {"replay_ali": [5.0, 5.0, 2.0, 0.0, 0.0], "memory": [2.0, 1.0, 1.0, 0.1, 0.5]},
        "50-50": {"replay_ali": [0.0, 0.0], "memory": [0.1, 0.5]},
    },
}

# Unpublished, as for ALIFE: ADE20K takes 100-50's, anything else the values that VOC has most often.
_ALIFE_M_UNPUBLISHED: dict[str, LossWeights] = {
    "ade20k": {"replay_ali": 0.0, "memory": 0.5},
    "other": {"replay_ali": 1.0, "memory": 1.0},
}

# lambda_ROT: weight of FID in the rotations' fit (REG has the rest); 0.99 except where named here.
_ROTATION_WEIGHT = 0.99
_ROTATION_WEIGHTS = {("voc", "19-1"): 0.95, ("voc", "15-5"): 0.95}

# One set of weights for every task that DKD and DKD-M report on.
_DKD: LossWeights = {"kd": 5.0, "dkd_pos": 5.0, "dkd_neg": 5.0, "ac": 1.0}
_DKD_TASKS = {
    "voc": ("19-1", "15-5", "15-1", "10-1", "5-3"),
    "ade20k": ("100-50", "100-10", "50-50"),
}

# DKD's weight of positive pixels at the base step and later; other data sets take VOC's.
_DKD_POS_WEIGHTS = {"voc": (2.0, 1.0), "ade20k": (35.0, 35.0)}


def loss_weights(method: str, dataset: str, task: str) -> tuple[LossWeights, bool]:
    """Return (weights by term, whether they are published) for e.g. ("alife", "voc", "15-1").

    ``dataset`` is "voc" or "ade20k" for published values; any other name and task gets the unpublished
    defaults. Methods without weighted terms (fine-tuning, joint) get an empty dict.
    """
    if method == "mib":
        return dict(_MIB), task in _MIB_TASKS.get(dataset, ())
    if method in ("alife", "alife-m"):
        weights, published = _of_task(_ALIFE, _ALIFE_UNPUBLISHED, dataset, task)
        if method == "alife-m":
            weights |= _of_task(_ALIFE_M, _ALIFE_M_UNPUBLISHED, dataset, task)[0]
        return weights, published
    if method in ("dkd", "dkd-m"):
        return dict(_DKD), task in _DKD_TASKS.get(dataset, ())
    return {}, True


def _of_task(
    published: dict[str, dict[str, LossWeights]], unpublished: dict[str, LossWeights], dataset: str, task: str
) -> tuple[LossWeights, bool]:
    """A copy of the weights published for a task, or else of the data set's defaults; and whether published."""
    weights = published.get(dataset, {}).get(task)
    if weights is not None:
        return dict(weights), True
    return dict(unpublished.get(dataset, unpublished["other"])), False


def rotation_weight(dataset: str, task: str) -> float:
    """ALIFE-M's lambda_ROT for a task; tasks without a published value take what most published ones have."""
    return _ROTATION_WEIGHTS.get((dataset, task), _ROTATION_WEIGHT)


def pos_weights(method: str, dataset: str) -> tuple[float, float]:
    """Return mBCE's weight of positive pixels (at the base step, later); 1 for methods without mBCE."""
    if method in ("dkd", "dkd-m"):
        return _DKD_POS_WEIGHTS.get(dataset, _DKD_POS_WEIGHTS["voc"])
    return 1.0, 1.0


def default_settings(method: str, dataset: str, task: str) -> MethodSettings:
    """The settings a method is published with for a task, e.g. ("alife", "voc", "15-1").

    See `loss_weights`, `pos_weights` and `rotation_weight`.
    ``method`` is the method's registered name or an alias. Raises `ConfigError` for an unknown one.
    """
    from . import get_method  # the registry imports the methods, which import the settings

    known = get_method(method)
    weights, published = loss_weights(known.name, dataset, task)
    base, later = pos_weights(known.name, dataset)
    return MethodSettings(
        loss_weights=weights,
        align_corners=known.align_corners,
        pos_weight_base=base,
        pos_weight_later=later,
        rotation_weight=rotation_weight(dataset, task) if known.feature_memory else MethodSettings.rotation_weight,
        published=published,
    )
