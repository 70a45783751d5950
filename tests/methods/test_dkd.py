"""DKD's loss against its formulas, golden values and direct calls; what its training moves, and how fast."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import ciss_fast
from ciss_fast.errors import ConfigError
from ciss_fast.methods import MethodSettings, default_settings, get_method
from ciss_fast.models import SegmentationModel, SegmentationOutput

OLD, NEW, DEPTH = 3, 2, 6
SIZE = (20, 17)
WEIGHTS = {"kd": [2.0, 3.0], "dkd_pos": [5.0, 0.5], "dkd_neg": [7.0, 0.25], "ac": [1.0, 4.0]}


def output(generator, classes):
    """A network's output with channel 0 and ``classes``, float64."""
    features = torch.rand(2, DEPTH, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(1 + classes, DEPTH, generator=generator, dtype=torch.float64).requires_grad_()
    logits = torch.randn(2, 1 + classes, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    return SegmentationOutput(logits, features, weight)


@pytest.fixture
def batch():
    """Outputs of student and teacher; labels 0 (unlabelled), 4 and 5 (new), 255 (ignored)."""
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([0, 0, 0, 4, 5, 255])
    label = values[torch.randint(len(values), (2, *SIZE), generator=generator)]
    return output(generator, OLD + NEW), output(generator, OLD), label


def enlarged(logits, align_corners):
    return functional.interpolate(logits, SIZE, mode="bilinear", align_corners=align_corners)


def cross_entropy(logits, target, pos_weight=None):
    """Mean over images and pixels, sum over classes (dimension 1)."""
    loss = functional.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=pos_weight
    )
    return loss.mean(dim=(0, 2, 3)).sum()


def mbce(logits, label, first, pos_weight, align_corners):
    z = enlarged(logits[:, first:], align_corners)
    one_hot = torch.stack([label == channel for channel in range(first, logits.shape[1])], dim=1)
    return cross_entropy(z, one_hot.double(), torch.tensor(pos_weight, dtype=torch.float64))


def formulas(student, teacher, label, pos_weight, align_corners):
    """Every term of a later step."""

    def score(out, side):
        return torch.einsum("bdhw,cd->bchw", out.features, side(out.weight[1 : 1 + OLD], 0))

    z, z_old = (enlarged(out.logits, align_corners) for out in (student, teacher))
    terms = {
        "mbce": mbce(student.logits, label, 1 + OLD, pos_weight, align_corners),
        "kd": cross_entropy(z[:, 1 : 1 + OLD], z_old[:, 1:].detach().sigmoid()),
        "ac": cross_entropy(z[:, :1], torch.zeros_like(z[:, :1])),
    }
    for name, side in (("dkd_pos", torch.Tensor.clamp_min), ("dkd_neg", torch.Tensor.clamp_max)):
        terms[name] = cross_entropy(score(student, side), score(teacher, side).detach().sigmoid())
    return terms


def same_gradients(total, expected, student):
    ours, theirs = (torch.autograd.grad(one, student, allow_unused=True) for one in (total, expected))
    for our, their in zip(ours, theirs, strict=True):
        if their is None:
            assert our is None
        else:
            torch.testing.assert_close(our, their, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
def test_base_step(align_corners, batch):
    """mBCE of all classes, old labels none, and AC with weight 1 whatever the later steps' is."""
    student, _, label = batch
    label = torch.where(label == 5, 1, label)
    settings = MethodSettings(
        loss_weights=WEIGHTS, pos_weight_base=2.0, pos_weight_later=9.0, align_corners=align_corners
    )
    total, terms = get_method("dkd").loss(student, None, label, 0, settings)
    z = enlarged(student.logits, align_corners)
    expected = {
        "mbce": mbce(student.logits, label, 1, 2.0, align_corners),
        "ac": cross_entropy(z[:, :1], torch.zeros_like(z[:, :1])),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(total, sum(expected.values()), rtol=1e-10, atol=0)
    same_gradients(total, sum(expected.values()), student)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("name", ["dkd", "dkd-m"])
def test_later_steps(name, step, align_corners, batch):
    student, teacher, label = batch
    settings = MethodSettings(
        loss_weights=WEIGHTS, pos_weight_base=9.0, pos_weight_later=2.0, align_corners=align_corners
    )
    total, terms = get_method(name).loss(student, teacher, label, step, settings)
    expected = formulas(student, teacher, label, 2.0, align_corners)
    assert terms.keys() == expected.keys()
    for term, value in expected.items():
        torch.testing.assert_close(terms[term], value.detach(), rtol=1e-10, atol=0)
        assert not terms[term].requires_grad
    weights = {"mbce": 1.0, **{term: WEIGHTS[term][step - 1] for term in WEIGHTS}}
    weighted = sum(weights[term] * value for term, value in expected.items())
    torch.testing.assert_close(total, weighted, rtol=1e-10, atol=0)
    same_gradients(total, weighted, student)
    assert all(gradient is None for gradient in torch.autograd.grad(total, teacher, allow_unused=True))


def test_terms_are_those_of_the_operators(batch):
    """Bit for bit what direct calls give; the auxiliary row of the weights has no part in reasoning."""
    student, teacher, label = batch
    settings = default_settings("dkd", "voc", "15-5")
    total, terms = get_method("dkd").loss(student, teacher, label, 1, settings)
    sigmoid, sigmoid_terms = ciss_fast.sigmoid_loss(
        student.logits, teacher.logits, label, mbce=1.0, kd=5.0, ac=1.0, pos_weight=1.0, align_corners=False
    )
    rows = slice(1, 1 + OLD)
    reasoning, reasoning_terms = ciss_fast.reasoning_loss(
        student.features, student.weight[rows], teacher.features, teacher.weight[rows], pos=5.0, neg=5.0
    )
    assert torch.equal(total, sigmoid + reasoning)
    expected = {**sigmoid_terms, "dkd_pos": reasoning_terms["pos"], "dkd_neg": reasoning_terms["neg"]}
    assert terms.keys() == expected.keys()
    assert all(torch.equal(terms[name], expected[name]) for name in expected)
    (gradient,) = torch.autograd.grad(total, student.weight)
    assert not gradient[0].any() and not gradient[1 + OLD :].any()
    assert gradient[rows].any(dim=1).all()


def test_network_in_bfloat16(model_at):
    """Under autocast features and logits come in bfloat16 and the classifiers in float32: the terms are those of
    these numbers in double precision, and every parameter gets a gradient.
    """
    model, method = model_at("dkd", 0), get_method("dkd")
    settings = default_settings("dkd", "voc", "15-5")
    measure_statistics(model)
    teacher = model.frozen_copy()
    method.prepare_step(model, 1, 2, settings)
    with torch.no_grad():  # so that student and teacher differ
        model.classifiers[0].weight.mul_(1.5)
    method.set_train_mode(model, 1, settings)
    images = torch.randn(2, 3, 48, 48)
    label = torch.tensor([0, 4, 5, 255])[torch.randint(4, (2, 48, 48))]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images), teacher(images)
    for output in outputs:
        assert output.features.dtype == output.logits.dtype == torch.bfloat16
        assert output.weight.dtype == torch.float32
    total, terms = method.loss(*outputs, label, 1, settings)
    total.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    exact = [SegmentationOutput(*(entry.detach().double() for entry in output)) for output in outputs]
    _, expected = method.loss(*exact, label, 1, settings)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].double(), value, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"kd": 5.0, "dkd_pos": 0.0, "dkd_neg": 0.0, "ac": 0.0}, {"mbce", "kd"}),
        ({"kd": 0.0, "dkd_pos": 5.0, "dkd_neg": 0.0, "ac": 0.0}, {"mbce", "dkd_pos"}),
        ({"kd": 5.0, "dkd_pos": 0.0, "dkd_neg": 5.0, "ac": 0.0}, {"mbce", "kd", "dkd_neg"}),
        ({"kd": 5.0, "dkd_pos": 5.0, "dkd_neg": 5.0, "ac": 0.0}, {"mbce", "kd", "dkd_pos", "dkd_neg"}),
        ({"kd": 0.0, "dkd_pos": 0.0, "dkd_neg": 0.0, "ac": 0.0}, {"mbce"}),
    ],
)
def test_a_weight_of_zero_switches_a_term_off(weights, names, batch):
    student, teacher, label = batch
    settings = MethodSettings(loss_weights=weights, align_corners=False)
    total, terms = get_method("dkd").loss(student, teacher, label, 1, settings)
    expected = formulas(student, teacher, label, 1.0, False)
    assert terms.keys() == names
    weighted = sum({"mbce": 1.0, **weights}[name] * expected[name] for name in names)
    torch.testing.assert_close(total, weighted, rtol=1e-10, atol=0)
    gradients = torch.autograd.grad(total, student, allow_unused=True, materialize_grads=True)
    reference = torch.autograd.grad(weighted, student, allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_a_missing_weight_is_named(batch):
    with pytest.raises(ConfigError, match="^loss weight 'kd': missing, got none$"):
        get_method("dkd").loss(*batch, 1, MethodSettings())


class GivenFeatures(nn.Module):
    """In place of backbone, ASPP and head: features that are parameters."""

    def __init__(self, features):
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, images):
        return self.features


