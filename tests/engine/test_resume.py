"""An interrupted step goes on, between its stages and inside them, and ends with the bits of an uninterrupted one."""

import dataclasses
import itertools
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ciss_fast.engine import loop
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from ciss_fast.engine.config import Config
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.resume import StepProgress, earlier_progress_path, progress_path
from ciss_fast.engine.schedule import PolySchedule
from ciss_fast.engine.seeding import random_state, set_random_state
from ciss_fast.errors import CheckpointError, ConfigError
from ciss_fast.methods import METHODS, TRAIN, Stage
from ciss_fast.methods.fine_tuning import FineTuning

# One step of three epochs with five iterations each, dropout on, saved after iterations 3, 6, 9 and 12.
ONE_STEP = {"method": "ft", "task": "joint", "epochs_base": 3, "save_every": 3, "log_every": 4, "previews": 0}


class Interrupted(Exception):
    """Stands for whatever ends a run."""


@pytest.fixture
def updates_before_interruption(monkeypatch):
    """A function: the run is interrupted instead of its update number n (from 0); None for never."""
    update = loop.update

    def interrupt(after: int | None) -> None:
        count = itertools.count()

        def counted(*arguments):
            if next(count) == after:
                raise Interrupted
            update(*arguments)

        monkeypatch.setattr(loop, "update", counted)

    return interrupt


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, tiny_train) -> Path:
    return tiny_train(tmp_path_factory.mktemp("runs") / "whole", **ONE_STEP)


def outcome(run: Path) -> list[dict]:
    """What the loss log and scores say, without times."""
    entries = ResultsFolder(run).read_metrics()["steps"]
    for entry in entries:
        del entry["seconds_training"], entry["seconds_testing"], entry["peak_memory_bytes"]
        for stage in entry["stages"]:
            del stage["seconds"]
            stage.pop("seconds_waiting", None)
    return entries


def assert_same_outcome(run: Path, whole: Path) -> None:
    for step in range(len(outcome(whole))):
        first, second = (load_checkpoint(checkpoint_path(folder, step)).model for folder in (run, whole))
        assert first.keys() == second.keys()
        assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert outcome(run) == outcome(whole)
    assert not progress_path(run).exists()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupted_again_and_again(whole_run, tmp_path, tiny_train, updates_before_interruption, workers):
    """Before the first save, in the middle of epochs, at the end of one, in the last iteration."""
    saved = 0
    for executed, saved_after in [(2, 0), (5, 3), (4, 6), (3, 9), (5, 12), (2, 12)]:
        updates_before_interruption(executed)
        with pytest.raises(Interrupted):
            tiny_train(tmp_path / "run", **ONE_STEP, workers=workers)
        if saved_after > 0:
            state = load_checkpoint(progress_path(tmp_path / "run")).progress["state"]
            assert state["iteration"] == saved_after
        assert saved <= saved_after
        saved = saved_after
        torch.rand(17)  # whatever happens in between must not matter
    updates_before_interruption(3)  # as many as are left
    tiny_train(tmp_path / "run", **ONE_STEP, workers=workers)
    assert_same_outcome(tmp_path / "run", whole_run)


class Staged(FineTuning):
    """A stage without a loop that draws random numbers, the training, and a loop over a tensor of its own."""

    name = "staged"

    def stages(self, step):
        return (Stage("noise", self.add_noise), TRAIN, Stage("fit", self.fit))

    @torch.no_grad()
    def add_noise(self, context):
        weight = context.model.classifiers[-1].weight
        weight.add_(torch.rand_like(weight), alpha=0.1)
        context.results["largest"] = weight.max().item()

    def fit(self, context):
        rotation = torch.zeros(3, requires_grad=True)
        optimiser = torch.optim.Adam([rotation], lr=0.1)
        schedule = PolySchedule(optimiser, 7, power=0.9, warmup=0, warmup_start=0)
        work = context.loop(schedule, epoch_length=4, title="fit", tensors={"rotation": rotation})

        def compute_losses(iteration):
            loss = (rotation - torch.rand(3)).square().sum()
            yield loss, {"distance": loss.detach()}

        work.run(compute_losses)
        context.model.classifiers[-1].bias.data[:3] = rotation.detach()
        context.memory_path(context.step, ".txt").parent.mkdir(exist_ok=True)
        context.memory_path(context.step, ".txt").write_text(str(rotation.tolist()))


@pytest.fixture(scope="module")
def staged_method():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "staged", Staged)
        yield {**ONE_STEP, "method": "staged", "epochs_base": 1, "save_every": 4}


@pytest.fixture(scope="module")
def whole_staged_run(tmp_path_factory, tiny_train, staged_method) -> Path:
    return tiny_train(tmp_path_factory.mktemp("runs") / "staged", **staged_method)


