"""The loss of the rotations, what fitting finds, and the rotated memory."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import ciss_fast
from ciss_fast.memory.rotation_fit import (
    TEMPERATURE,
    batch_prototypes,
    initial_rotations,
    positions,
    rotate_memory,
    rotation_optimiser,
)


def golden(shared_file, name):
    with np.load(shared_file(f"golden/{name}.npz")) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


@pytest.mark.parametrize("name", ["cayley_small", "cayley_256_init"])
def test_golden_loss_gradient_and_rotated_memory(shared_file, name):
    values = golden(shared_file, name)
    assert values["temp"] == TEMPERATURE
    params = values["params"].requires_grad_()
    # Feature maps of 2 images, 4 x 5 positions each, in the order of the golden positions.
    maps = [values[f"feature_{kind}"].view(2, 4, 5, -1).permute(0, 3, 1, 2) for kind in ("prev", "curr")]
    prototypes = batch_prototypes(*maps, values["memory"])
    for name, found in zip(("prev", "curr"), prototypes, strict=True):
        expected = values[f"proto_{name}"]
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    classifier = values["cls_weight"], values["cls_bias"]
    loss, terms = ciss_fast.rotation_loss(params, *prototypes, *classifier, values["lam"].item())
    loss.mul(3).backward()
    assert loss.item() == pytest.approx(values["loss_total"].item(), rel=1e-5)
    assert terms["fid"].item() == pytest.approx(values["loss_fid"].item(), rel=1e-5)
    assert terms["reg"].item() == pytest.approx(values["loss_reg"].item(), rel=1e-5)
    gradient = values["grad_params"]
    assert (params.grad / 3 - gradient).abs().max() <= 1e-5 * gradient.abs().max()
    rotated = rotate_memory(params, values["memory"])
    assert not rotated.requires_grad
    assert (rotated - values["memory_rotated"]).abs().max() <= 1e-5 * values["memory_rotated"].abs().max()


def test_positions_are_the_rows_of_the_map():
    maps = torch.randn(2, 5, 3, 4)
    rows = positions(maps)
    assert rows.shape == (24, 5)
    assert torch.equal(rows[1 * 12 + 2 * 4 + 3], maps[1, :, 2, 3])
    last = maps.contiguous(memory_format=torch.channels_last)
    assert torch.equal(positions(last), rows) and positions(last).data_ptr() == last.data_ptr()


def random_maps(images=5, dimension=6):
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(images, dimension, 3, 2, generator=generator) for _ in range(2)]
    memory = torch.randn(3, 4, dimension, generator=generator)
    classifier = torch.randn(5, dimension, generator=generator), torch.randn(5, generator=generator)
    return initial_rotations(3, dimension, generator), maps, memory, classifier


def test_a_large_batch_is_the_mean_of_even_groups():
    params, maps, memory, classifier = random_maps(images=5)
    prototypes = batch_prototypes(*maps, memory, group_size=2)
    assert [tensor.shape for tensor in prototypes] == [(3, 3, 6)] * 2
    loss, terms = ciss_fast.rotation_loss(params, *prototypes, *classifier, 0.9)
    parts = []
    for number, images in enumerate((slice(0, 2), slice(2, 4), slice(4, 5))):
        single = batch_prototypes(maps[0][images], maps[1][images], memory)
        assert all(torch.equal(one, many[:, number]) for one, many in zip(single, prototypes, strict=True))
        parts.append(ciss_fast.rotation_loss(params, *single, *classifier, 0.9))
    assert loss.item() == pytest.approx(sum(part.item() for part, _ in parts) / 3, rel=1e-6)
    for name in ("fid", "reg"):
        assert terms[name].item() == pytest.approx(sum(part[name].item() for _, part in parts) / 3, rel=1e-6)
    assert not torch.allclose(batch_prototypes(*maps, memory, group_size=5)[0], prototypes[0].mean(dim=1), rtol=1e-3)


def test_loss_is_the_weighted_sum_of_its_terms():
    params, _, memory, classifier = random_maps()
    for weight in (0.0, 0.95, 1.0):
        loss, terms = ciss_fast.rotation_loss(params, memory[:, 0], memory[:, 1], *classifier, weight)
        assert loss.item() == pytest.approx(weight * terms["fid"].item() + (1 - weight) * terms["reg"].item(), rel=1e-6)


def test_starting_rotations():
    params = initial_rotations(20, 32, torch.Generator().manual_seed(3))
    bound = 1 / math.sqrt(32 * 31 / 2)
    assert params.shape == (20, 32 * 31 // 2)
    assert params.abs().max() <= bound and params.abs().max() > 0.99 * bound
    assert abs(params.mean()) < 0.05 * bound and params.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert torch.equal(params, initial_rotations(20, 32, torch.Generator().manual_seed(3)))
    with pytest.raises(ValueError, match="^dimension: a rotation needs at least 2, got 1$"):
        initial_rotations(20, 1)


def test_the_optimiser_is_adam_with_its_own_weight_decay():
    """Against plain Adam, written out: the decay is part of the gradient."""
    start = torch.linspace(-1, 1, 7)
    params, gradient = start.clone().requires_grad_(), torch.linspace(2, -3, 7)
    optimiser = rotation_optimiser(params, 1e-2, 1e-1)
    assert type(optimiser) is torch.optim.Adam and optimiser.param_groups[0]["fused"]
    expected, mean, square = start.double(), torch.zeros(7).double(), torch.zeros(7).double()
    for count in (1, 2, 3):
        params.grad = gradient.clone()
        optimiser.step()
        full = gradient + 1e-1 * expected
        mean, square = 0.9 * mean + 0.1 * full, 0.999 * square + 0.001 * full**2
        expected = expected - 1e-2 * (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
    assert (params.detach() - expected).abs().max() < 1e-6


def spaces(dimension=16, classes=5, seed=0):
    """A previous and a current feature space that differ by one rotation a class, and a memory in the previous."""
    generator = torch.Generator().manual_seed(seed)
    truth = initial_rotations(classes, dimension, generator) * 8
    centres = 3 * torch.randn(classes, dimension, generator=generator)
    return truth, centres, generator


def test_fitting_recovers_known_rotations():
    """Prototypes that one rotation a class takes to each other: the fit finds where that takes them."""
    truth, centres, generator = spaces()
    weight = torch.randn(7, 16, generator=generator)
    params = initial_rotations(5, 16, generator).requires_grad_()
    optimiser = rotation_optimiser(params, 1e-2, 0.0)
    losses = []
    for _ in range(400):
        previous = centres + 0.1 * torch.randn(5, 16, generator=generator)
        centred = previous - previous.mean(dim=0)
        current = ciss_fast.cayley_rotate(truth, centred)
        current = current - current.mean(dim=0)
        # What a class is rotated to must itself be centred: take out the mean before and after.
        loss, terms = ciss_fast.rotation_loss(params, previous, current, weight, torch.zeros(7), 1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(terms["fid"].item())
    assert losses[0] > 0.1 and losses[-1] < 0.05 * losses[0]
    unseen = centres + 0.1 * torch.randn(5, 16, generator=generator)
    centred = unseen - unseen.mean(dim=0)
    wanted = ciss_fast.cayley_rotate(truth, centred)
    wanted = wanted - wanted.mean(dim=0)
    found = ciss_fast.cayley_rotate(params.detach(), centred)
    assert functional.cosine_similarity(found, wanted).min() > 0.97


@pytest.mark.parametrize("scale", [1.0, 50.0, 2000.0])
def test_rotating_keeps_lengths_and_angles(scale):
    generator = torch.Generator().manual_seed(0)
    params = initial_rotations(3, 24, generator) * scale
    memory = torch.randn(3, 10, 24, generator=generator)
    rotated = rotate_memory(params, memory)
    products = [(entry.double() @ entry.double().transpose(1, 2)) for entry in (memory, rotated)]
    assert (products[0] - products[1]).abs().max() < 1e-4
    dense = rotate_memory(params, torch.eye(24).expand(3, 24, 24)).double()  # row s is R e_s
    assert (dense @ dense.transpose(1, 2) - torch.eye(24)).abs().max() < 1e-5
    assert (rotated - memory).abs().max() > 0.1