def golden_model(data, features, classifiers, prefix=""):
    """The model whose features and classifiers a golden file gives; ``classifiers``: rows of each."""
    model = SegmentationModel(
        nn.Identity(), nn.Identity(), GivenFeatures(features), features.shape[1], auxiliary_classifier=True
    )
    model.add_classifier(1 + classifiers[0])
    for rows in classifiers[1:]:
        model.add_classifier(rows)
    weight, bias = (torch.from_numpy(data[f"{kind}{prefix}"]).double() for kind in ("weight", "bias"))
    with torch.no_grad():
        for part, rows, shift in zip(
            model.classifiers, weight.split(classifiers), bias.split(classifiers), strict=True
        ):
            part.weight.copy_(rows[:, :, None, None])
            part.bias.copy_(shift)
        model.auxiliary.weight.copy_(torch.from_numpy(data["weight_aux"])[:, :, None, None])
        model.auxiliary.bias.copy_(torch.from_numpy(data["bias_aux"]))
    return model


@pytest.mark.parametrize("name", ["dkd_small", "dkd_ade"])
def test_golden(name, shared_file):
    """Model and method together give the reference's losses and the gradient on every parameter."""
    data = np.load(shared_file(f"golden/{name}.npz"))
    old, new = int(data["n_old"]), int(data["n_new"])
    student = golden_model(data, torch.from_numpy(data["feature"]).double(), [old, new])
    teacher = golden_model(data, torch.from_numpy(data["feature_old"]).double(), [old], "_old").frozen_copy()
    settings = MethodSettings(
        loss_weights=default_settings("dkd", "voc", "15-5").loss_weights,
        pos_weight_later=float(data["pos_weight"]),
        align_corners=False,
    )
    images = torch.empty(data["feature"].shape[0], 3, 1, 1)
    label = torch.from_numpy(data["label"])
    total, terms = get_method("dkd").loss(student(images), teacher(images), label, 1, settings)
    total.backward()

    for term in ("mbce", "kd", "ac", "dkd_pos", "dkd_neg"):
        np.testing.assert_allclose(float(terms[term]), data[f"loss_{term}"], rtol=1e-6)
    np.testing.assert_allclose(total.item(), data["loss_total"], rtol=1e-6)
    gradients = {
        "feature": student.head.features.grad,
        "weight": torch.cat([part.weight.grad for part in student.classifiers]).flatten(1),
        "bias": torch.cat([part.bias.grad for part in student.classifiers]),
        "weight_aux": student.auxiliary.weight.grad.flatten(1),
        "bias_aux": student.auxiliary.bias.grad,
    }
    for key, gradient in gradients.items():
        expected = data[f"grad_{key}"]
        np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def measure_statistics(model):
    """Running statistics as after a base step: without them the signal of random weights dies out."""
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(4)))


