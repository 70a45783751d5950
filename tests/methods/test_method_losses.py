"""Each method's loss against its formula in plain PyTorch, in float64."""

import pytest
import torch
from torch.nn import functional

from ciss_fast.errors import ConfigError
from ciss_fast.methods import MethodSettings, get_method
from ciss_fast.models import SegmentationOutput

OLD, CLASSES = 4, 6
SIZE = (20, 17)


@pytest.fixture
def batch():
    """Student and teacher outputs on a small map; labels 0 (unlabelled), 4 and 5 (new), 255 (ignored)."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, CLASSES, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    teacher = torch.randn(2, OLD, 5, 4, generator=generator, dtype=torch.float64)
    values = torch.tensor([0, 0, 0, 4, 5, 255])
    label = values[torch.randint(len(values), (2, *SIZE), generator=generator)]
    unread = {"features": None, "weight": None}
    return SegmentationOutput(student, **unread), SegmentationOutput(teacher, **unread), label


def enlarged(output, align_corners):
    return functional.interpolate(output.logits, SIZE, mode="bilinear", align_corners=align_corners)


def same_loss_and_gradient(batch, name, step, settings, expected):
    student, teacher, label = batch
    total, terms = get_method(name).loss(student, teacher, label, step, settings)
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    (ours,) = torch.autograd.grad(total, student.logits)
    (theirs,) = torch.autograd.grad(expected, student.logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
    assert not any(term.requires_grad for term in terms.values())
    return terms


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("name", "step"), [("fine-tuning", 0), ("fine-tuning", 1), ("joint", 0), ("mib", 0), ("alife", 0)]
)
def test_plain_cross_entropy(name, step, align_corners, batch):
    """Background is a class like the others, 255 is left out, the sum is divided by all pixels."""
    student, _, label = batch
    settings = MethodSettings(align_corners=align_corners)
    log_p = enlarged(student, align_corners).log_softmax(1)
    expected = functional.nll_loss(log_p, label, ignore_index=255, reduction="sum") / label.numel()
    terms = same_loss_and_gradient((student, None, label), name, step, settings, expected)
    torch.testing.assert_close(terms["ce"], expected.detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("step", "ali_weight", "kd_weight"), [(1, 3.0, 1.0), (2, 5.0, 10.0)])
def test_alife(step, ali_weight, kd_weight, align_corners, batch):
    student, teacher, label = batch
    settings = MethodSettings(
        loss_weights={"ali": [3.0, 5.0], "kd": [1.0, 10.0]}, align_corners=align_corners
    )
    z, p_teacher = enlarged(student, align_corners), enlarged(teacher, align_corners).softmax(1)
    new, unlabelled = (label != 0) & (label != 255), label == 0
    safe_label = torch.where(new, label, 0)
    ce = (-z.log_softmax(1).gather(1, safe_label[:, None])[:, 0] * new).sum() / label.numel()
    ali = (z.logsumexp(1) - (p_teacher * z[:, :OLD]).sum(1))[unlabelled].mean()
    kd = (-(p_teacher * z[:, :OLD].log_softmax(1)).sum(1) / OLD)[~unlabelled].mean()
    expected = ce + ali_weight * ali + kd_weight * kd
    terms = same_loss_and_gradient(batch, "alife", step, settings, expected)
    for term, value in {"ce": ce, "ali": ali, "kd": kd}.items():
        torch.testing.assert_close(terms[term], value.detach(), rtol=1e-10, atol=0)


def unbiased_terms(student, teacher, label, align_corners, alpha=1.0):
    """MiB's CCE and CKD, means over all pixels of a label without 255."""
    log_p = enlarged(student, align_corners).log_softmax(1)
    p_teacher = (alpha * enlarged(teacher, align_corners)).softmax(1)
    on_new = -log_p.gather(1, label[:, None])[:, 0]
    cce = torch.where(label == 0, -log_p[:, :OLD].logsumexp(1), on_new).mean()
    log_background = torch.cat([log_p[:, :1], log_p[:, OLD:]], dim=1).logsumexp(1, keepdim=True)
    return cce, -(p_teacher * torch.cat([log_background, log_p[:, 1:OLD]], dim=1)).sum(1).mean() / OLD


@pytest.mark.parametrize("align_corners", [False, True])
def test_alife_with_unbiased_terms(align_corners, batch):
    student, teacher, label = batch
    label = torch.where(label == 255, 0, label)
    settings = MethodSettings(
        loss_weights={"ali": 2.0, "kd": 3.0}, align_corners=align_corners, unbiased_terms=True
    )
    z, p_teacher = enlarged(student, align_corners), enlarged(teacher, align_corners).softmax(1)
    ali = (z.logsumexp(1) - (p_teacher * z[:, :OLD]).sum(1))[label == 0].mean()
    cce, ckd = unbiased_terms(student, teacher, label, align_corners)
    expected = cce + 2.0 * ali + 3.0 * ckd
    same_loss_and_gradient((student, teacher, label), "alife", 1, settings, expected)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("align_corners", [False, True])
def test_mib(align_corners, alpha, batch):
    """255 has become 0 in the labels that MiB asks for, so both terms average over all pixels."""
    student, teacher, label = batch
    label = torch.where(label == 255, 0, label)
    settings = MethodSettings(loss_weights={"ckd": 10.0}, align_corners=align_corners, alpha=alpha)
    cce, ckd = unbiased_terms(student, teacher, label, align_corners, alpha)
    terms = same_loss_and_gradient((student, teacher, label), "mib", 1, settings, cce + 10.0 * ckd)
    for term, value in {"cce": cce, "ckd": ckd}.items():
        torch.testing.assert_close(terms[term], value.detach(), rtol=1e-10, atol=0)


def test_a_missing_weight_is_named(batch):
    with pytest.raises(ConfigError, match="^loss weight 'ali': missing, got none$"):
        get_method("alife").loss(*batch, 1, MethodSettings())
