"""DKD's sigmoid head in a run: the model, its scores, published settings, and which base steps it may share."""

import json

import pytest
import torch

import ciss_fast
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.evaluate import confusion_matrix, predict_images
from ciss_fast.engine.plan import make_plan
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.errors import CheckpointError
from ciss_fast.models import SegmentationOutput

CPU = Precision(torch.device("cpu"), None, channels_last=False)


def test_model_has_an_auxiliary_classifier_and_channels_as_ever(dkd_run):
    checkpoint = load_checkpoint(checkpoint_path(dkd_run, 2))
    assert checkpoint.classes_per_step == [7, 3, 3] and checkpoint.channel_order == list(range(13))
    shapes = {name: list(value.shape)[:1] for name, value in checkpoint.model.items() if name.endswith(".bias")}
    heads = ("auxiliary.bias", "classifiers.0.bias", "classifiers.1.bias", "classifiers.2.bias")
    assert [shapes[name] for name in heads] == [[1], [6], [3], [3]]


def test_terms_of_the_loss_are_logged(dkd_run):
    base, *later = ResultsFolder(dkd_run).read_metrics()["steps"]
    assert set(base["loss_log"][0]) == {"iteration", "learning_rate", "loss", "mbce", "ac"}
    for entry in later:
        terms = set(entry["loss_log"][0]) - {"iteration", "learning_rate", "loss"}
        assert terms == {"mbce", "ac", "kd", "dkd_pos", "dkd_neg"}


def test_published_values_fill_in_what_is_left_out(dkd_run):
    config = json.loads((dkd_run / "config.json").read_text())
    assert (config["model"]["align_corners"], config["model"]["dropout"]) == (False, 0.1)
    optimisation = config["optimisation"]
    assert (optimisation["lr_base"], optimisation["lr_later"]) == (1e-3, 1e-4)
    assert optimisation["backbone_batch_norm_momentum"] == 0.01
    multipliers = [optimisation[f"{name}_lr_multiplier"] for name in ("backbone", "head", "new_classifier")]
    assert multipliers == [1, 10, 10]
    assert (config["method"]["pos_weight_base"], config["method"]["pos_weight_later"]) == (2, 1)
    assert config["method"]["loss_weight"] == {"kd": 5, "dkd_pos": 5, "dkd_neg": 5, "ac": 1}
    first = ResultsFolder(dkd_run).read_metrics()["steps"][0]["loss_log"][0]
    assert first["learning_rate"] == pytest.approx(1e-2)  # the largest of all groups