def trained(model, step, settings, iterations=3):
    """A few iterations of a later step as the trainer does them; the state before and after."""
    method = get_method("dkd")
    measure_statistics(model)
    teacher = model.frozen_copy()
    method.prepare_step(model, step, 2, settings)
    method.set_train_mode(model, step, settings)
    groups = method.parameter_groups(model, step, settings, 0.01)
    optimiser = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=1e-4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(5)
    for _ in range(iterations):
        images = torch.randn(2, 3, 48, 48, generator=generator)
        values = torch.tensor([0, 255, *range(teacher.num_classes, model.num_classes)])
        label = values[torch.randint(len(values), (2, 48, 48), generator=generator)]
        loss, _ = method.loss(model(images), teacher(images), label, step, settings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return before, model.state_dict()


def test_training_keeps_the_bits_of_frozen_batch_norms(model_at):
    """At a later step statistics and affine values stay, everything else moves, the auxiliary part too."""
    model = model_at("dkd", 0)
    settings = default_settings("dkd", "voc", "15-5")
    before, after = trained(model, 1, settings)
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert len(norms) == 52 + 6 + 1  # MobileNetV2, ASPP with its projection, head
    for key, value in after.items():
        stays = key.rpartition(".")[0] in norms
        assert torch.equal(value, before[key]) == stays, f"{key} should {'stay' if stays else 'move'}"


def test_without_ac_the_auxiliary_classifier_keeps_its_bits(model_at):
    model = model_at("dkd", 0)
    weights = {"kd": 5.0, "dkd_pos": 5.0, "dkd_neg": 5.0, "ac": 0.0}
    before, after = trained(model, 1, MethodSettings(loss_weights=weights))
    stays = {key for key in after if torch.equal(after[key], before[key]) and "running" not in key}
    assert {"auxiliary.weight", "auxiliary.bias"} <= stays
    assert "classifiers.0.weight" not in stays and "classifiers.1.weight" not in stays


def test_ac_alone_teaches_nothing_but_the_auxiliary_classifier(model_at):
    """Through the operator: with AC as the only term no other parameter gets a gradient that is not 0."""
    model = model_at("dkd", 1).train()
    label = torch.zeros(2, 48, 48, dtype=torch.int64)
    total, _ = ciss_fast.sigmoid_loss(model(torch.randn(2, 3, 48, 48)).logits, None, label, ac=1.0)
    total.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"auxiliary.weight", "auxiliary.bias"}


