"""DKD-M in a run: images chosen before a step, replayed in its training, and the list that says which."""

import json
import shutil

import numpy as np
import pytest
import torch

from ciss_fast.engine import image_replay, stages
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.plan import make_plan
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.resume import progress_path
from ciss_fast.errors import CheckpointError

SETTINGS = {"method": "dkd-m", "memory_images": 14, "epochs_later": 0.5, "previews": 0}


@pytest.fixture(scope="module")
def replaying_run(tmp_path_factory, tiny_train, dkd_run):
    """A finished run of DKD-M and the training data of its later steps, as (indices, labels)."""
    seen = {}
    original = stages.train_model

    def watched(context, batches):
        images = batches.loader.dataset
        seen[context.step] = images.indices, np.unique(torch.stack([label for _, label in images]))
        original(context, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "train_model", watched)
        run = tiny_train(tmp_path_factory.mktemp("runs") / "dkd-m", base_from=str(dkd_run), **SETTINGS)
    return run, seen


def memory(run, step):
    return json.loads((run / "memory" / f"step_{step}.json").read_text())


def same_weights(first, second, step):
    models = [load_checkpoint(checkpoint_path(run, step)).model for run in (first, second)]
    return all(torch.equal(models[0][name], models[1][name]) for name in models[1])


def test_memory_is_balanced_and_carried_from_step_to_step(replaying_run, tiny_config):
    run, _ = replaying_run
    plan = make_plan(tiny_config(**SETTINGS), Reporter(quiet=True))
    ids = [{plan.train_data.ids[i] for i in images} for images in plan.training_images]
    first, second = memory(run, 1), memory(run, 2)
    assert (first["step"], second["step"]) == (1, 2)
    assert {image["id"] for image in first["images"]} <= ids[0]
    assert {image["id"] for image in second["images"]} <= ids[1] | {image["id"] for image in first["images"]}
    assert any(image["id"] not in ids[1] for image in second["images"])
    names = plan.train_data.class_names
    for content, seen in ((first, names[1:7]), (second, names[1:10])):
        counts = [sum(image["chosen_for"] == name for image in content["images"]) for name in seen]
        assert sum(counts) == len(content["images"]) == 14
        assert max(counts) - min(counts) <= 1
        assert all(image["chosen_for"] in image["shows"] for image in content["images"])
    assert not (run / "memory" / "step_0.json").exists()


def test_training_has_the_images_of_step_and_memory_with_the_steps_labels(replaying_run, tiny_config):
    run, seen = replaying_run
    plan = make_plan(tiny_config(**SETTINGS), Reporter(quiet=True))
    assert sorted(seen) == [1, 2]
    for step, (indices, labels) in seen.items():
        replayed = [plan.train_data.ids.index(image["id"]) for image in memory(run, step)["images"]]
        assert sorted(indices) == sorted(set(plan.training_images[step]) | set(replayed))
        assert len(indices) > len(plan.training_images[step])
        assert set(labels) <= {0, *plan.training_task.steps[step], 255}


def test_metrics_tell_the_number_of_images(replaying_run):
    run, _ = replaying_run
    base, *later = ResultsFolder(run).read_metrics()["steps"]
    assert [stage["name"] for stage in base["stages"]] == ["train"]
    for entry in later:
        selection, training = entry["stages"]
        assert (selection["name"], selection["iterations"], selection["memory_images"]) == ("selection", 0, 14)
        assert sum(selection["memory_images_by_class"].values()) == 14
        assert training["name"] == "train" and training["iterations"] == entry["iterations"]


def test_without_images_it_is_dkd(tmp_path, tiny_train, dkd_run):
    settings = {**SETTINGS, "base_from": str(dkd_run)}
    plain = tiny_train(tmp_path / "dkd", **{**settings, "method": "dkd"})
    empty = tiny_train(tmp_path / "dkd-m", **{**settings, "memory_images": 0})
    assert memory(empty, 2)["images"] == []
    assert same_weights(plain, empty, 1) and same_weights(plain, empty, 2)


def test_interrupted_selection_goes_on(replaying_run, dkd_run, tmp_path, tiny_train, monkeypatch):
    """At step 2, where the model looks at the images: after the second batch of 8."""
    whole, _ = replaying_run
    run, looked_at = tmp_path / "run", []
    original = image_replay.image_classes

    def watched(batches, order, model, **options):
        if model is not None:
            looked_at.append(len(batches[0][0]))
            if len(looked_at) == 3:
                raise KeyboardInterrupt
        return original(batches, order, model, **options)

    monkeypatch.setattr(image_replay, "image_classes", watched)
    settings = {**SETTINGS, "base_from": str(dkd_run), "save_every": 8}
    with pytest.raises(KeyboardInterrupt):
        tiny_train(run, **settings)
    saved = load_checkpoint(progress_path(run))
    assert saved.step == 2 and len(saved.progress["state"]["shown"]) == 16
    tiny_train(run, **settings)
    assert looked_at == [8, 8, 5, 5]  # the third batch twice, no other
    assert (run / "memory" / "step_2.json").read_bytes() == (whole / "memory" / "step_2.json").read_bytes()
    assert same_weights(run, whole, 2)


def test_changed_list_is_refused(replaying_run, tmp_path, tiny_train):
    run = shutil.copytree(replaying_run[0], tmp_path / "run")
    checkpoint_path(run, 2).unlink()
    path = run / "memory" / "step_1.json"
    path.write_text(path.read_text().replace("train_0000", "train_0001"))
    with pytest.raises(CheckpointError, match=r"memory/step_1.json: damaged or edited"):
        tiny_train(run, **SETTINGS)
