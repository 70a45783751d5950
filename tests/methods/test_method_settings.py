"""The registry, the published settings and what is wrong with others."""

import pytest

from ciss_fast.data.tasks import Task
from ciss_fast.errors import ConfigError
from ciss_fast.methods import (
    ALIFE,
    ALIFEM,
    DKD,
    DKDM,
    FineTuning,
    Joint,
    MethodSettings,
    MiB,
    default_settings,
    get_method,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fine-tuning", FineTuning), ("ft", FineTuning), ("joint", Joint), ("mib", MiB), ("MiB", MiB),
        ("alife", ALIFE), ("ALIFE", ALIFE), ("alife-m", ALIFEM), ("ALIFE-M", ALIFEM), ("dkd", DKD), ("DKD", DKD),
        ("dkd-m", DKDM), ("DKD-M", DKDM),
    ],
)  # fmt: skip
def test_registry(name, kind):
    assert type(get_method(name)) is kind


def test_unknown_method():
    with pytest.raises(ConfigError) as caught:
        get_method("plop")
    known = "fine-tuning, joint, mib, alife, alife-m, dkd, dkd-m, ft"
    assert str(caught.value) == f"method: unknown name 'plop', known: {known}"


@pytest.mark.parametrize(
    ("method", "dataset", "task", "weights"),
    [
        ("mib", "voc", "15-5", {"ckd": 10.0}),
        ("mib", "ade20k", "50-50", {"ckd": 10.0}),
        ("alife", "voc", "19-1", {"ali": 1.0, "kd": 1.0}),
        ("alife", "voc", "15-5", {"ali": 2.0, "kd": 1.0}),
        ("alife", "voc", "15-1", {"ali": [3.0, 5.0, 2.0, 3.0, 2.0], "kd": [1.0, 10.0, 1.0, 10.0, 1.0]}),
        ("alife", "ade20k", "100-50", {"ali": 1.0, "kd": 1.0}),
        ("alife", "ade20k", "100-10", {"ali": 1.0, "kd": 1.0}),
        ("alife", "ade20k", "50-50", {"ali": 1.0, "kd": 20.0}),
        ("fine-tuning", "voc", "15-5", {}),
        ("ft", "voc", "15-5", {}),
        ("joint", "voc", "15-5", {}),
    ],
)
def test_published_weights(method, dataset, task, weights):
    settings = default_settings(method, dataset, task)
    assert settings == MethodSettings(loss_weights=weights, published=True)
    assert settings.align_corners is True
    assert settings.alpha == 1.0


@pytest.mark.parametrize("method", ["dkd", "dkd-m"])
@pytest.mark.parametrize(
    ("dataset", "tasks", "pos_weights"),
    [
        ("voc", ["19-1", "15-5", "15-1", "10-1", "5-3"], (2.0, 1.0)),
        ("ade20k", ["100-50", "100-10", "50-50"], (35.0, 35.0)),
    ],
)
def test_published_settings_of_dkd(method, dataset, tasks, pos_weights):
    for task in tasks:
        assert default_settings(method, dataset, task) == MethodSettings(
            loss_weights={"kd": 5.0, "dkd_pos": 5.0, "dkd_neg": 5.0, "ac": 1.0},
            align_corners=False,
            pos_weight_base=pos_weights[0],
            pos_weight_later=pos_weights[1],
            published=True,
        )
    for dataset_and_task in ((dataset, "100-5"), (dataset, "10-10"), ("shapes", "6-3")):
        assert default_settings(method, *dataset_and_task).published is False
    other = default_settings(method, "shapes", "6-3")
    assert (other.pos_weight_base, other.pos_weight_later) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("dataset", "task", "stage_3", "rotation_weight"),
    [
        ("voc", "19-1", {"replay_ali": 1.0, "memory": 1.0}, 0.95),
        ("voc", "15-5", {"replay_ali": 1.0, "memory": 10.0}, 0.95),
        ("voc", "15-1", {"replay_ali": [3.0, 5.0, 2.0, 3.0, 1.0], "memory": [1.0, 20.0, 1.0, 2.0, 1.0]}, 0.99),
        ("ade20k", "100-50", {"replay_ali": 0.0, "memory": 0.5}, 0.99),
        ("ade20k", "100-10", {"replay_ali": [5.0, 5.0, 2.0, 0.0, 0.0], "memory": [2.0, 1.0, 1.0, 0.1, 0.5]}, 0.99),
        ("ade20k", "50-50", {"replay_ali": [0.0, 0.0], "memory": [0.1, 0.5]}, 0.99),
    ],
)
def test_published_settings_of_alife_m(dataset, task, stage_3, rotation_weight):
    stage_1 = default_settings("alife", dataset, task).loss_weights
    assert default_settings("alife-m", dataset, task) == MethodSettings(
        loss_weights={**stage_1, **stage_3}, rotation_weight=rotation_weight, published=True
    )
    assert "memory" not in stage_1