def test_stages_are_recorded_in_order(whole_staged_run):
    (entry,) = outcome(whole_staged_run)
    iterations = [(stage["name"], stage["iterations"]) for stage in entry["stages"]]
    assert iterations == [("noise", 0), ("train", 5), ("fit", 7)]
    assert set(entry["stages"][0]) == {"name", "iterations", "largest"}
    assert entry["iterations"] == 12
    # One log for the whole step, numbered through; entries are made every four iterations and at a stage's end.
    assert [item["iteration"] for item in entry["loss_log"]] == [3, 4, 8, 11]
    assert ["distance" in item for item in entry["loss_log"]] == [False, False, True, True]
    assert (whole_staged_run / "memory" / "step_0.txt").read_text().startswith("[")


# Updates 0 to 4 train, 5 to 11 fit; the end of a stage is saved, and the fourth iteration of each loop.
@pytest.mark.parametrize(("after", "stages", "iteration"), [
    (0, ["noise"], None), (4, ["noise"], 4), (5, ["noise", "train"], None), (10, ["noise", "train"], 4),
])  # fmt: skip
def test_interrupted_between_stages(
    whole_staged_run, staged_method, tmp_path, tiny_train, updates_before_interruption, after, stages, iteration
):
    updates_before_interruption(after)
    with pytest.raises(Interrupted):
        tiny_train(tmp_path / "run", **staged_method)
    saved = load_checkpoint(progress_path(tmp_path / "run"))
    assert [stage["name"] for stage in saved.stages] == stages
    assert (saved.progress["state"] or {}).get("iteration") == iteration
    updates_before_interruption(None)
    tiny_train(tmp_path / "run", **staged_method)
    assert_same_outcome(tmp_path / "run", whole_staged_run)
    files = [run / "memory" / "step_0.txt" for run in (tmp_path / "run", whole_staged_run)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_base_step_taken_over_has_only_its_training_done(whole_run, staged_method, tmp_path, tiny_train):
    settings = {**staged_method, **{name: ONE_STEP[name] for name in ("epochs_base", "save_every")}}
    run = tiny_train(tmp_path / "run", **settings, base_from=str(whole_run))
    (entry,), (base,) = outcome(run), outcome(whole_run)
    assert [stage["name"] for stage in entry["stages"]] == ["train", "fit"]
    assert entry["loss_log"][: len(base["loss_log"])] == base["loss_log"]
    models = [load_checkpoint(checkpoint_path(folder, 0)).model for folder in (run, whole_run)]
    assert torch.equal(*(model["head.0.weight"] for model in models))
    assert not torch.equal(*(model["classifiers.0.bias"] for model in models))


@pytest.mark.parametrize(
    "damage",
    [pytest.param("garbage", marks=pytest.mark.slow), pytest.param("truncated", marks=pytest.mark.slow), "one bit"],
)
def test_instead_of_a_damaged_progress_the_one_before_is_taken(
    whole_run, tmp_path, tiny_train, updates_before_interruption, damage
):
    run = tmp_path / "run"
    updates_before_interruption(7)
    with pytest.raises(Interrupted):
        tiny_train(run, **ONE_STEP)
    path = progress_path(run)
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        saved = load_checkpoint(path).model["classifiers.0.weight"].numpy().tobytes()
        content[content.index(saved)] ^= 1
    path.write_bytes({"garbage": b"PK", "truncated": content[:-200], "one bit": content}[damage])
    assert load_checkpoint(earlier_progress_path(run)).progress["state"]["iteration"] == 3
    updates_before_interruption(2)  # before the next save
    with pytest.warns(UserWarning, match=r"in_progress.pt: damaged.*; what was saved before is taken"):
        with pytest.raises(Interrupted):
            tiny_train(run, **ONE_STEP)
    assert load_checkpoint(path).progress["state"]["iteration"] == 3  # the next save keeps it, not the damaged one
    updates_before_interruption(15 - 3)
    tiny_train(run, **ONE_STEP)
    assert_same_outcome(run, whole_run)
    assert not earlier_progress_path(run).exists()


def test_the_step_starts_again_if_both_are_damaged_or_missing(
    whole_run, tmp_path, tiny_train, updates_before_interruption
):
    run = tmp_path / "run"
    updates_before_interruption(7)
    with pytest.raises(Interrupted):
        tiny_train(run, **ONE_STEP)
    progress_path(run).unlink()  # killed between two renamings
    earlier_progress_path(run).write_bytes(b"PK")
    updates_before_interruption(15)
    with pytest.warns(UserWarning, match=r"in_progress_before.pt: damaged.*; step 0 starts from its beginning"):
        tiny_train(run, **ONE_STEP)
    assert_same_outcome(run, whole_run)


def test_progress_is_the_runs_own(tmp_path, tiny_train, updates_before_interruption):
    run = tmp_path / "run"
    updates_before_interruption(4)
    with pytest.raises(Interrupted):
        tiny_train(run, **ONE_STEP)
    before = progress_path(run).read_bytes()
    with pytest.raises(ConfigError, match="holds a run of another configuration: lr_base is 0.01 there and 0.5 here"):
        tiny_train(run, **ONE_STEP, lr_base=0.5)
    (run / "config.json").unlink()
    with pytest.raises(CheckpointError, match="in_progress.pt: belongs to another run: lr_base is 0.01 there"):
        tiny_train(run, **ONE_STEP, lr_base=0.5)
    assert progress_path(run).read_bytes() == before


def test_progress_of_a_finished_step_is_left_alone(whole_run, tmp_path, tiny_train, updates_before_interruption):
    """Killed after the step's own file was written and before the progress was removed."""
    run = tmp_path / "run"
    updates_before_interruption(4)
    with pytest.raises(Interrupted):
        tiny_train(run, **ONE_STEP)
    shutil.copytree(whole_run / "checkpoints", run / "checkpoints", dirs_exist_ok=True)
    updates_before_interruption(0)  # nothing is trained
    tiny_train(run, **ONE_STEP)
    assert outcome(run) == outcome(whole_run)


def test_progress_is_no_finished_step(tmp_path, tiny_train, updates_before_interruption):
    run = tmp_path / "run"
    updates_before_interruption(4)
    with pytest.raises(Interrupted):
        tiny_train(run, **ONE_STEP)
    progress_path(run).rename(checkpoint_path(run, 0))
    with pytest.raises(CheckpointError, match="step_0.pt: expected a finished step, got one under way"):
        tiny_train(run, **ONE_STEP)


def test_curves_show_every_iteration_once(tmp_path, tiny_train, updates_before_interruption):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, settings = tmp_path / "run", {**ONE_STEP, "log_every": 1}
    updates_before_interruption(7)
    with pytest.raises(Interrupted):
        tiny_train(run, **settings)
    updates_before_interruption(None)
    tiny_train(run, **settings)
    events = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("loss/loss")
    assert [event.step for event in events] == list(range(15))
    assert [event.value for event in events] == pytest.approx([item["loss"] for item in outcome(run)[0]["loss_log"]])


def test_when_it_is_saved(monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    settings = Config().with_settings({"save_minutes": 10, "save_every": 100}).run
    progress = StepProgress(Path("unused"), None, None, settings)

    def save(state):
        saved.append((now[0], state))
        progress._saved = now[0]

    monkeypatch.setattr(progress, "save", save)
    for seconds, iteration, epoch_ended in [
        (29, 1, True), (30, 2, False), (31, 3, True), (50, 4, True), (630, 5, False), (631, 6, False), (632, 100, False)
    ]:  # fmt: skip
        now[0] = seconds
        progress.save_if_due(iteration, epoch_ended, lambda iteration=iteration: iteration)
    assert saved == [(31, 3), (631, 6), (632, 100)]


def test_random_generators_go_on():
    draws = [random.random, lambda: random.gauss(0, 1), np.random.random, np.random.standard_normal]
    random.gauss(0, 1), np.random.standard_normal()  # each keeps a second number for the next call
    state = random_state()
    expected = [draw() for draw in draws] + torch.rand(3).tolist()
    set_random_state(state)
    assert [draw() for draw in draws] + torch.rand(3).tolist() == expected


def test_nested_state_comes_back_with_types_and_strides(tmp_path, whole_run):
    checkpoint = load_checkpoint(checkpoint_path(whole_run, 0))
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {"optimiser": {"state": {0: {"step": torch.tensor(3.0), "average": image}}, "groups": [{"lr": 0.1}]}}
    path = save_checkpoint(tmp_path / "c.pt", dataclasses.replace(checkpoint, progress={"state": state}))
    stored = load_checkpoint(path).progress["state"]["optimiser"]
    assert stored["groups"] == [{"lr": 0.1}] and list(stored["state"]) == [0]
    assert torch.equal(stored["state"][0]["average"], image)
    assert stored["state"][0]["average"].stride() == image.stride()


def test_own_progress_goes_before_another_runs_base_step(
    whole_run, tmp_path, tiny_train, updates_before_interruption
):
    run = tmp_path / "run"
    updates_before_interruption(7)
    with pytest.raises(Interrupted):
        tiny_train(run, **ONE_STEP)
    updates_before_interruption(None)
    tiny_train(run, **ONE_STEP, base_from=str(whole_run))
    assert_same_outcome(run, whole_run)
