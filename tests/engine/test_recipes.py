"""Recipes: the published values, pinned one by one; files; the text that `ciss-fast recipes show` prints."""

import json

import pytest

from ciss_fast.cli import main
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.config import Config
from ciss_fast.engine.recipes import (
    describe_recipe,
    effective_recipe,
    is_published,
    load_recipe,
    recipe_names,
    to_toml,
    tomllib,
)
from ciss_fast.errors import ConfigError

VOC = ["19-1", "15-5", "15-1", "10-1", "5-3", "10-5", "10-10"]
ADE20K = ["100-50", "50-50", "100-10", "100-5"]
METHODS = ["fine-tuning", "joint", "mib", "alife", "alife-m", "dkd", "dkd-m"]
SOFTMAX = METHODS[:5]
TASKS = [("voc", task) for task in VOC] + [("ade20k", task) for task in ADE20K]
ALL = [(method, *task) for task in TASKS for method in METHODS]
ALL += [("joint", "voc", "joint"), ("joint", "ade20k", "joint")]

# What every method shares.
COMMON = {
    "crop_size": 512, "scale_min": 0.5, "scale_max": 2.0, "flip": True, "setting": "overlapped", "class_order": None,
    "backbone": "resnet101", "weights": "imagenet", "output_stride": 16, "head_channels": 256,
    "optimiser": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "poly_power": 0.9, "warmup_start": 1e-3,
    "freeze_batch_norm": "published", "dropout_at_later_steps": False, "weight_decay_exemptions": True,
    "new_classifier_start": "published", "alpha": 1.0, "eval_crop": None,
}  # fmt: skip

# Multipliers of the learning rate: backbone, ASPP and head, old classifiers, new classifier.
SOFTMAX_NETWORK = {"dropout": 0.5, "align_corners": True, "backbone_batch_norm_momentum": 0.1, "multipliers": [1] * 4}
DKD_NETWORK = {
    "dropout": 0.1, "align_corners": False, "backbone_batch_norm_momentum": 0.01, "multipliers": [1, 10, 10, 10],
}  # fmt: skip
MULTIPLIERS = [
    f"{group}_lr_multiplier" for group in ("backbone", "head", "old_classifiers", "new_classifier")
]

SCHEDULES = {
    ("softmax", "voc"): {
        "batch_size": 24, "lr_base": 1e-2, "lr_later": 1e-3, "epochs_base": 30, "epochs_later": 30, "warmup": 0,
    },
    ("softmax", "ade20k"): {
        "batch_size": 24, "lr_base": 1e-2, "lr_later": 1e-3, "epochs_base": 60, "epochs_later": 60, "warmup": 0,
    },
    ("dkd", "voc"): {
        "batch_size": 32, "lr_base": 1e-3, "lr_later": 1e-4, "epochs_base": 60, "epochs_later": 60, "warmup": 0,
        "pos_weight_base": 2, "pos_weight_later": 1, "memory_images": 100,
    },
    ("dkd", "ade20k"): {
        "batch_size": 24, "lr_base": 2.5e-3, "lr_later": 2.5e-4, "epochs_base": 100, "epochs_later": 100, "warmup": 0.2,
        "pos_weight_base": 35, "pos_weight_later": 35, "memory_images": 300,
    },
}  # fmt: skip
ALIFE_EPOCHS_LATER = {"19-1": 5, "15-5": 10, "15-1": (10, 5, 5, 5, 5)}  # VOC

# Loss weights by method and task. A task that is not there has no published recipe.
ALIFE = {
    "19-1": {"ali": 1, "kd": 1},
    "15-5": {"ali": 2, "kd": 1},
    "15-1": {"ali": (3, 5, 2, 3, 2), "kd": (1, 10, 1, 10, 1)},
    "100-50": {"ali": 1, "kd": 1},
    "100-10": {"ali": 1, "kd": 1},
    "50-50": {"ali": 1, "kd": 20},
}
ALIFE_M = {
    "19-1": {"replay_ali": 1, "memory": 1},
    "15-5": {"replay_ali": 1, "memory": 10},
    "15-1": {"replay_ali": (3, 5, 2, 3, 1), "memory": (1, 20, 1, 2, 1)},
    "100-50": {"replay_ali": 0, "memory": 0.5},
    "100-10": {"replay_ali": (5, 5, 2, 0, 0), "memory": (2, 1, 1, 0.1, 0.5)},
    "50-50": {"replay_ali": (0, 0), "memory": (0.1, 0.5)},
}
MIB = {task: {"ckd": 10} for task in ("19-1", "15-5", "15-1", "10-10", "10-5", "100-50", "100-10", "50-50")}
DKD = {
    task: {"kd": 5, "dkd_pos": 5, "dkd_neg": 5, "ac": 1}
    for task in ("19-1", "15-5", "15-1", "10-1", "5-3", "100-50", "100-10", "50-50")
}
ALIFE_M = {task: {**ALIFE[task], **weights} for task, weights in ALIFE_M.items()}
PUBLISHED = {"mib": MIB, "alife": ALIFE, "alife-m": ALIFE_M, "dkd": DKD, "dkd-m": DKD}
# Classes of later steps in tests: MiB ignores them, DKD on ADE20K; MiB ignores class 0 of ADE20K too.
IGNORES_UNSEEN = [("mib", "voc"), ("mib", "ade20k"), ("dkd", "ade20k"), ("dkd-m", "ade20k")]


