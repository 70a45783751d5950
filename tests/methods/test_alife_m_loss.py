"""The loss of ALIFE-M's stage 3 against its formula in float64."""

import pytest
import torch
from torch.nn import functional

from ciss_fast.methods import MethodSettings, get_method

WEIGHTS = {"ali": 2.0, "kd": 1.0, "replay_ali": 3.0, "memory": 20.0}


def inputs():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 6, 4, 4, generator=generator, requires_grad=True)
    teacher = torch.randn(2, 4, 4, 4, generator=generator)
    label = torch.randint(4, 6, (2, 16, 16), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.6] = 0
    label[:, 0] = 255
    classifier = torch.randn(6, 5, generator=generator), torch.randn(6, generator=generator)
    return student, teacher, label, classifier, torch.randn(4, 7, 5, generator=generator)


def by_definition(student, teacher, label, classifier, memory):
    """Focal (gamma 2, pseudo-labels, mean over all pixels), ALI (mean over the unlabelled ones) and memory CE."""
    student, teacher = (
        functional.interpolate(logits.double(), label.shape[-2:], mode="bilinear", align_corners=True)
        for logits in (student, teacher)
    )
    unlabelled, ignored = label == 0, label == 255
    target = torch.where(unlabelled, teacher.argmax(dim=1), label).masked_fill(ignored, 0)
    minus_log = -student.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
    focal = ((1 - (-minus_log).exp()) ** 2 * minus_log).masked_fill(ignored, 0).mean()
    ali = student.logsumexp(dim=1) - (teacher.softmax(dim=1) * student[:, :4]).sum(dim=1)
    logits = functional.linear(memory.double(), *(entry.double() for entry in classifier))
    replayed = functional.cross_entropy(logits.flatten(0, 1), torch.arange(4).repeat_interleave(7))
    return {"focal": focal, "ali": ali[unlabelled].mean(), "memory": replayed}


def test_equals_its_formula():
    student, teacher, label, classifier, memory = inputs()
    classifier = tuple(entry.requires_grad_() for entry in classifier)
    settings = MethodSettings(loss_weights=WEIGHTS)
    total, terms = get_method("alife-m").replay_loss(student, teacher, label, classifier, memory, 1, settings)
    grads = torch.autograd.grad(total * 0.5, (student, *classifier))
    expected = by_definition(student, teacher, label, classifier, memory)
    exact = 0.5 * (expected["focal"] + 3 * expected["ali"] + 20 * expected["memory"])
    assert 0.5 * total.item() == pytest.approx(exact.item(), rel=1e-5)
    for grad, reference in zip(grads, torch.autograd.grad(exact, (student, *classifier)), strict=True):
        assert (grad - reference).abs().max() <= 1e-5 * reference.abs().max()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5) and not terms[name].requires_grad


def test_terms_that_are_switched_off():
    student, teacher, label, classifier, memory = inputs()
    loss = get_method("alife-m").replay_loss
    expected = by_definition(student, teacher, label, classifier, memory)
    cases = {
        ("focal", "ali"): ({}, None),  # no memory
        ("focal", "memory"): ({"replay_ali": 0.0}, memory),
        ("focal",): ({"replay_ali": 0.0, "memory": 0.0}, memory),
    }
    for names, (changes, features) in cases.items():
        settings = MethodSettings(loss_weights={**WEIGHTS, **changes})
        total, terms = loss(student, teacher, label, classifier, features, 1, settings)
        assert {name for name in terms if not name.startswith("pixels_")} == set(names)
        wanted = sum({"focal": 1, "ali": 3, "memory": 20}[name] * expected[name] for name in names)
        assert total.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_weights_are_those_of_the_step():
    student, teacher, label, classifier, memory = inputs()
    settings = MethodSettings(loss_weights={**WEIGHTS, "memory": [1.0, 4.0]})
    loss = get_method("alife-m").replay_loss
    totals = [loss(student, teacher, label, classifier, memory, step, settings)[0].item() for step in (1, 2)]
    memory_term = by_definition(student, teacher, label, classifier, memory)["memory"].item()
    assert totals[1] - totals[0] == pytest.approx(3 * memory_term, rel=1e-5)
