"""The losses as modules."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

import ciss_fast
from ciss_fast.losses import SigmoidLoss, SoftmaxLoss

OPTIONS = {"ce": 1.0, "ali": 3.0, "kd": 2.0, "align_corners": True, "kd_region": "all", "alpha": 0.5}


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student (a leaf), teacher, label."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 5, 3, 4, generator=generator).requires_grad_()
    teacher = torch.randn(2, 3, 3, 4, generator=generator)
    label = torch.tensor([0, 3, 4, 255])[torch.randint(4, (2, 12, 16), generator=generator)]
    return student, teacher, label


def test_are_public() -> None:
    assert ciss_fast.SoftmaxLoss is SoftmaxLoss and ciss_fast.SigmoidLoss is SigmoidLoss
    assert {"SoftmaxLoss", "SigmoidLoss"} <= set(ciss_fast.__all__)


def test_sigmoid_loss_is_the_same_as_its_function(tensors) -> None:
    student, teacher, label = tensors
    options = {"mbce": 1.0, "kd": 5.0, "ac": 0.5, "pos_weight": 2.0, "align_corners": True}
    total, terms = SigmoidLoss(**options)(student, teacher, label)
    expected_total, expected_terms = ciss_fast.sigmoid_loss(student, teacher, label, **options)
    assert torch.equal(total, expected_total) and terms.keys() == expected_terms.keys() == {"mbce", "kd", "ac"}
    (gradient,) = torch.autograd.grad(total, student)
    assert torch.equal(gradient, torch.autograd.grad(expected_total, student)[0])
    total, _ = SigmoidLoss(mbce=1.0, ac=1.0)(student, None, label)
    assert torch.equal(total, ciss_fast.sigmoid_loss(student, None, label, mbce=1.0, ac=1.0)[0])


def test_same_as_the_function(tensors) -> None:
    student, teacher, label = tensors
    total, terms = SoftmaxLoss(**OPTIONS)(student, teacher, label)
    expected_total, expected_terms = ciss_fast.softmax_loss(student, teacher, label, **OPTIONS)
    assert torch.equal(total, expected_total)
    assert terms.keys() == expected_terms.keys()
    assert all(torch.equal(terms[name], expected_terms[name]) for name in terms)
    (gradient,) = torch.autograd.grad(total, student)
    assert torch.equal(gradient, torch.autograd.grad(expected_total, student)[0])


def test_without_a_teacher(tensors) -> None:
    student, _, label = tensors
    total, _ = SoftmaxLoss(ce=1.0, ce_average="valid")(student, None, label)
    assert torch.equal(total, ciss_fast.softmax_loss(student, None, label, ce=1.0, ce_average="valid")[0])


def test_backend_is_passed_on(tensors) -> None:
    with pytest.raises(ValueError, match="got 'nowhere'"):
        SoftmaxLoss(ce=1.0, backend="nowhere")(*tensors)


@pytest.mark.parametrize(
    ("module", "function"), [(SoftmaxLoss, ciss_fast.softmax_loss), (SigmoidLoss, ciss_fast.sigmoid_loss)]
)
def test_every_option_of_the_function_is_accepted_and_no_other(tensors, module, function) -> None:
    parameters = inspect.signature(function).parameters
    options = {name: p.default for name, p in parameters.items() if name not in ("student", "teacher", "label")}
    loss = module(**options)
    assert repr(loss) == f"{module.__name__}()"
    for name in ("student", "teacher", "label", "self", "temperature"):
        with pytest.raises(TypeError):
            module(**{name: 1.0})
    first = next(iter(options))
    assert repr(module(**{**options, first: 1.0})) == f"{module.__name__}({first}=1.0)"


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="^temperature: expected one of ce, cce, "):
        SoftmaxLoss(ce=1.0, temperature=2.0)
    with pytest.raises(TypeError, match="^ce: expected one of mbce, kd, ac, pos_weight, "):
        SigmoidLoss(ce=1.0)


def test_wrong_value_is_reported_by_the_call(tensors) -> None:
    with pytest.raises(ValueError, match="^alpha: "):
        SoftmaxLoss(ce=1.0, alpha=-1.0)(*tensors)


def test_representation_shows_what_differs_from_the_defaults() -> None:
    assert repr(SoftmaxLoss(kd=1.0, ce=1.0, align_corners=False, alpha=0.5)) == (
        "SoftmaxLoss(ce=1.0, kd=1.0, alpha=0.5)"
    )
    assert repr(SoftmaxLoss(cce=1.0, cce_average="all", ckd=10.0, old_classes=16)) == (
        "SoftmaxLoss(cce=1.0, ckd=10.0, old_classes=16, cce_average='all')"
    )
    assert repr(SigmoidLoss(ac=1.0, pos_weight=35.0, kd=0.0)) == "SigmoidLoss(ac=1.0, pos_weight=35.0)"


def test_representation_makes_the_same_module(tensors) -> None:
    module = SoftmaxLoss(**OPTIONS)
    again = eval(repr(module), {"SoftmaxLoss": SoftmaxLoss})
    assert torch.equal(again(*tensors)[0], module(*tensors)[0])


def test_weights_may_change_between_calls(tensors) -> None:
    student, teacher, label = tensors
    module = SoftmaxLoss(**OPTIONS)
    module.options["ali"] = 0.5
    expected, _ = ciss_fast.softmax_loss(student, teacher, label, **{**OPTIONS, "ali": 0.5})
    assert torch.equal(module(student, teacher, label)[0], expected)
    assert OPTIONS["ali"] == 3.0


def test_nothing_to_train_or_to_save() -> None:
    module = SoftmaxLoss(ce=1.0)
    assert not list(module.parameters()) and not module.state_dict()


def test_copies(tensors) -> None:
    module = SoftmaxLoss(**OPTIONS)
    expected = module(*tensors)[0]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(*tensors)[0], expected)


def test_inside_torch_compile(tensors) -> None:
    student, teacher, label = tensors
    torch._dynamo.reset()
    module = SoftmaxLoss(**OPTIONS)
    total, _ = torch.compile(module, backend="aot_eager", fullgraph=True)(student, teacher, label)
    expected, _ = module(student, teacher, label)
    assert torch.equal(total, expected)
    (gradient,) = torch.autograd.grad(total, student)
    assert torch.equal(gradient, torch.autograd.grad(expected, student)[0])
