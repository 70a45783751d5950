import numpy as np
import pytest
import torch

from ciss_fast.data import Task
from ciss_fast.engine.config import Config
from ciss_fast.engine.effective_config import method_settings
from ciss_fast.engine.evaluate import confusion_matrix, predict_images
from ciss_fast.engine.plan import choose_previews, make_plan
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.scoring import run_tests
from ciss_fast.engine.seeding import step_seed
from ciss_fast.methods import get_method
from ciss_fast.models import SegmentationOutput


class SevenAverages(torch.nn.Module):
    """Seven logits a pixel at 1/8 of the image, from local averages of its colours."""

    num_classes = 7

    def forward(self, images):
        means = torch.nn.functional.avg_pool2d(images, 8)
        logits = torch.cat([means, -means, means[:, :1].abs()], dim=1)
        return SegmentationOutput(logits, logits, weight=None)


def settings_of(method: str, **settings: object):
    return method_settings(Config().with_settings(settings), get_method(method))


def test_published_loss_weights_by_default():
    settings = settings_of("alife", dataset="voc", task="15-1")
    assert settings.loss_weights == {"ali": [3, 5, 2, 3, 2], "kd": [1, 10, 1, 10, 1]}
    assert settings.published
    assert settings_of("alife", dataset="voc", task="15-1", loss_weight={"ali": [3, 5, 2, 3, 2]}).published
    assert not settings_of("alife", dataset="voc", task="15-1", loss_weight={"ali": [3, 5, 2, 3, 1]}).published


def test_given_loss_weights_win_and_those_of_other_methods_are_left_out():
    settings = settings_of("alife", dataset="voc", task="15-5", loss_weight={"kd": 7, "ckd": 3})
    assert settings.loss_weights == {"ali": 2, "kd": 7}
    assert not settings.published
    assert settings_of("mib", dataset="voc", task="15-5", loss_weight={"kd": 7, "ckd": 3}).loss_weights == {"ckd": 3}
    assert settings_of("ft", loss_weight={"ckd": 3}).loss_weights == {}


def test_effective_configuration_names_method_and_weights(tiny_config):
    plan = make_plan(tiny_config(method="FT"), Reporter(quiet=True))
    assert (plan.config.method.method, plan.config.method.loss_weight) == ("fine-tuning", {})
    plan = make_plan(tiny_config(method="mib"), Reporter(quiet=True))
    assert plan.config.method.loss_weight == {"ckd": 10.0}


def test_mib_trains_on_ignored_pixels_as_background(tiny_config):
    labels = {}
    for method in ("mib", "alife"):
        plan = make_plan(tiny_config(method=method, flip=False), Reporter(quiet=True))
        labels[method] = np.concatenate([label.numpy() for _, label in plan.training_batches(1)])
    assert 255 in labels["alife"] and 255 not in labels["mib"]
    np.testing.assert_array_equal(np.where(labels["alife"] == 255, 0, labels["alife"]), labels["mib"])


def test_settings_reach_method_transform_and_selection(tiny_config):
    def plan(**settings):
        return make_plan(tiny_config(**settings), Reporter(quiet=True))

    assert [plan(align_corners=flag).settings.align_corners for flag in (False, True)] == [False, True]
    transform = plan(flip=False, scale_min=0.25, scale_max=0.75).training_batches(0).loader.dataset.transform
    assert (transform.crop.size, transform.crop.scale, transform.flip.probability) == (32, (0.25, 0.75), 0)
    assert plan().training_batches(0).loader.dataset.transform.flip.probability == 0.5
    images = {setting: plan(setting=setting).training_images for setting in ("overlapped", "disjoint")}
    assert len(images["disjoint"][0]) < len(images["overlapped"][0])
    assert len(images["disjoint"][2]) == len(images["overlapped"][2])


@pytest.mark.parametrize("align_corners", [False, True])
def test_test_scores_enlarge_as_configured(tiny_config, align_corners):
    plan = make_plan(tiny_config(align_corners=align_corners), Reporter(quiet=True))
    model = SevenAverages()
    cpu = Precision(torch.device("cpu"), None, channels_last=False)
    counts, previews = run_tests(plan, 0, model, cpu, Reporter(quiet=True))
    right, wrong = (
        confusion_matrix(model, plan.test_batches(0), 7, cpu, align_corners=flag)
        for flag in (align_corners, not align_corners)
    )
    assert (counts == right).all() and (counts != wrong).any()
    for (image, _), preview in zip(plan.previews(0), previews, strict=True):
        (expected,) = predict_images(model, [image], cpu, align_corners=align_corners)
        assert (preview == expected).all()  # without a class order a channel is its class


def test_unseen_classes_are_background_or_ignored(tiny_config):
    seen = {}
    for unseen in ("background", "ignore"):
        plan = make_plan(tiny_config(unseen=unseen), Reporter(quiet=True))
        seen[unseen] = np.concatenate([label.numpy().ravel() for _, label in plan.test_batches(0)])
    assert seen["background"].shape == seen["ignore"].shape
    changed = seen["background"] != seen["ignore"]
    assert changed.any()
    assert set(seen["background"][changed]) == {0} and set(seen["ignore"][changed]) == {255}


def test_previews_take_turns_over_the_steps():
    task = Task.parse("2-1", num_classes=5)
    #                   bg 1 2 3 4
    presence = np.array([
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 0, 0, 1],
    ], dtype=bool)  # fmt: skip
    assert choose_previews(presence, task, 4) == [1, 3, 4, 0]
    assert choose_previews(presence, task, 0) == []
    assert sorted(choose_previews(presence, task, 9)) == [0, 1, 2, 3, 4]


def test_step_seeds_differ_and_stay():
    seeds = [step_seed(seed, step) for seed in range(10) for step in range(10)]
    assert len(set(seeds)) == 100 and all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(0, 1) == step_seed(0, 1)


@pytest.mark.parametrize("method", ["alife", "joint"])
def test_every_step_has_training_and_test_images(tiny_config, method):
    plan = make_plan(tiny_config(method=method), Reporter(quiet=True))
    assert len(plan.training_images) == len(plan.test_images) == plan.num_steps == (1 if method == "joint" else 3)
    assert all(len(images) for images in plan.training_images)


@pytest.mark.parametrize("own", [None, "all"])
def test_later_steps_may_have_their_own_learning_rate_multipliers_and_frozen_batch_norms(tiny_config, own):
    plan = make_plan(
        tiny_config(backbone_lr_multiplier=0.5, head_lr_multiplier=2, later_backbone_lr_multiplier=0.1,
                    old_classifiers_lr_multiplier=0, freeze_batch_norm="backbone", later_freeze_batch_norm=own),
        Reporter(quiet=True),
    )  # fmt: skip
    base, later = plan.settings_at(0), plan.settings_at(2)
    assert (base.backbone_lr_multiplier, later.backbone_lr_multiplier) == (0.5, 0.1)
    assert (base.head_lr_multiplier, later.head_lr_multiplier) == (2, 2)
    assert later.old_classifiers_lr_multiplier == 0
    assert (base.freeze_batch_norm, later.freeze_batch_norm) == ("backbone", own or "backbone")