@pytest.mark.parametrize(
    ("given", "published", "softmax"), [(None, 0.01, 0.1), (0.3, 0.3, 0.3)], ids=["published", "given"]
)
def test_momentum_of_the_backbone_batch_norms(given, published, softmax, model_at):
    """0.01 in the backbone, PyTorch's 0.1 elsewhere; running statistics follow it."""
    settings = MethodSettings(
        loss_weights=default_settings("dkd", "voc", "15-5").loss_weights, backbone_batch_norm_momentum=given
    )
    for name, expected in (("dkd", published), ("mib", softmax)):
        model = model_at(name, 0)
        get_method(name).set_train_mode(model, 0, settings)
        for part, momentum in ((model.backbone, expected), (model.aspp, 0.1), (model.head, 0.1)):
            norms = [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
            assert norms and all(norm.momentum == momentum for norm in norms)
        first = next(module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d))
        seen = []
        first.register_forward_hook(lambda module, inputs, _, seen=seen: seen.append(inputs[0]))
        model(torch.randn(2, 3, 48, 48))
        mean = seen[0].detach().mean(dim=(0, 2, 3))
        torch.testing.assert_close(first.running_mean, expected * mean, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["dkd", "dkd-m"])
@pytest.mark.parametrize("step", [0, 2])
def test_groups_as_published(name, step, model_at):
    """Ten times the learning rate but for the backbone; later weight decay for the new classifier only."""
    model, method = model_at(name, step), get_method(name)
    settings = default_settings(name, "voc", "15-1")
    method.set_train_mode(model, step, settings)
    groups = method.parameter_groups(model, step, settings, 0.5)
    optimiser = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True, weight_decay=1e-4)
    rates = [(group["name"], group["lr"], group["weight_decay"]) for group in optimiser.param_groups]
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    members = {group["name"]: {names[id(p)] for p in group["params"]} for group in groups}
    auxiliary = {"auxiliary.weight", "auxiliary.bias"}
    if step == 0:
        assert rates == [("backbone", 0.5, 1e-4), ("head", 5.0, 1e-4), ("new_classifier", 5.0, 1e-4)]
        assert members["new_classifier"] == auxiliary | {"classifiers.0.weight", "classifiers.0.bias"}
        assert "head.1.weight" in members["head"]
    else:
        assert rates == [
            ("backbone", 0.5, 0.0),
            ("head", 5.0, 0.0),
            ("old_classifiers", 5.0, 0.0),
            ("new_classifier", 5.0, 1e-4),
        ]
        old = {f"classifiers.{number}.{kind}" for number in (0, 1) for kind in ("weight", "bias")}
        assert members["old_classifiers"] == auxiliary | old
        assert members["new_classifier"] == {"classifiers.2.weight", "classifiers.2.bias"}
        assert members["head"] == {key for key in names.values() if key.startswith(("aspp", "head.0"))} - {
            key for key in names.values() if is_norm(model, key)
        }


def is_norm(model, key):
    return isinstance(model.get_submodule(key.rpartition(".")[0]), nn.BatchNorm2d)


def test_recipe_values_take_the_place_of_published_ones(model_at):
    model, method = model_at("dkd", 1), get_method("dkd")
    settings = MethodSettings(head_lr_multiplier=2.0, new_classifier_lr_multiplier=3.0, weight_decay_exemptions=False)
    method.set_train_mode(model, 1, settings)
    groups = method.parameter_groups(model, 1, settings, 1.0)
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("backbone", 1.0),
        ("head", 2.0),
        ("old_classifiers", 10.0),
        ("new_classifier", 3.0),
    ]
    assert not any("weight_decay" in group for group in groups)
