"""``ciss-fast train --dry-run``: what would be done, without doing it."""

import json
import re
import shutil

import pytest

from ciss_fast.cli import main
from ciss_fast.engine.checkpoint import checkpoint_path
from ciss_fast.engine.iteration_timer import IterationTimer
from ciss_fast.engine.recipes import load_recipe
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.run_clock import RunClock, Work
from ciss_fast.engine.workload import planned_work


@pytest.fixture
def dry(tmp_path, tiny_config, capsys):
    """A function from settings to the exit code, the lines printed and the errors of a dry run."""

    def run(output=None, **settings):
        recipe = tmp_path / "settings.json"
        recipe.write_text(json.dumps(tiny_config(**settings).to_dict()))
        target = ["--output", str(output or tmp_path / "run")]
        code = main(["train", "--recipe", str(recipe), *target, "--dry-run", "--quiet"])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return run


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_says_what_a_run_would_do_and_writes_nothing(dry, tmp_path, alife_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines, errors = dry(method="alife")
    assert (code, errors) == (0, []) and sorted(path.name for path in tmp_path.iterdir()) == ["settings.json"]
    assert lines[0] == f"dry run of {tmp_path / 'run'}: is new"
    steps = ResultsFolder(alife_run).read_metrics()["steps"]
    rows = [re.fullmatch(r"(\d) \((\d) classes: (.*)\) +(\d+) +(\d+) +(\S+) +(\d+) +(\S+ \S+)", line)
            for line in lines[3:6]]  # fmt: skip
    for row, entry in zip(rows, steps, strict=True):
        assert [int(row[place]) for place in (1, 4, 5, 7)] == [
            entry[name] for name in ("step", "training_images", "iterations", "test_images")
        ]
        assert int(row[2]) == len(entry["new_classes"])
    text = "\n".join(lines)
    assert text.count("% of it waiting for images") == 2
    assert "training, base step: " in text and "training, later steps: " in text
    assert "checkpoints/step_0.pt to step_2.pt: 10 MB each" in text and "\ntime: about " in text
    size = checkpoint_path(alife_run, 2).stat().st_size
    assert 9.5e6 < size < 10.5e6
    # Every setting follows, as a recipe that gives the run's own configuration.
    recipe = tmp_path / "mine.toml"
    recipe.write_text(text[text.index("# every setting") :])
    stored = json.loads((alife_run / "config.json").read_text())
    stored["run"]["output"] = str(tmp_path / "run")
    assert load_recipe(str(recipe)).to_dict() == stored


@pytest.mark.parametrize("method", ["alife-m", "dkd-m"])
def test_every_kind_of_stage_is_tried(dry, method):
    code, lines, _ = dry(method=method, features_per_class=4, rotation_epochs=1, memory_images=4, previews=0, workers=1)
    assert code == 0
    text = "\n".join(lines)
    names = {"alife-m": ["features, base step", "rotations, later steps", "classifiers, later steps"],
             "dkd-m": ["selection, later steps"]}[method]  # fmt: skip
    for name in [*names, "test, base step", "test, later steps"]:
        assert re.search(rf"^  {name}: [\d.e+]+ m?s an image$", text, re.MULTILINE), name
    assert "in one process; 1 are to load" in text and "predictions.png" not in text


def test_a_run_under_way(dry, tmp_path, alife_run):
    run = shutil.copytree(alife_run, tmp_path / "run")
    before = snapshot(run)
    code, lines, _ = dry(method="alife")
    assert code == 0 and lines[0].endswith("run: all steps are done") and "time: nothing is left to be done" in lines
    assert snapshot(run) == before
    checkpoint_path(run, 2).unlink()
    _, lines, _ = dry(method="alife")
    assert lines[0].endswith("run: goes on with step 2")
    assert [line.endswith("done") for line in lines[3:6]] == [True, True, False]


def test_mistakes_are_found_as_in_a_run(dry, tmp_path, alife_run):
    run = shutil.copytree(alife_run, tmp_path / "run")
    before = snapshot(run)
    code, lines, errors = dry(method="alife", lr_later=0.5)
    assert (code, lines, len(errors)) == (2, [], 1) and "another configuration: lr_later is 0.001" in errors[0]
    code, _, errors = dry(output=tmp_path / "new", method="alife", weights="/nonexistent.pth")
    assert code == 2 and "/nonexistent.pth" in errors[0] and not (tmp_path / "new").exists()
    assert snapshot(run) == before


class Progress:
    seconds_waiting = 0.0


def timed(monkeypatch, seconds, total, cut=True, alone=True):
    """The number of items that a timer passes on when each takes so long, and the timer."""
    now = [0.0]
    monkeypatch.setattr("ciss_fast.engine.iteration_timer.time.monotonic", lambda: now[0])
    timer, progress = IterationTimer(type("Device", (), {"type": "cpu"}), alone=alone), Progress()
    timer.clock = RunClock([Work(0, "train", 8 * total, total)])
    timer.begin(0, "train", progress, cut=cut)
    count = 0
    for _, passed in zip(timer.follow(range(total), total, "", {}), seconds, strict=False):
        now[0] += passed
        progress.seconds_waiting += passed / 4
        count += 1
    timer.end()
    return count, timer


def test_a_loop_is_cut_short(monkeypatch):
    count, timer = timed(monkeypatch, [9.0] + [1.0] * 99, 100)
    assert count == 7  # three at least, and fifteen seconds
    assert timer.seconds_per_iteration == 1 and timer.waiting_share == 0.25  # without the first
    assert timer.clock.seconds_left() == pytest.approx(100)
    assert timed(monkeypatch, [0.1] * 100, 100)[0] == 10
    assert timed(monkeypatch, [40.0] * 100, 100)[0] == 1
    assert timed(monkeypatch, [40.0] * 100, 100, alone=False)[0] == 10  # several processes have to agree
    count, timer = timed(monkeypatch, [1.0, 0.0, 0.5, 0.5], 4, cut=False)
    assert count == 4 and timer.seconds_per_iteration == 0.5


def test_loading_that_is_slower_than_training_counts(monkeypatch):
    clock = RunClock([Work(0, "train", 10, 5), Work(1, "train", 10, 5)])
    clock.set_pace(0, "train", 0.5)
    clock.at_least("train", False, 0.25)
    assert clock.seconds_left(0) == 5
    clock.at_least("train", False, 2.0)
    clock.at_least("train", True, 2.0)  # has not been measured: goes by the base step's
    assert clock.seconds_left(0) == 20 and clock.seconds_left(1) == pytest.approx(20 * 4 / 3)


def test_joint_training_has_one_kind_of_step(dry):
    code, lines, _ = dry(method="joint", previews=0)
    assert code == 0 and "later steps" not in "\n".join(lines) and "  checkpoints/step_0.pt: 10 MB each" in lines


def test_planned_work_of_methods_without_a_memory(tiny_config):
    from ciss_fast.engine.plan import make_plan
    from ciss_fast.engine.progress import Reporter

    plan = make_plan(tiny_config(method="mib", epochs_later=2.5), Reporter(quiet=True))
    counts = [len(images) for images in plan.training_images]
    expected = [counts[0] // 8, *(round(2.5 * (count // 8)) for count in counts[1:])]
    work = planned_work(plan)
    assert [item.name for item in work] == ["train", "test"] * 3
    assert [item.iterations for item in work[::2]] == expected and [item.images for item in work[1::2]] == [7, 8, 8]
