"""Cases of ``sigmoid_loss``: forward and backward through the public op, enlargement included.

"Smooth" cases have a trained network's logits (`recorded_logits`), "rough" ones independent normal numbers of
deviation 3. The floor is traffic alone (see `logits_loss`): on smooth logits the kernel does less than one operation
per pixel and class, and how much less depends on the logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

import ciss_fast

from . import eager_sigmoid as eager
from .logits_loss import LossCase, Mix

_PLAIN, _ADE, _BASE = eager.Weights(), eager.Weights(pos_weight=35.0), eager.Weights(pos_weight=2.0)
_TERMS = {"mbce": 1.0, "kd": 5.0, "ac": 1.0}

MIXES = {
    "dkd": Mix("mBCE + 5 KD + AC", eager.softplus_form(_PLAIN), _TERMS),
    "dkd-weighted": Mix("mBCE + 5 KD + AC, pos_weight 35", eager.softplus_form(_ADE), {**_TERMS, "pos_weight": 35.0}),
    "base": Mix(
        "mBCE + AC, pos_weight 2, base step",
        eager.softplus_form(_BASE),
        {"mbce": 1.0, "ac": 1.0, "pos_weight": 2.0},
        needs_teacher=False,
        base=True,
    ),
    "kd": Mix("KD", eager.kd_alone, {"kd": 1.0}, needs_new_classes=False),
}
OTHERS = {
    "eager, group by group": eager.group_by_group(_PLAIN),
    "eager, one call": eager.one_call(_PLAIN),
    "eager, class by class": eager.class_by_class(_PLAIN),
}


@dataclass(frozen=True)
class SigmoidCase(LossCase):
    """One setting of ``sigmoid_loss``, by default DKD's terms at a later step on a trained network's logits."""

    mix: str = "dkd"
    align_corners: bool = False
    logits: str = "recorded"

    function = staticmethod(ciss_fast.sigmoid_loss)
    mixes = MIXES
    auxiliary = 1
    multiply_adds = 0


def _cases() -> list[SigmoidCase]:
    cases = []
    for data, shape in {"voc": (4, 21, 16), "ade": (1, 151, 101)}.items():
        smooth = SigmoidCase(f"{data}-smooth", shape, compiled=True, others=OTHERS)
        rough = replace(smooth, name=f"{data}-rough", logits="normal", others={}, compared_with=smooth.name)
        case = partial(replace, smooth, compiled=False, others={}, compared_with=smooth.name)
        rough_case = partial(replace, rough, compiled=False, compared_with=rough.name)
        cases += [
            smooth,
            rough,
            case(name=f"{data}-corners", align_corners=True),
            case(name=f"{data}-ratio-8", logits_size=(64, 64)),
            case(name=f"{data}-ratio-4", logits_size=(128, 128)),
            case(name=f"{data}-33-to-513", logits_size=(33, 33), label_size=(513, 513)),
            case(name=f"{data}-pos-weight", mix="dkd-weighted"),
            case(name=f"{data}-base-step", mix="base"),
            case(name=f"{data}-kd", mix="kd"),
            case(name=f"{data}-bfloat16", dtype=torch.bfloat16),
            case(name=f"{data}-random-labels", labels="random"),
            rough_case(name=f"{data}-rough-ratio-8", logits_size=(64, 64)),
            rough_case(name=f"{data}-rough-ratio-4", logits_size=(128, 128)),
            rough_case(name=f"{data}-rough-bfloat16", dtype=torch.bfloat16),
            rough_case(name=f"{data}-rough-random-labels", labels="random"),
            rough_case(name=f"{data}-large-logits", deviation=50.0),
        ]
    cases += [
        SigmoidCase("label-size-ade", (2, 151, 101), (128, 128), (128, 128), compiled=True),
        SigmoidCase("label-size-voc", (2, 21, 16), (256, 256), (256, 256), compiled=True),
        SigmoidCase("call-overhead", (1, 3, 2), (1, 1), (16, 16), labels="random"),  # next to no work
    ]
    return cases


def _gpu_cases() -> list[SigmoidCase]:
    """A batch of ADE20K's size: enlarged, and at the label's size, where the traffic is the floor."""
    enlarged = SigmoidCase("gpu-ade-dkd", (12, 151, 101), compiled=True)
    full = SigmoidCase("gpu-label-size-ade-dkd", (4, 151, 101), (512, 512), (512, 512), compiled=True)
    return [
        enlarged,
        replace(enlarged, name="gpu-ade-dkd-rough", logits="normal", compared_with=enlarged.name),
        replace(enlarged, name="gpu-ade-dkd-bfloat16", dtype=torch.bfloat16, compared_with=enlarged.name),
        full,
        replace(full, name="gpu-label-size-ade-bfloat16", dtype=torch.bfloat16, compared_with=full.name),
    ]


CASES = tuple(_cases())
GPU_CASES = tuple(_gpu_cases())