def values_of(name):
    """The effective settings of a recipe by bare name, and whether it is published."""
    config = effective_recipe(load_recipe(name))
    return {key: value for section in config.to_dict().values() for key, value in section.items()}, is_published(name)


def as_lists(weights):
    return {term: list(weight) if isinstance(weight, tuple) else weight for term, weight in weights.items()}


@pytest.mark.parametrize(("method", "dataset", "task"), ALL)
def test_values_are_the_published_ones(method, dataset, task):
    values, published = values_of(f"{method}-{dataset}-{task}")
    assert (values["method"], values["dataset"], values["task"]) == (method, dataset, task)
    for name, value in COMMON.items():
        assert values[name] == value, name
    network = dict(SOFTMAX_NETWORK if method in SOFTMAX else DKD_NETWORK)
    assert [values[name] for name in MULTIPLIERS] == network.pop("multipliers")
    assert {name: values[name] for name in network} == network
    schedule = dict(SCHEDULES["softmax" if method in SOFTMAX else "dkd", dataset])
    if method.startswith("alife") and dataset == "voc":
        epochs = ALIFE_EPOCHS_LATER.get(task, 30)
        schedule["epochs_later"] = list(epochs) if isinstance(epochs, tuple) else epochs
    if method == "dkd":
        assert schedule.pop("memory_images") and values["memory_images"] is None
    assert {name: values[name] for name in schedule} == schedule
    assert values["unseen"] == ("ignore" if (method, dataset) in IGNORES_UNSEEN else "background")
    assert values["ignore_background"] is ((method, dataset) == ("mib", "ade20k"))
    if method in PUBLISHED:
        assert published is (task in PUBLISHED[method])
        if published:
            assert values["loss_weight"] == as_lists(PUBLISHED[method][task])
        else:
            assert set(values["loss_weight"]) == set(PUBLISHED[method]["15-5" if dataset == "voc" else "100-50"])
    else:
        assert values["loss_weight"] == {}


@pytest.mark.parametrize(("dataset", "task"), TASKS)
def test_values_of_alife_m_alone(dataset, task):
    """Stage 3: one epoch at 1e-3. The rotations: see the paper's supplement, Adam for ten epochs."""
    values, _ = values_of(f"alife-m-{dataset}-{task}")
    assert (values["replay_epochs"], values["replay_lr"]) == (1, 1e-3)
    assert (values["features_per_class"], values["rotation_epochs"]) == (1000, 10)
    assert (values["rotation_lr"], values["rotation_weight_decay"]) == (1e-2, 1e-4)
    assert values["rotation_weight"] == (0.95 if (dataset, task) in (("voc", "19-1"), ("voc", "15-5")) else 0.99)
    assert values["feature_replay"] == "rotated"


