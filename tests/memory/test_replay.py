"""Training classifiers on memorised features."""

import pytest
import torch
from torch.nn import functional

from ciss_fast.memory import replay
from ciss_fast.memory.replay import joint_classifier, memory_cross_entropy, train_classifiers_only
from ciss_fast.models import build_model


def inputs(classes=4, per_class=5, dimension=6, outputs=7, dtype=torch.float32):
    torch.manual_seed(0)
    weight = torch.randn(outputs, dimension, dtype=dtype, requires_grad=True)
    bias = torch.randn(outputs, dtype=dtype, requires_grad=True)
    return weight, bias, torch.randn(classes, per_class, dimension, dtype=dtype)


def by_definition(weight, bias, memory):
    label = torch.arange(memory.shape[0]).repeat_interleave(memory.shape[1])
    return functional.cross_entropy(functional.linear(memory.flatten(0, 1), weight, bias), label)


@pytest.mark.parametrize(
    "shape", [{}, {"classes": 1, "outputs": 1}, {"classes": 7}, {"classes": 3, "per_class": 2000, "outputs": 150}]
)
def test_equals_cross_entropy_of_all_features(shape):
    weight, bias, memory = inputs(**shape)
    loss = memory_cross_entropy(weight, bias, memory)
    loss.mul(-2.5).backward()  # an upstream gradient other than 1
    exact = [tensor.detach().double().requires_grad_() for tensor in (weight, bias)]
    expected = by_definition(*exact, memory.double())
    expected.mul(-2.5).backward()
    assert loss.dtype == torch.float32 and abs(loss.item() - expected.item()) <= 1e-6 * abs(expected.item()) + 1e-7
    for tensor, reference in zip((weight, bias), exact, strict=True):
        assert (tensor.grad - reference.grad).abs().max() <= 2e-6 * reference.grad.abs().max() + 1e-9


def test_gradcheck(monkeypatch):
    monkeypatch.setattr(replay, "ROWS", 3)  # blocks that end inside a class
    weight, bias, memory = inputs(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w, b: memory_cross_entropy(w, b, memory), (weight, bias))


def test_the_number_of_rows_at_a_time_does_not_matter(monkeypatch):
    weight, bias, memory = inputs(dtype=torch.float64)
    results = []
    for rows in (1, 3, 20, 1000):
        monkeypatch.setattr(replay, "ROWS", rows)
        loss = memory_cross_entropy(weight, bias, memory)
        results.append((loss, *torch.autograd.grad(loss, (weight, bias))))
    for result in results[1:]:
        assert all(torch.allclose(a, b, rtol=1e-13) for a, b in zip(result, results[0], strict=True))


def test_the_logits_never_exist_as_a_whole():
    weight, bias, memory = inputs(classes=40, per_class=1000, dimension=4, outputs=60)
    with torch.profiler.profile(profile_memory=True) as profile:
        memory_cross_entropy(weight, bias, memory)
    allocations = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert 0 < max(allocations) <= replay.ROWS * 60 * 4


def test_nan_and_large_logits():
    weight, bias, memory = inputs()
    with torch.no_grad():
        large = memory_cross_entropy(weight * 1e4, bias, memory)
        assert large.isfinite() and large == pytest.approx(by_definition(weight * 1e4, bias, memory).item(), rel=1e-6)
        memory[1, 2, 3] = float("nan")
        assert memory_cross_entropy(weight, bias, memory).isnan()


def test_no_second_derivative():
    weight, bias, memory = inputs()
    (grad,) = torch.autograd.grad(memory_cross_entropy(weight, bias, memory).square(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_only_classifiers_move_and_nothing_else_changes():
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", 16, [4, 2], head_channels=16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parameters = train_classifiers_only(model.train())
    assert not any(module.training for module in model.modules())
    optimiser = torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for _ in range(2):
        optimiser.zero_grad()
        memory = memory_cross_entropy(*joint_classifier(model), torch.randn(4, 5, 16))
        (model(torch.randn(2, 3, 64, 64)).logits.square().sum() + memory).backward()
        optimiser.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {f"classifiers.{number}.{kind}" for number in (0, 1) for kind in ("weight", "bias")}


def test_joint_classifier_is_what_the_model_computes():
    model = build_model("mobilenet_v2", 16, [4, 2, 3], head_channels=16).eval()
    with torch.no_grad():
        output = model(torch.randn(2, 3, 64, 64))
        weight, bias = joint_classifier(model)
        logits = functional.linear(output.features.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    assert torch.allclose(logits, output.logits, atol=1e-5)
