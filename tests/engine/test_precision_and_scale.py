"""Gradient accumulation, fp16 with loss scaling, torch.compile."""

import pytest
import torch

from ciss_fast.engine import loop, train_step
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.processes import Processes
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.resume import progress_path
from ciss_fast.errors import ConfigError

BASE = {"method": "ft", "task": "joint", "epochs_base": 1, "save_every": 2, "previews": 0}


def weights(run, step=0):
    return load_checkpoint(checkpoint_path(run, step)).model


def losses(run):
    return [entry["loss"] for entry in ResultsFolder(run).read_metrics()["steps"][-1]["loss_log"]]


def largest_difference(run, other, step=0):
    first, second = weights(run, step), weights(other, step)
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


@pytest.mark.parametrize("method", ["ft", pytest.param("dkd", marks=pytest.mark.slow)])
def test_parts_of_a_batch_train_to_what_the_whole_trains_to(tmp_path, tiny_train, method):
    """With frozen batch norms and no dropout, within rounding; the losses of the parts are means over equal areas."""
    settings = {**BASE, "method": method, "freeze_batch_norm": "all", "dropout": 0}
    whole = tiny_train(tmp_path / "whole", **settings)
    start = tiny_train(tmp_path / "start", **settings, lr_base=1e-9)
    run = tiny_train(tmp_path / "parts", **settings, accumulate=3)  # 8 images: 3 + 3 + 2
    assert losses(run) == pytest.approx(losses(whole), rel=1e-4)
    assert largest_difference(run, whole) < 1e-2 * largest_difference(start, whole)


def test_region_means_over_the_whole_batch(tmp_path, tiny_train):
    """ALIFE's ALI and KD: over the parts' own regions it is another loss, over the batch's the same."""
    settings = {"method": "alife", "task": "6-6", "freeze_batch_norm": "all", "dropout": 0, "previews": 0}
    settings |= {"lr_base": 1e-9, "lr_later": 0.05}
    whole = tiny_train(tmp_path / "whole", **settings)
    still = tiny_train(tmp_path / "still", **{**settings, "lr_later": 1e-9})
    moved = largest_difference(whole, still, 1)
    errors = {}
    for means in ("batch", "part"):
        run = tiny_train(tmp_path / means, **settings, accumulate=3, region_means=means)
        errors[means] = largest_difference(run, whole, 1)
        if means == "batch":
            assert losses(run) == pytest.approx(losses(whole), rel=1e-4)
    assert errors["batch"] < 1e-3 * moved and errors["part"] > 10 * errors["batch"]


def test_region_factors():
    labels = [torch.tensor([[[0, 0, 0, 7]]]), torch.tensor([[[0, 255, 7, 7]], [[7, 7, 7, 7]]])]
    first, second = train_step.region_factors(labels, {"ali": "unlabelled", "kd": "not_unlabelled"}, Processes())
    # Shares of the images, 1/3 and 2/3, times factor times mean must be sum / pixels of the batch.
    assert first == pytest.approx({"ali": 3 / 4 * 3, "kd": 1 / 8 * 3})
    assert second == pytest.approx({"ali": 1 / 4 * 3 / 2, "kd": 7 / 8 * 3 / 2})


def test_gradients_of_parts_are_added_before_one_update(tmp_path, tiny_train, monkeypatch):
    calls = []
    update = loop.update

    def watched(optimiser, parts, *others):
        parts = list(parts)
        calls.append(len(parts))
        update(optimiser, parts, *others)

    monkeypatch.setattr(loop, "update", watched)
    tiny_train(tmp_path / "run", **BASE, accumulate=4, freeze_batch_norm="all")
    assert calls == [4] * 5


def test_a_part_too_small_for_its_batch_norms_is_refused(tmp_path, tiny_train):
    with pytest.raises(ConfigError, match="^step 0 with 40 training images: .*at least 2 images a batch in training"):
        tiny_train(tmp_path / "run", **BASE, accumulate=8)
    assert not (tmp_path / "run").exists()


def test_fp16_is_scaled_and_goes_on_with_the_same_bits(tmp_path, tiny_train, monkeypatch):
    scales = []
    update = loop.update

    def watched(optimiser, parts, clip_norm, scaler):
        update(optimiser, parts, clip_norm, scaler)
        scales.append(scaler.get_scale())

    monkeypatch.setattr(loop, "update", watched)
    small = {**BASE, "batch_size": 4, "data_option": {"image_size_px": 32, "train_images": 16, "val_images": 4}}
    settings = {**small, "precision": "fp16", "clip_norm": 5.0}
    whole = tiny_train(tmp_path / "whole", **settings)
    assert all(scale > 1 for scale in scales) and all(loss == loss for loss in losses(whole))
    expected, count = list(scales), len(scales)
    fp32 = tiny_train(tmp_path / "fp32", **small, clip_norm=5.0)
    assert losses(whole) == pytest.approx(losses(fp32), rel=0.1)  # one is the other in coarser arithmetic
    scales.clear()

    def interrupted(*arguments):
        if len(scales) == 3:
            raise KeyboardInterrupt
        watched(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny_train(tmp_path / "run", **settings)
    assert load_checkpoint(progress_path(tmp_path / "run")).progress["state"]["scaler"]["scale"] > 1
    scales.clear()
    tiny_train(tmp_path / "run", **settings)
    assert scales == expected[2:] and len(scales) == count - 2
    assert largest_difference(tmp_path / "run", whole) == 0


def test_an_overflowing_update_is_left_out():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    loop.update(optimiser, [parameter.sum() * float("inf")], None, scaler)
    assert parameter.item() == 1 and scaler.get_scale() == 2
    loop.update(optimiser, [parameter.sum(), parameter.sum()], 1.0, scaler)
    assert parameter.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_compiled_networks_train_to_the_same_weights(tmp_path, tiny_train, monkeypatch):
    """Through the compiler's front end, without generated code."""
    compiled = []

    def compile(network):
        compiled.append(network)
        return original(network, backend="eager")

    original = torch.compile
    monkeypatch.setattr(train_step.torch, "compile", compile)
    settings = {"method": "mib", "task": "6-6", "previews": 0}
    plain = tiny_train(tmp_path / "plain", **settings)
    assert not compiled
    run = tiny_train(tmp_path / "run", **settings, compile=True)
    assert len(compiled) == 3  # the base step's model, the next step's and its teacher
    first, second = weights(run, 1), weights(plain, 1)
    assert all(torch.equal(first[name], second[name]) for name in second)
