"""ALIFE-M's stages in a run: what they leave behind, what they change, and that they go on after an interruption."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ciss_fast.data import Task
from ciss_fast.engine import feature_replay, loop, stages
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.plan import check_every_class_is_shown, make_plan
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.resume import progress_path
from ciss_fast.engine.schedule import learning_rate_factor
from ciss_fast.errors import CheckpointError, CissFastError, ConfigError, DataError
from ciss_fast.memory.feature_extraction import FeatureExtraction
from ciss_fast.memory.feature_memory import load_feature_memory

ALIFE_M = {"method": "alife-m", "features_per_class": 6, "rotation_epochs": 2}
STAGES = ["train", "rotations", "classifiers", "features"]


@pytest.fixture(scope="module")
def seen():
    """What was watched while `alife_m_run` was made: maps computed, and models before and after stages, by step."""
    return {"maps": [], "stages": []}


@pytest.fixture(scope="module")
def alife_m_run(tmp_path_factory, tiny_train, seen) -> Path:
    """A finished run of three steps. Tests read it; one that changes files takes a copy."""
    maps = feature_replay.feature_maps

    def watched_maps(context, network, images):
        seen["maps"].append((context.step, network is context.teacher))
        return maps(context, network, images)

    def watched(name):
        original = getattr(feature_replay, name)

        def stage(context):
            before = {key: value.clone() for key, value in context.model.state_dict().items()}
            original(context)
            after = {key: value.clone() for key, value in context.model.state_dict().items()}
            seen["stages"].append((name, context.step, before, after))

        return stage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_replay, "feature_maps", watched_maps)
        for name in ("rotate_features", "train_classifiers", "extract_features"):
            patch.setattr(feature_replay, name, watched(name))
        return tiny_train(tmp_path_factory.mktemp("runs") / "alife_m", **ALIFE_M)


def memory_of(run: Path, name: str):
    return load_feature_memory(run / "memory" / f"{name}.pt")


def outcome(run: Path) -> list[dict]:
    """What the loss log and scores say, without times."""
    entries = ResultsFolder(run).read_metrics()["steps"]
    for entry in entries:
        del entry["seconds_training"], entry["seconds_testing"], entry["peak_memory_bytes"]
        for stage in entry["stages"]:
            del stage["seconds"]
            stage.pop("seconds_waiting", None)
    return entries


def test_every_step_has_its_stages_and_their_curves(alife_m_run):
    steps = outcome(alife_m_run)
    assert [[stage["name"] for stage in entry["stages"]] for entry in steps] == [["train", "features"], STAGES, STAGES]
    for entry in steps[1:]:
        per_epoch = entry["training_images"] // 8
        assert [stage["iterations"] for stage in entry["stages"]] == [per_epoch, 2 * per_epoch, per_epoch, 0]
        terms = [set(item) - {"iteration", "learning_rate", "loss"} for item in entry["loss_log"]]
        assert terms == (
            [{"ce", "ali", "kd"}] * per_epoch
            + [{"fid", "reg"}] * 2 * per_epoch
            + [{"focal", "ali", "memory"}] * per_epoch
        )
        log = entry["loss_log"]
        assert [item["iteration"] for item in log] == list(range(4 * per_epoch))
        for item in log[per_epoch : 3 * per_epoch]:
            assert item["loss"] == pytest.approx(0.99 * item["fid"] + 0.01 * item["reg"], rel=1e-5)
        for item in log[3 * per_epoch :]:  # the weights of tasks without published ones
            assert item["loss"] == pytest.approx(item["focal"] + item["ali"] + item["memory"], rel=1e-5)
        rates = [item["learning_rate"] for item in log[per_epoch:]]
        assert rates[: 2 * per_epoch] == [1e-2 * learning_rate_factor(i, 2 * per_epoch) for i in range(2 * per_epoch)]
        assert rates[2 * per_epoch :] == [1e-3 * learning_rate_factor(i, per_epoch) for i in range(per_epoch)]
    assert json.loads((alife_m_run / "config.json").read_text())["replay"]["rotation_weight"] == 0.99


def test_memory_files_hold_the_classes_of_their_step(alife_m_run):
    names = {path.stem for path in (alife_m_run / "memory").iterdir()}
    assert names == {"step_0", "step_1-rotated", "step_1", "step_2-rotated"}
    complete, rotated, more = (memory_of(alife_m_run, name) for name in ("step_0", "step_1-rotated", "step_1"))
    assert complete.features.shape == (7, 6, 8) and more.features.shape == (10, 6, 8)
    assert complete.class_ids == rotated.class_ids == tuple(range(7)) and more.class_ids == tuple(range(10))
    assert (complete.step, rotated.step, more.step) == (0, 1, 1)
    assert complete.extractor != rotated.extractor == more.extractor
    assert torch.equal(more.features[:7], rotated.features)
    assert not torch.equal(rotated.features, complete.features)
    lengths = [entry.features.norm(dim=2) for entry in (complete, rotated)]
    assert torch.allclose(*lengths, rtol=1e-5)
    for entry, step in ((complete, 0), (more, 1)):
        reported = outcome(alife_m_run)[step]["stages"][-1]["memory"]
        assert reported["bytes"] == entry.num_bytes == entry.num_classes * 6 * 8 * 4
        assert (reported["source_images"], reported["source_bytes"]) == (entry.source_images, entry.source_bytes)
        assert reported["source_bytes"] == 3 * 32 * 32 * reported["source_images"] > 0


def test_only_classifiers_move_in_the_stages_after_training(alife_m_run, seen):
    assert [(name, step) for name, step, _, _ in seen["stages"]] == [
        ("extract_features", 0),
        *itertools.product(("rotate_features", "train_classifiers", "extract_features"), (1,)),
        *itertools.product(("rotate_features", "train_classifiers", "extract_features"), (2,)),
    ]
    for name, step, before, after in seen["stages"]:
        moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
        expected = set()
        if name == "train_classifiers":
            expected = {f"classifiers.{i}.{kind}" for i in range(step + 1) for kind in ("weight", "bias")}
        assert moved == expected, (name, step)


def test_no_feature_map_is_computed_twice(alife_m_run, seen):
    """The classifiers' stage has all of its maps from the fit before it; the old model serves the fit only."""
    for entry in outcome(alife_m_run)[1:]:
        step, stages = entry["step"], {stage["name"]: stage for stage in entry["stages"]}
        maps = [from_teacher for number, from_teacher in seen["maps"] if number == step]
        assert sum(maps) == stages["rotations"]["iterations"]
        crops = stages["features"].get("memory", {"crops": 0})["crops"]
        assert len(maps) - 2 * stages["rotations"]["iterations"] <= -(-crops // 8) + 5  # rounds may end with small ones


def remove_step_1(run: Path) -> None:
    """As if step 1 had never been done; step 2 stays, as it comes out the same."""
    for path in [*run.glob("checkpoints/step_1.pt"), *run.glob("memory/step_1*")]:
        path.unlink()


class Interrupted(Exception):
    """Stands for whatever ends a run."""


def test_goes_on_inside_every_stage_to_the_same_bits(alife_m_run, tmp_path, tiny_train, monkeypatch):
    """Interrupted in each stage of step 1 in turn, with no feature maps kept between stages."""
    run = shutil.copytree(alife_m_run, tmp_path / "run")
    remove_step_1(run)
    settings = {**ALIFE_M, "save_every": 1, "keep_megabytes": 0}
    update, extract = loop.update, FeatureExtraction._pass
    per_epoch = outcome(alife_m_run)[1]["training_images"] // 8
    assert per_epoch == 2

    def interrupt(updates=None, passes=None):
        counts = itertools.count(), itertools.count()

        def counted_update(*arguments):
            if next(counts[0]) == updates:
                raise Interrupted
            update(*arguments)

        def counted_pass(*arguments):
            if next(counts[1]) == passes:
                raise Interrupted
            return extract(*arguments)

        monkeypatch.setattr(loop, "update", counted_update)
        monkeypatch.setattr(FeatureExtraction, "_pass", counted_pass)

    stages = []
    for arguments in ({"updates": 1}, {"updates": 1 + 3}, {"updates": 1 + 1}, {"updates": 1, "passes": 1}):
        interrupt(**arguments)
        with pytest.raises(Interrupted):
            tiny_train(run, **settings)
        saved = load_checkpoint(progress_path(run))
        assert saved.step == 1 and saved.progress["state"] is not None
        stages.append(len(saved.stages))
        torch.rand(17)  # whatever happens in between must not matter
    assert stages == [0, 1, 2, 3]
    interrupt()
    tiny_train(run, **settings)
    assert outcome(run) == outcome(alife_m_run)
    first, second = (load_checkpoint(checkpoint_path(folder, 1)).model for folder in (run, alife_m_run))
    assert [name for name in second if not torch.equal(first[name], second[name])] == []
    for path in (alife_m_run / "memory").iterdir():
        first, second = (load_feature_memory(folder / "memory" / path.name) for folder in (run, alife_m_run))
        assert torch.equal(first.features, second.features) and first.extractor == second.extractor


def step_1_of(run: Path, tmp_path: Path, tiny_train, **settings) -> Path:
    """Two steps from the base step of ``run``."""
    return tiny_train(tmp_path / "other", **{**ALIFE_M, "task": "6-6", **settings}, base_from=str(run))


@pytest.fixture(scope="module")
def plain_base(tmp_path_factory, tiny_train) -> Path:
    """A finished ALIFE run of two steps, which has no memory."""
    return tiny_train(tmp_path_factory.mktemp("runs") / "alife", method="alife", task="6-6")


def test_a_base_step_without_a_memory_gets_one(plain_base, tmp_path, tiny_train):
    run = step_1_of(plain_base, tmp_path, tiny_train, feature_replay="unrotated")
    complete, moved = memory_of(run, "step_0"), memory_of(run, "step_1-rotated")
    assert torch.equal(complete.features, moved.features)
    assert (moved.step, moved.class_ids) == (1, complete.class_ids) and moved.extractor != complete.extractor
    names = [stage["name"] for stage in outcome(run)[0]["stages"]]
    assert names == ["train", "features"]
    # Stage 1 is ALIFE's, so its log is the same; no rotation is fitted.
    ours, theirs = (outcome(folder)[1]["loss_log"] for folder in (run, plain_base))
    assert ours[: len(theirs)] == theirs
    assert not any("fid" in item for item in ours) and all("memory" in item for item in ours[len(theirs) :])


def test_without_a_memory(plain_base, tmp_path, tiny_train):
    run = step_1_of(plain_base, tmp_path, tiny_train, feature_replay="none")
    assert not (run / "memory").exists()
    log = outcome(run)[1]["loss_log"][len(outcome(plain_base)[1]["loss_log"]) :]
    assert log and all(set(item) - {"iteration", "learning_rate", "loss"} == {"focal", "ali"} for item in log)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), r"step_0\.pt: expected a feature memory, there is no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), r"step_0\.pt: damaged or not a feature memory: "),
        (
            lambda path: shutil.copy(path.parent / "step_1.pt", path),
            r"step_0\.pt: feature memory does not fit the model and the task: step: expected 0, got 1",
        ),
    ],
)
def test_a_memory_that_does_not_fit_ends_the_run_before_training(
    alife_m_run, tmp_path, tiny_train, monkeypatch, spoil, words
):
    def never(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(stages, "train_model", never)
    run = shutil.copytree(alife_m_run, tmp_path / "run")
    spoil(run / "memory" / "step_0.pt")
    remove_step_1(run)
    with pytest.raises(CheckpointError, match=words) as error:
        tiny_train(run, **ALIFE_M)
    assert "\n" not in str(error.value)


def test_a_single_channel_cannot_be_rotated(tiny_config):
    words = r"^--head-channels: alife-m rotates features, expected at least 2, got 1 \(--feature-replay unrotated "
    with pytest.raises(ConfigError, match=words):
        make_plan(tiny_config(**{**ALIFE_M, "head_channels": 1}), Reporter(quiet=True))
    for settings in ({"method": "alife"}, {**ALIFE_M, "feature_replay": "none"}):
        make_plan(tiny_config(**{**settings, "head_channels": 1}), Reporter(quiet=True))


def test_features_that_are_not_finite_end_the_run_in_one_line(tmp_path, tiny_train, monkeypatch):
    maps = feature_replay.feature_maps
    monkeypatch.setattr(feature_replay, "feature_maps", lambda *arguments: maps(*arguments) * float("inf"))
    with pytest.raises(CissFastError, match=r"^step 0: the model's features of background are not finite; a lower "):
        tiny_train(tmp_path / "run", **ALIFE_M)
    assert not list((tmp_path / "run").glob("memory/*"))


def test_settings_of_the_memory_are_the_runs_own(alife_m_run, tiny_train):
    with pytest.raises(ConfigError, match="another configuration: features_per_class is 6 there and 7 here"):
        tiny_train(alife_m_run, **{**ALIFE_M, "features_per_class": 7})


def test_a_class_without_images_is_found_before_training():
    task = Task.parse("2-1", num_classes=5)
    presence = np.zeros((4, 5), dtype=bool)
    presence[0, [0, 1]] = presence[1, [0, 3]] = presence[2, 4] = True
    images = [np.array([0, 3]), np.array([1]), np.array([2])]
    words = "^step 0: features of every class are kept; expected training images that show class 2, got none of 2$"
    with pytest.raises(DataError, match=words):
        check_every_class_is_shown(presence, task, images)
    presence[3, 2] = True
    check_every_class_is_shown(presence, task, images)  # the last step's classes need no images: nothing is kept


def test_published_weight_of_the_rotations(tiny_config):
    assert make_plan(tiny_config(**ALIFE_M), Reporter(quiet=True)).settings.rotation_weight == 0.99
    plan = make_plan(tiny_config(**ALIFE_M, rotation_weight=0.5), Reporter(quiet=True))
    assert plan.settings.rotation_weight == plan.config.replay.rotation_weight == 0.5
    with pytest.raises(ConfigError, match="^rotation_weight: expected 0 to 1, got 1.5$"):
        make_plan(tiny_config(**ALIFE_M, rotation_weight=1.5), Reporter(quiet=True))


def test_kept_batches_are_handed_out_in_order_as_far_as_they_fit():
    kept = feature_replay.KeptBatches(100)
    batches = [(torch.full((4,), float(number)), torch.zeros(20, dtype=torch.uint8)) for number in range(4)]
    for batch in batches:  # 36 bytes each
        kept.add(batch)
    kept.add((torch.zeros(1, dtype=torch.uint8),))  # would fit, but there is a gap before it
    assert [kept.take(), kept.take(), kept.take()] == [batches[0], batches[1], None]
