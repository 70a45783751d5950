import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ciss_fast.engine import feature_replay, loop, stages, train_step
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.metrics import compute_scores
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.errors import CheckpointError, CissFastError, ConfigError


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoint_path(run, step)).model


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def without_times(run: Path) -> dict:
    metrics = ResultsFolder(run).read_metrics()
    for entry in metrics["steps"]:
        del entry["seconds_training"], entry["seconds_testing"], entry["peak_memory_bytes"]
        for stage in entry["stages"]:
            del stage["seconds"]
            stage.pop("seconds_waiting", None)
    return metrics


def modification_times(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run / "checkpoints").iterdir()}


def test_results_folder_has_everything(alife_run):
    names = {str(path.relative_to(alife_run)) for path in alife_run.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/")}
    assert events
    assert names - events == {
        "config.json", "metrics.json", "scores.csv", "class_iou.csv", "curves.png", "predictions.png",
        "evaluation/previews.npz",
        *(f"checkpoints/step_{step}.pt" for step in range(3)),
        *(f"evaluation/step_{step}.npz" for step in range(3)),
    }  # fmt: skip


def test_metrics_follow_from_the_stored_confusion_matrices(alife_run):
    metrics = ResultsFolder(alife_run).read_metrics()
    assert [entry["step"] for entry in metrics["steps"]] == [0, 1, 2]
    for step, entry in enumerate(metrics["steps"]):
        confusion = np.load(alife_run / "evaluation" / f"step_{step}.npz")["confusion"]
        scores = compute_scores(confusion, [7, 3, 3][: step + 1])
        assert {name: entry[name] for name in scores.summary()} == scores.summary()
        assert list(entry["iou"].values()) == list(scores.iou)
        assert entry["test_images"] <= 8 and confusion.sum() <= entry["test_images"] * 32 * 32
    names = list(metrics["steps"][2]["iou"])
    assert names[:2] == ["background", "circle"] and len(names) == 13
    assert metrics["steps"][1]["new_classes"] == names[7:10]
    means = [entry["miou_all"] for entry in metrics["steps"]]
    assert metrics["mean_miou_all"] == sum(means) / 3


def test_loss_log_has_terms_and_exact_learning_rates(alife_run):
    steps = ResultsFolder(alife_run).read_metrics()["steps"]
    assert set(steps[0]["loss_log"][0]) == {"iteration", "learning_rate", "loss", "ce"}
    assert set(steps[1]["loss_log"][0]) == {"iteration", "learning_rate", "loss", "ce", "ali", "kd"}
    for entry, start in zip(steps, (1e-2, 1e-3, 1e-3), strict=True):
        iterations = entry["training_images"] // 8  # one epoch, batches of 8, the incomplete one dropped
        assert entry["iterations"] == iterations
        assert [item["iteration"] for item in entry["loss_log"]] == list(range(iterations))
        expected = [start * (1 - i / iterations) ** 0.9 for i in range(iterations)]
        assert [item["learning_rate"] for item in entry["loss_log"]] == expected


def test_loss_is_the_weighted_sum_of_its_terms(alife_run):
    stored = json.loads((alife_run / "config.json").read_text())["method"]["loss_weight"]
    for entry in ResultsFolder(alife_run).read_metrics()["steps"][1:]:
        for item in entry["loss_log"]:
            total = item["ce"] + stored["ali"] * item["ali"] + stored["kd"] * item["kd"]
            assert item["loss"] == pytest.approx(total, rel=1e-5)


def test_checkpoints_say_what_they_are(alife_run):
    checkpoint = load_checkpoint(checkpoint_path(alife_run, 1))
    assert (checkpoint.step, checkpoint.method, checkpoint.classes_per_step) == (1, "alife", [7, 3])
    assert checkpoint.channel_order == list(range(10)) and len(checkpoint.class_names) == 13
    assert checkpoint.config == json.loads((alife_run / "config.json").read_text())


def test_finished_steps_are_not_done_again(alife_run, tmp_path, tiny_train, monkeypatch):
    run = shutil.copytree(alife_run, tmp_path / "run")
    before = modification_times(run), without_times(run)

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(stages, "train_model", never)
    tiny_train(run, method="alife")
    assert (modification_times(run), without_times(run)) == before


def test_resumed_run_has_the_same_bits_as_an_uninterrupted_one(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    for step in (1, 2):
        checkpoint_path(run, step).unlink()
    torch.rand(17)  # whatever happened before must not matter
    tiny_train(run, method="alife")
    for step in range(3):
        assert_same_weights(weights(run, step), weights(alife_run, step))
    assert without_times(run) == without_times(alife_run)


def test_run_interrupted_inside_a_step_goes_on_to_the_same_bits(alife_run, tmp_path, tiny_train, monkeypatch):
    run = tmp_path / "run"
    update, count = loop.update, itertools.count()
    iterations = [entry["iterations"] for entry in ResultsFolder(alife_run).read_metrics()["steps"]]
    assert iterations[1] > 1

    def interrupted(*arguments):
        if next(count) == iterations[0] + 1:  # the second iteration of step 1
            raise KeyboardInterrupt
        return update(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny_train(run, method="alife")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_0.pt"]
    tiny_train(run, method="alife")
    for step in range(3):
        assert_same_weights(weights(run, step), weights(alife_run, step))


def test_scores_lost_between_training_and_testing_are_made_again(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    before = modification_times(run)
    (run / "evaluation" / "step_1.npz").unlink()
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["steps"][2]
    (run / "metrics.json").write_text(json.dumps(metrics))
    tiny_train(run, method="alife")
    assert modification_times(run) == before
    assert without_times(run) == without_times(alife_run)


def test_another_seed_gives_other_weights(alife_run, tmp_path, tiny_train):
    run = tiny_train(tmp_path / "run", method="ft", task="joint", seed=1)
    name = "backbone.features.0.0.weight"
    assert not torch.equal(weights(run, 0)[name], weights(alife_run, 0)[name])


def test_folder_of_another_configuration_is_refused(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run of another configuration: lr_later is 0.001 there and 0.5 here"):
        tiny_train(run, method="alife", lr_later=0.5)
    assert (run / "config.json").read_bytes() == (alife_run / "config.json").read_bytes()


def test_folder_without_a_finished_step_may_be_used_with_another_configuration(tmp_path, tiny_train):
    run = tmp_path / "run"
    with pytest.raises(CissFastError, match="the loss is"):
        tiny_train(run, method="ft", task="joint", lr_base=1e30)
    assert (run / "config.json").exists()
    tiny_train(run, method="ft", task="joint", lr_base=1e-2)
    assert json.loads((run / "config.json").read_text())["optimisation"]["lr_base"] == 1e-2


def test_what_a_killed_process_was_writing_is_removed(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    partial = run / "checkpoints" / ".step_3.pt.abc.partial"
    partial.write_bytes(b"half")
    tiny_train(run, method="alife")
    assert not partial.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04", None])
def test_damaged_evaluation_is_made_again(alife_run, tmp_path, tiny_train, content):
    run = shutil.copytree(alife_run, tmp_path / "run")
    path = run / "evaluation" / "step_1.npz"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    tiny_train(run, method="alife")
    assert without_times(run) == without_times(alife_run)
    with np.load(path) as made, np.load(alife_run / "evaluation" / "step_1.npz") as expected:
        assert made.files == expected.files
        assert all(np.array_equal(made[name], expected[name]) for name in made.files)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", '{"format": 2, "steps": []}', "metrics.json: expected an entry dataset, there is none"),
        ("metrics.json", '{"format": 2, "steps": [3]}', "metrics.json: expected an object for each step, got 3"),
        ("metrics.json", '{"format": 1}', "metrics.json: expected metrics of format 2, got 1; without this file "),
        ("metrics.json", '{"format"', "metrics.json: cannot be read: "),
        ("config.json", '{"data": 3}', "config.json: expected data to be an object, got 3"),
        ("config.json", "[]", "config.json: expected a JSON object, got list"),
    ],
)
def test_damaged_json_is_named(alife_run, tmp_path, tiny_train, name, content, message):
    run = shutil.copytree(alife_run, tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        tiny_train(run, method="alife")


def test_missing_score_of_a_step_is_named(alife_run, tmp_path):
    metrics = json.loads((alife_run / "metrics.json").read_text())
    del metrics["steps"][1]["hiou"]
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(CheckpointError, match=r"metrics.json: expected an entry hiou \(step entry 1\), there is none"):
        ResultsFolder(tmp_path).read_metrics()


def test_settings_without_influence_may_change(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    tiny_train(run, method="alife", log_every=5, eval_batch_size=3)
    assert json.loads((run / "config.json").read_text())["run"]["log_every"] == 5


def test_damaged_checkpoint_before_others_is_refused(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    path = checkpoint_path(run, 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="step_1.pt: damaged"):
        tiny_train(run, method="alife")


def test_damaged_newest_checkpoint_is_trained_again(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    path = checkpoint_path(run, 2)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"step_2.pt: damaged.*; it is step_2.pt.damaged now"):
        tiny_train(run, method="alife")
    assert_same_weights(weights(run, 2), weights(alife_run, 2))
    assert without_times(run) == without_times(alife_run)


def test_checkpoint_of_another_run_is_refused(alife_run, tmp_path, tiny_train):
    run = shutil.copytree(alife_run, tmp_path / "run")
    shutil.copy(checkpoint_path(run, 1), checkpoint_path(run, 2))
    with pytest.raises(CheckpointError, match="step_2.pt: belongs to another run: step is 1 there and 2 here"):
        tiny_train(run, method="alife")


def test_base_step_is_shared(alife_run, tmp_path, tiny_train):
    shared = tiny_train(tmp_path / "shared", method="mib", base_from=str(alife_run), epochs_later=2)
    assert_same_weights(weights(shared, 0), weights(alife_run, 0))
    own = tiny_train(tmp_path / "own", method="mib", epochs_later=2)
    # MiB's base step differs from ALIFE's in nothing but the ignored pixels, which it counts as background.
    assert weights(own, 0).keys() == weights(shared, 0).keys()
    assert without_times(shared)["steps"][0] == without_times(alife_run)["steps"][0]
    assert not torch.equal(weights(shared, 1)["head.0.weight"], weights(alife_run, 1)["head.0.weight"])


def test_base_step_is_shared_by_tasks_that_begin_alike(alife_run, tmp_path, tiny_train):
    shared = tiny_train(tmp_path / "shared", method="ft", task="6-6", base_from=str(alife_run))
    assert_same_weights(weights(shared, 0), weights(alife_run, 0))
    assert ResultsFolder(shared).read_metrics()["num_steps"] == 2


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"lr_base": 0.5}, "lr_base is 0.01 there and 0.5 here"),
        ({"seed": 3}, "seed is 0 there and 3 here"),
        ({"task": "9-3"}, r"class order is \[0, 1, .*, 6\] there and \[0, 1, .*, 9\] here"),
        ({"backbone": "resnet18"}, "backbone is 'mobilenet_v2' there and 'resnet18' here"),
        ({"class_order": tuple(range(12, 0, -1))}, r"class_order is None there and \[12, 11, .*\] here"),
    ],
)
def test_base_of_other_settings_is_refused(alife_run, tmp_path, tiny_train, settings, difference):
    with pytest.raises(CheckpointError, match=f"--base-from: the base step in .* does not fit: {difference}"):
        tiny_train(tmp_path / "run", method="ft", base_from=str(alife_run), **settings)
    assert not (tmp_path / "run").exists()


def test_joint_training_learns_all_classes_in_one_step(alife_run, tmp_path, tiny_train):
    run = tiny_train(tmp_path / "run", method="joint")
    metrics = ResultsFolder(run).read_metrics()
    (entry,) = metrics["steps"]
    assert len(entry["new_classes"]) == 13 and metrics["num_steps"] == 1
    assert len(entry["miou_by_step"]) == 3  # grouped by the task's steps, to be held against incremental methods
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_0.pt"]


def test_class_order_decides_which_class_a_channel_is(tmp_path, tiny_train):
    order = (12, 3, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11)
    run = tiny_train(tmp_path / "run", method="ft", class_order=order)
    assert load_checkpoint(checkpoint_path(run, 2)).channel_order == [0, *order]
    names = load_checkpoint(checkpoint_path(run, 2)).class_names
    assert list(ResultsFolder(run).read_metrics()["steps"][2]["iou"]) == [names[i] for i in (0, *order)]


def test_other_optimiser_precision_and_options_run(tmp_path, tiny_train):
    run = tiny_train(
        tmp_path / "run", method="alife", optimiser="adamw", precision="bf16", clip_norm=1.0, warmup=0.5,
        freeze_batch_norm="backbone", backbone_lr_multiplier=0.1, cache_images=True, eval_crop=24,
        unseen="ignore", channels_last=False, previews=0, epochs_later=(1, 2),
    )  # fmt: skip
    entries = ResultsFolder(run).read_metrics()["steps"]
    assert entries[2]["iterations"] == 2 * (entries[2]["training_images"] // 8)
    assert not (run / "predictions.png").exists()
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(run, 2).values())
    # Frozen from the start, the backbone's batch norms keep the statistics of initialisation.
    assert torch.equal(weights(run, 2)["backbone.features.0.1.running_mean"], torch.zeros(32))


def test_later_steps_have_their_own_optimiser_and_frozen_norms(tmp_path, tiny_train, alife_run, monkeypatch):
    built, original = [], train_step.build_optimiser

    def watched(*arguments):
        built.append(original(*arguments))
        return built[-1]

    monkeypatch.setattr(train_step, "build_optimiser", watched)
    monkeypatch.setattr(feature_replay, "build_optimiser", watched)
    later = {"later_optimiser": "adamw", "later_freeze_batch_norm": "all", "previews": 0}
    replay = {"features_per_class": 4, "rotation_epochs": 0.5, "replay_epochs": 0.5}
    run = tiny_train(tmp_path / "run", method="alife-m", base_from=str(alife_run), **later, **replay)
    assert len(built) == 4 and all(type(optimiser) is torch.optim.AdamW for optimiser in built)
    base, last, usual = weights(run, 0), weights(run, 2), weights(alife_run, 2)
    norms = [name for name in base if name.endswith(("running_mean", "running_var"))]
    assert len(norms) == 2 * 59 and all(torch.equal(base[name], last[name]) for name in norms)
    assert not torch.equal(base["head.1.running_mean"], usual["head.1.running_mean"])
    tiny_train(tmp_path / "own", method="fine-tuning", optimiser="adamw", later_optimiser="sgd", previews=0)
    kinds = [type(optimiser) for optimiser in built[4:]]
    assert kinds == [torch.optim.AdamW, torch.optim.SGD, torch.optim.SGD]


def test_infinite_loss_stops_the_run(tmp_path, tiny_train):
    with pytest.raises(CissFastError, match=r"the loss is (nan|inf); a lower learning rate, .* may help"):
        tiny_train(tmp_path / "run", method="ft", lr_base=1e30)
    assert not checkpoint_path(tmp_path / "run", 0).exists()


def test_tensorboard_has_losses_and_scores_on_one_axis(alife_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(alife_run / "tensorboard")).Reload()
    entries = ResultsFolder(alife_run).read_metrics()["steps"]
    total = sum(entry["iterations"] for entry in entries)
    assert [event.step for event in events.Scalars("loss/loss")] == list(range(total))
    ends = np.cumsum([entry["iterations"] for entry in entries]) - 1
    assert [event.step for event in events.Scalars("score/miou_all")] == ends.tolist()
    assert [event.step for event in events.Scalars("loss/ali")] == list(range(entries[0]["iterations"], total))
    logged = [item["loss"] for entry in entries for item in entry["loss_log"]]
    assert [event.value for event in events.Scalars("loss/loss")] == pytest.approx(logged, rel=1e-6)
