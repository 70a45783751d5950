import numpy as np
import pytest

from ciss_fast.data import Task
from ciss_fast.engine.config import Config
from ciss_fast.engine.plan import choose_previews, make_plan, method_settings
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.seeding import step_seed
from ciss_fast.methods import get_method


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


def test_later_steps_may_have_their_own_learning_rate_multipliers(tiny_config):
    plan = make_plan(
        tiny_config(backbone_lr_multiplier=0.5, head_lr_multiplier=2, later_backbone_lr_multiplier=0.1,
                    old_classifiers_lr_multiplier=0),
        Reporter(quiet=True),
    )  # fmt: skip
    base, later = plan.settings_at(0), plan.settings_at(2)
    assert (base.backbone_lr_multiplier, later.backbone_lr_multiplier) == (0.5, 0.1)
    assert (base.head_lr_multiplier, later.head_lr_multiplier) == (2, 2)
    assert later.old_classifiers_lr_multiplier == 0
