"""What is switched off or changed beside the comparison: parts of the methods, arithmetic, and what may explain a
result. By name: the method (ALIFE in `ARITHMETIC`) and its settings.
"""

from __future__ import annotations

from typing import Any

_NO_DKD = {"dkd_pos": 0, "dkd_neg": 0}

ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "alife-ce": ("alife", {"loss_weight": {"ali": 0, "kd": 0}}),
    "alife-ce-kd": ("alife", {"loss_weight": {"ali": 0}}),
    "alife-cce-ckd": ("alife", {"loss_weight": {"ali": 0}, "unbiased_terms": True}),
    "alife-m-without-memory": ("alife-m", {"feature_replay": "none"}),
    "alife-m-without-rotation": ("alife-m", {"feature_replay": "unrotated"}),
    "dkd-kd": ("dkd", {"loss_weight": {**_NO_DKD, "ac": 0}, "new_classifier_start": "random"}),
    "dkd-kd-dkd": ("dkd", {"loss_weight": {"ac": 0}, "new_classifier_start": "random"}),
}
"""Parts switched off, with every seed. What is complete is in the comparison."""

_TRAINED_BATCH_NORMS = {"later_freeze_batch_norm": "backbone_only"}
_FROZEN_BATCH_NORMS = {"later_freeze_batch_norm": "all"}
_MSRC: dict[str, tuple[str, dict[str, Any]]] = {
    "alife-ce-ali": ("alife", {"loss_weight": {"kd": 0}}),
    "alife-cce-ckd-ali": ("alife", {"unbiased_terms": True}),
    # An epoch of the last stage is 24 iterations here, 89 with the published sizes of VOC 15-5.
    "alife-m-replay-10-epochs": ("alife-m", {"replay_epochs": 10}),
    # VOC 15-5's published weight; other data have 1.
    "alife-m-memory-10": ("alife-m", {"loss_weight": {"memory": 10}}),
    # At the rate that is best for the four others.
    "fine-tuning-0.001": ("fine-tuning", {"lr_later": 1e-3}),
    "dkd-m-0.001": ("dkd-m", {"lr_later": 1e-3}),
    # Between the two rates of the tuning that keep everything old and learn everything new.
    "dkd-0.002": ("dkd", {"lr_later": 2e-3}),
    # DKD freezes all batch norms in later steps, the others do not.
    "dkd-trained-batch-norms": ("dkd", _TRAINED_BATCH_NORMS),
    "mib-frozen-batch-norms": ("mib", _FROZEN_BATCH_NORMS),
    "alife-frozen-batch-norms": ("alife", _FROZEN_BATCH_NORMS),
    # A sigmoid a class: few pixels of a new class face all the others.
    "dkd-pos-weight-4": ("dkd", {"pos_weight_later": 4}),
}
EXPLANATIONS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "msrc-15-6": _MSRC,
    "voc-15-5": {
        # Where ALIFE falls behind MiB: its rate is another; the weight of ALI is full VOC's; MiB's batch norms of ASPP
        # are trained.
        "alife-0.001": ("alife", {"lr_later": 1e-3}),
        "alife-0.001-ali-1": ("alife", {"lr_later": 1e-3, "loss_weight": {"ali": 1}}),
        "alife-ali-1": ("alife", {"loss_weight": {"ali": 1}}),
        "alife-trained-batch-norms": ("alife", _TRAINED_BATCH_NORMS),
        "alife-cce-ckd": ("alife", {"loss_weight": {"ali": 0}, "unbiased_terms": True}),
        "mib-frozen-batch-norms": ("mib", _FROZEN_BATCH_NORMS),
    },
    "voc-15-1": {
        # Forgetting in steps of one class: with more updates, with all batch norms frozen, and by SGD, as AdamW's steps
        # do not get smaller with the gradients of classes that are not in the images.
        "alife-three-times-as-long": ("alife", {"epochs_later": "33,9,24,150,42"}),
        "alife-frozen-batch-norms": ("alife", _FROZEN_BATCH_NORMS),
        "alife-sgd-0.01": ("alife", {"lr_later": 1e-2, "later_optimiser": "sgd"}),
    },
}
"""By setting; the first seed alone."""

ARITHMETIC_GROUP = "-arithmetic"
ARITHMETIC: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "alife-fp32": ({"precision": "fp32"}, {}),
    "alife-reference-losses": ({}, {"CISS_FAST_BACKEND": "reference"}),
}
"""ALIFE in single precision, and with the losses in plain PyTorch: settings and environment. The first seed alone."""