@pytest.mark.parametrize("dataset", ["voc", "ade20k", "shapes"])
@pytest.mark.parametrize(
    ("method", "task"),
    [
        ("mib", "10-1"),
        ("mib", "5-3"),
        ("alife", "10-10"),
        ("alife", "100-5"),
        ("alife-m", "10-1"),
        ("alife-m", "100-5"),
        ("dkd", "10-5"),
        ("dkd", "10-10"),
        ("dkd-m", "100-5"),
    ],
)
def test_other_tasks_get_marked_defaults_that_fit_any_number_of_steps(method, dataset, task):
    settings = default_settings(method, dataset, task)
    assert settings.published is False
    for num_steps in (1, 2, 11):
        get_method(method).check_settings(settings, num_steps)


def test_loss_weight_of_a_step():
    settings = MethodSettings(loss_weights={"ali": [3.0, 5.0], "kd": 1})
    assert [settings.loss_weight("ali", step) for step in (1, 2)] == [3.0, 5.0]
    assert [settings.loss_weight("kd", step) for step in (1, 2, 30)] == [1.0, 1.0, 1.0]
    for step in (0, 3):
        with pytest.raises(
            ConfigError, match=f"^loss weight 'ali': 2 values, one per later step; none for step {step}$"
        ):
            settings.loss_weight("ali", step)
    with pytest.raises(ConfigError, match="^loss weight 'ckd': missing, got ali, kd$"):
        settings.loss_weight("ckd", 1)


@pytest.mark.parametrize(
    ("method", "weights", "message"),
    [
        ("alife", {"ali": 1.0}, "loss weights of alife: expected ali, kd, got ali"),
        ("mib", {"kd": 1.0}, "loss weights of mib: expected ckd, got kd"),
        ("fine-tuning", {"kd": 1.0}, "loss weights of fine-tuning: expected none, got kd"),
        ("mib", {}, "loss weights of mib: expected ckd, got none"),
        ("mib", {"ckd": [1.0, 2.0]}, "loss weight 'ckd': expected one value or 3, one per later step, got 2"),
    ],
)
def test_weights_that_do_not_fit(method, weights, message):
    with pytest.raises(ConfigError) as caught:
        get_method(method).check_settings(MethodSettings(loss_weights=weights), num_steps=4)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"freeze_batch_norm": "some"},
            "freeze_batch_norm: expected one of published, backbone, backbone_only, all, none, got 'some'",
        ),
        ({"head_lr_multiplier": -1.0}, "head_lr_multiplier: expected a finite number >= 0, got -1.0"),
        (
            {"backbone_lr_multiplier": float("nan")},
            "backbone_lr_multiplier: expected a finite number >= 0, got nan",
        ),
        (
            {"new_classifier_start": "zero"},
            "new_classifier_start: expected one of published, random, got 'zero'",
        ),
        ({"feature_replay": "all"}, "feature_replay: expected one of rotated, unrotated, none, got 'all'"),
        ({"rotation_weight": 1.1}, "rotation_weight: expected 0 to 1, got 1.1"),
        ({"rotation_weight": float("nan")}, "rotation_weight: expected 0 to 1, got nan"),
        ({"pos_weight_base": 0}, "pos_weight_base: expected a finite number > 0, got 0"),
        (
            {"pos_weight_later": float("inf")},
            "pos_weight_later: expected a finite number > 0, got inf",
        ),
        (
            {"backbone_batch_norm_momentum": 0.0},
            "backbone_batch_norm_momentum: expected above 0 up to 1, got 0.0",
        ),
        (
            {"backbone_batch_norm_momentum": 1.5},
            "backbone_batch_norm_momentum: expected above 0 up to 1, got 1.5",
        ),
        ({"loss_weights": {"kd": -1.0}}, "loss weight 'kd': expected a finite number >= 0, got -1.0"),
        ({"loss_weights": {"kd": [1.0, "2"]}}, "loss weight 'kd': expected a finite number >= 0, got '2'"),
        ({"loss_weights": {"kd": "2"}}, "loss weight 'kd': expected a finite number >= 0, got '2'"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ConfigError) as caught:
        MethodSettings(**values)
    assert str(caught.value) == message


def test_joint_trains_all_classes_at_once_in_learning_order():
    task = Task.parse("2-2", num_classes=7, class_order=[6, 5, 4, 3, 2, 1])
    joint = get_method("joint").steps_of(task)
    assert joint.steps == ((0, 6, 5, 4, 3, 2, 1),)
    assert joint.classes_per_step == [7]
    for name in ("fine-tuning", "mib", "alife"):
        assert get_method(name).steps_of(task) is task


def test_teachers_and_label_options():
    for name in ("fine-tuning", "joint", "mib", "alife", "alife-m", "dkd", "dkd-m"):
        method = get_method(name)
        distils = name not in ("fine-tuning", "joint")
        assert [method.needs_teacher(step) for step in (0, 1, 2)] == [False, distils, distils]
        for step in (0, 1):
            assert method.label_options(step) == ({"ignore_as_background": True} if name == "mib" else {})


def test_what_the_engine_asks_of_a_method():
    asked = ("prediction_kind", "uses_auxiliary_classifier", "image_memory")
    for name in ("fine-tuning", "joint", "mib", "alife"):
        assert [getattr(get_method(name), attribute) for attribute in asked] == ["softmax", False, False]
    assert [getattr(get_method("dkd"), attribute) for attribute in asked] == ["sigmoid", True, False]
    assert [getattr(get_method("dkd-m"), attribute) for attribute in asked] == ["sigmoid", True, True]