class Fixed(torch.nn.Module):
    """The same logits for every image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return SegmentationOutput(self.logits.expand(len(images), -1, -1, -1), None, None)


def test_background_is_where_no_class_is_likely():
    logits = torch.tensor([9.0, -1.0, 2.0, -3.0, 9.0, -1.0, -2.0, -3.0]).view(2, 4).T.reshape(1, 4, 1, 2)
    images, label = torch.zeros(1, 3, 1, 2), torch.tensor([[[2, 1]]])
    counts = confusion_matrix(Fixed(logits), [(images, label)], 4, CPU, align_corners=False, kind="sigmoid")
    assert counts[2, 2] == 1 and counts[1, 0] == 1 and counts.sum() == 2
    (prediction,) = predict_images(Fixed(logits), [images[0]], CPU, align_corners=False, kind="sigmoid")
    assert prediction.tolist() == [[2, 0]]
    (prediction,) = predict_images(Fixed(logits), [images[0]], CPU, align_corners=False)
    assert prediction.tolist() == [[0, 0]]


@pytest.mark.parametrize(("method", "kind"), [("dkd", "sigmoid"), ("dkd-m", "sigmoid"), ("alife", "softmax")])
def test_a_run_is_scored_by_its_methods_rule(tiny_config, monkeypatch, method, kind):
    from ciss_fast.engine.scoring import run_tests

    used = []
    for name in ("confusion", "predict"):
        original = getattr(ciss_fast, name)
        monkeypatch.setattr(ciss_fast, name, lambda *a, o=original, **k: used.append(k["kind"]) or o(*a, **k))
    plan = make_plan(tiny_config(method=method), Reporter(quiet=True))
    model = Fixed(torch.randn(1, 7, 4, 4))
    model.num_classes = 7
    run_tests(plan, 0, model, CPU, Reporter(quiet=True))
    assert used and set(used) == {kind}


def test_base_step_is_shared_within_the_sigmoid_family(dkd_run, tmp_path, tiny_train):
    settings = {"loss_weight": {"dkd_pos": 0, "dkd_neg": 0}, "epochs_later": 0.1}
    run = tiny_train(tmp_path / "run", method="dkd-m", base_from=str(dkd_run), **settings)
    first, second = (load_checkpoint(checkpoint_path(folder, 0)).model for folder in (run, dkd_run))
    assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.parametrize("method", ["dkd", "dkd-m"])
def test_base_step_with_a_softmax_head_is_refused(alife_run, tmp_path, tiny_train, method):
    message = rf"does not fit: the head is softmax there \(alife\) and sigmoid here \({method}\)"
    with pytest.raises(CheckpointError, match=f"--base-from: the base step in .* {message}"):
        tiny_train(tmp_path / "run", method=method, base_from=str(alife_run))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["fine-tuning", "joint", "mib", "alife"])
def test_base_step_with_a_sigmoid_head_is_refused(dkd_run, tmp_path, tiny_train, method):
    message = rf"the head is sigmoid there \(dkd\) and softmax here \({method}\)"
    with pytest.raises(CheckpointError, match=message):
        tiny_train(tmp_path / "run", method=method, base_from=str(dkd_run))


def test_base_step_with_another_pos_weight_is_refused(dkd_run, tmp_path, tiny_train):
    with pytest.raises(CheckpointError, match="pos_weight_base is 2.0 there and 3.0 here"):
        tiny_train(tmp_path / "run", method="dkd", base_from=str(dkd_run), pos_weight_base=3)


# What the paper's ablation adds, one after another.
ABLATION = {
    "KD": {"loss_weight": {"dkd_pos": 0, "dkd_neg": 0, "ac": 0}, "new_classifier_start": "random"},
    "+ DKD": {"loss_weight": {"ac": 0}, "new_classifier_start": "random"},
    "+ auxiliary": {},
}


def test_ablation_switches_from_the_command_line(dkd_run, tmp_path, capsys):
    from ciss_fast.cli import main

    recipe = json.loads((dkd_run / "config.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    arguments = ["train", "--recipe", str(tmp_path / "recipe.json"), "--base-from", str(dkd_run), "--quiet"]
    terms, weights = {}, {}
    for number, (name, settings) in enumerate(ABLATION.items()):
        options = [f"--loss-weight={term}={weight}" for term, weight in settings.get("loss_weight", {}).items()]
        if "new_classifier_start" in settings:
            options += ["--new-classifier-start", settings["new_classifier_start"]]
        run = tmp_path / str(number)
        assert main([*arguments, *options, "--output", str(run), "--epochs-later", "0.1"]) == 0
        terms[name] = set(ResultsFolder(run).read_metrics()["steps"][1]["loss_log"][0])
        weights[name] = load_checkpoint(checkpoint_path(run, 1)).model
    capsys.readouterr()
    common = {"iteration", "learning_rate", "loss", "mbce", "kd"}
    assert terms == {
        "KD": common, "+ DKD": common | {"dkd_pos", "dkd_neg"}, "+ auxiliary": common | {"dkd_pos", "dkd_neg", "ac"},
    }  # fmt: skip
    spread = {name: model["classifiers.1.weight"].std(dim=0).max() for name, model in weights.items()}
    assert spread["+ auxiliary"] < spread["KD"] / 10  # its rows have started as copies of one
    assert spread["+ DKD"] > spread["KD"] / 2