def test_names():
    published = {f"{method}-{dataset}-{task}" for method, dataset, task in ALL}
    assert recipe_names()[:2] == ["demo", "voc15-5-mobilenet"] and set(recipe_names()[2:]) == published
    assert len(recipe_names()) == 2 + len(published) == 81
    for name, same in (
        ("DKD-VOC-15-1", "dkd-voc-15-1"),
        ("ft-ade-50", "fine-tuning-ade20k-50-50"),
        ("alife-m-voc-15-5s", "alife-m-voc-15-1"),
        ("joint-ade-offline", "joint-ade20k-joint"),
    ):
        assert load_recipe(name) == load_recipe(same)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dkd-voc-15-2", "'dkd-voc-15-2': expected one of the tasks 19-1, 15-5, .*, 10-5, 10-10, got '15-2'"),
        ("mib-voc-100-50", "expected one of the tasks 19-1, .*, got '100-50'"),
        ("mib-ade-joint", "expected one of the tasks 100-50, 50-50, 100-10, 100-5, got 'joint'"),
        ("plop-voc-15-1", "method: unknown name 'plop', known: fine-tuning, "),
    ],
)
def test_names_of_the_form_that_do_not_exist(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(name)
    assert "\n" not in str(caught.value)


def test_listing_marks_what_is_not_published():
    assert describe_recipe("demo") == "demo: shapes 6-3, alife, resnet18 (unpublished)"
    assert describe_recipe("voc15-5-mobilenet") == "voc15-5-mobilenet: voc 15-5, alife, mobilenet_v2 (unpublished)"
    assert describe_recipe("dkd-voc-15-1") == "dkd-voc-15-1: voc 15-1, dkd, resnet101"
    assert describe_recipe("dkd-ade-100-5").endswith(", dkd, resnet101 (unpublished)")


def test_another_task_or_method_beside_a_recipe_brings_its_own_published_values():
    changed = load_recipe("alife-voc-15-1").with_settings({"task": "15-5"})
    assert effective_recipe(changed) == effective_recipe(load_recipe("alife-voc-15-5"))
    changed = load_recipe("alife-ade-100-50").with_settings({"method": "dkd", "unseen": "ignore", "dataset": "folder"})
    expected = effective_recipe(load_recipe("dkd-ade-100-50")).with_settings({"dataset": "folder"})
    assert effective_recipe(changed) == expected


@pytest.mark.parametrize("name", ["demo", "alife-m-voc-15-1", "dkd-m-ade20k-100-10", "mib-ade20k-50-50"])
def test_the_shown_text_is_a_recipe_file_of_the_same_run(tmp_path, capsys, name):
    assert main(["recipes", "show", name]) == 0
    text = capsys.readouterr().out
    (tmp_path / "shown.toml").write_text(text)
    config = effective_recipe(load_recipe(name))
    assert load_recipe(str(tmp_path / "shown.toml")) == config
    assert text.startswith(f"# {name}: ") and ("# unpublished" in text) is (name == "demo")
    sections = tomllib.loads(text)
    assert set(sections) == set(config.to_dict()) and sections["data"]["task"] == config.data.task


def test_a_run_of_a_recipe_and_another_from_its_saved_configuration(tmp_path, voc_of_squares):
    small = [
        "--data-root", str(voc_of_squares), "--crop-size", "32", "--batch-size", "8", "--backbone", "mobilenet_v2",
        "--weights", "none", "--head-channels", "8", "--epochs-base", "1", "--epochs-later", "2", "--device", "cpu",
        "--loss-weight", "kd=2.5", "--previews", "0",
    ]  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", "--quiet", "--recipe", "dkd-voc-19-1", *small, "--output", str(first)]) == 0
    saved = json.loads((first / "config.json").read_text())
    assert (saved["data"]["batch_size"], saved["optimisation"]["epochs_later"]) == (8, 2)  # the command line's
    assert (saved["optimisation"]["lr_base"], saved["optimisation"]["head_lr_multiplier"]) == (1e-3, 10)  # DKD's
    assert saved["method"]["loss_weight"] == {"kd": 2.5, "dkd_pos": 5, "dkd_neg": 5, "ac": 1}
    assert None not in [saved["method"][name] for name in ("pos_weight_base", "pos_weight_later")]
    assert main(["train", "--quiet", "--recipe", str(first / "config.json"), "--output", str(second)]) == 0
    again = json.loads((second / "config.json").read_text())
    assert again["run"].pop("output") == str(second) and saved["run"].pop("output") == str(first)
    assert again == saved
    for step in range(2):
        models = [load_checkpoint(checkpoint_path(run, step)).model for run in (first, second)]
        assert all(models[0][name].equal(models[1][name]) for name in models[0])


def test_text_of_values_of_every_kind():
    config = Config().with_settings(
        {
            "class_order": [3, "pool table", 'quo"ted'],
            "data_option": {"labels": "Größe\t", "a b": 1.5, "list": [1, 2]},
            "weights": None, "lr_base": 1e-5, "loss_weight": {"ali": (1, 2), "kd": 3}, "clip_norm": None,
        }
    )  # fmt: skip
    assert Config.from_dict(tomllib.loads(to_toml(config))) == config


def test_recipes_are_listed_and_shown(capsys):
    for arguments in (["recipes"], ["recipes", "list"]):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines] == recipe_names()
    assert main(["recipes", "show", "dkd-voc"]) == 2
    assert capsys.readouterr().err.startswith("error: --recipe: expected the name of a recipe (such as dkd-voc-")


def test_recipe_files(tmp_path):
    (tmp_path / "mine.toml").write_text("[optimisation]\nlr_base = 0.5\nepochs_later = [3, 2]\n")
    expected = Config().with_settings({"lr_base": 0.5, "epochs_later": (3, 2)})
    assert load_recipe(str(tmp_path / "mine.toml")) == expected
    (tmp_path / "config.json").write_text(json.dumps(expected.to_dict()))
    assert load_recipe(str(tmp_path / "config.json")) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[optimisation]\nlr = 1", r"\[optimisation\] lr: unknown setting, expected one of optimiser, .*"),
        ("[optimization]\nlr_base = 1", r"unknown section \[optimization\], expected one of data, model, .*"),
        ("optimisation = 3", r"expected \[optimisation\] to be a table, got 3"),
        ("[data]\nbatch_size = 'x'", r"\[data\] batch_size: expected a whole number or none, got 'x'"),
        ("[data\n", "cannot read .*mine.toml: .*"),
    ],
)
def test_wrong_recipe_files_are_named(tmp_path, content, message):
    (tmp_path / "mine.toml").write_text(content)
    with pytest.raises(ConfigError, match=f"mine.toml: {message}$|--recipe: {message}$"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_unknown_recipe():
    with pytest.raises(ConfigError, match=r"expected the name of a recipe \(such as demo\) or a file, got 'dmeo'"):
        load_recipe("dmeo")
    with pytest.raises(ConfigError, match=r"--recipe: .* \(ciss-fast recipes lists them\) or a file, got 'zzz'"):
        load_recipe("zzz")


