"""Cases of ``softmax_loss``: forward and backward through the public op, enlargement included.

Floors. Traffic: student, teacher and labels read once, gradient written once. Operations, where logits are
enlarged: four multiply-adds per pixel and class of student and teacher. That is the least the geometric form
needs: one step of the sequence and one addition to the sum on the way there, two Horner steps for the
gradient (the teacher's two give the terms that are linear in the student's logits). What is done per pixel,
per logit or per label (logarithms, weights, exponentials, masks) comes on top and is not part of the floor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

import ciss_fast

from . import eager_softmax as eager
from .logits_loss import LossCase, Mix

MIXES = {
    "alife": Mix("CE + 3 ALI + KD", eager.alife, {"ce": 1.0, "ali": 3.0, "kd": 1.0}),
    # MiB turns 255 into 0.
    "mib": Mix("CCE + 10 CKD", eager.mib, {"cce": 1.0, "ckd": 10.0, "cce_average": "all"}, border=False),
    "ce": Mix("CE", eager.ce, {"ce": 1.0}, needs_teacher=False),
    "kd": Mix("KD", eager.kd, {"kd": 1.0, "kd_region": "all"}, needs_new_classes=False),
    "focal": Mix("focal + 3 ALI", eager.focal_ali, {"focal": 1.0, "ali": 3.0}),
    "all": Mix(
        "all six terms",
        eager.all_terms,
        {"ce": 1.0, "cce": 1.0, "kd": 1.0, "ckd": 1.0, "ali": 1.0, "focal": 1.0},
    ),
    # At the base step every pixel is labelled.
    "base": Mix(
        "CE, base step",
        eager.base_step,
        {"ce": 1.0},
        needs_teacher=False,
        base=True,
        background=False,
        border=False,
    ),
}


@dataclass(frozen=True)
class SoftmaxCase(LossCase):
    """One setting of ``softmax_loss``, by default ALIFE's terms."""

    mix: str = "alife"

    function = staticmethod(ciss_fast.softmax_loss)
    mixes = MIXES
    auxiliary = 0
    multiply_adds = 4


def _cases() -> list[SoftmaxCase]:
    cases = []
    for data, shape in {"voc": (4, 21, 16), "ade": (1, 151, 101)}.items():
        headline = SoftmaxCase(
            f"{data}-alife", shape, compiled=True, others={"eager, term by term": eager.alife_term_by_term}
        )
        case = partial(replace, headline, compiled=False, others={}, compared_with=headline.name)
        cases += [
            headline,
            case(name=f"{data}-half-pixel", align_corners=False),
            case(name=f"{data}-ratio-8", logits_size=(64, 64)),
            case(name=f"{data}-ratio-4", logits_size=(128, 128)),
            case(name=f"{data}-33-to-513", logits_size=(33, 33), label_size=(513, 513)),
            case(name=f"{data}-30-to-500", logits_size=(30, 30), label_size=(500, 500)),
            case(name=f"{data}-mib", mix="mib", compiled=True),
            case(name=f"{data}-ce", mix="ce"),
            case(name=f"{data}-kd", mix="kd"),
            case(name=f"{data}-focal-ali", mix="focal"),
            case(name=f"{data}-all-terms", mix="all"),
            case(name=f"{data}-base-step", mix="base"),
            case(name=f"{data}-bfloat16", dtype=torch.bfloat16),
            case(name=f"{data}-random-labels", labels="random"),
            case(name=f"{data}-large-logits", deviation=50.0),
        ]
    ade = SoftmaxCase("label-size-ade-mib", (2, 151, 101), (128, 128), (128, 128), mix="mib", compiled=True)
    cases += [
        ade,
        replace(ade, name="label-size-ade-alife", mix="alife", compiled=False),
        replace(ade, name="label-size-ade-scaled", compiled=False, upstream=0.5),
        SoftmaxCase("label-size-voc-alife", (2, 21, 16), (256, 256), (256, 256), compiled=True),
        SoftmaxCase("call-overhead", (1, 3, 2), (1, 1), (16, 16), labels="random"),  # next to no work
    ]
    return cases


def _gpu_cases() -> list[SoftmaxCase]:
    """A batch of ADE20K's size: enlarged, and at the label's size, where the traffic is the floor."""
    enlarged = SoftmaxCase(
        "gpu-ade-alife", (12, 151, 101), compiled=True, others={"eager, term by term": eager.alife_term_by_term}
    )
    full = SoftmaxCase("gpu-label-size-ade-alife", (4, 151, 101), (512, 512), (512, 512), compiled=True)
    return [
        enlarged,
        replace(enlarged, name="gpu-ade-alife-bfloat16", dtype=torch.bfloat16, others={}, compared_with=enlarged.name),
        replace(enlarged, name="gpu-ade-mib", mix="mib", others={}, compared_with=enlarged.name),
        full,
        replace(full, name="gpu-label-size-ade-bfloat16", dtype=torch.bfloat16, compared_with=full.name),
        replace(full, name="gpu-label-size-ade-mib", mix="mib", compared_with=full.name),
    ]


CASES = tuple(_cases())
GPU_CASES = tuple(_gpu_cases())
