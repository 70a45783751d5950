"""The comparison's list of experiments, their order and their resumption; whole tiny runs where they are asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.comparison.__main__ import main
from benchmarks.comparison.data import BASE_ONLY, prepare
from benchmarks.comparison.experiments import METHODS, QUICK_SETTINGS, SETTINGS, Experiment, Setting, all_experiments
from benchmarks.comparison.page import write_tables
from benchmarks.comparison.pictures import draw_picture
from benchmarks.comparison.schedule import Failed, command_line, run_all
from ciss_fast.data import build_dataset
from ciss_fast.engine.config import Config
from ciss_fast.engine.recipes import load_recipe
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.errors import DataError
from ciss_fast.palette import class_palette
from ciss_fast.report.configurations import Configuration, RunData

HERE = Setting("here", "shapes", "demo", "6-3", (0,))


def experiments(**bases):
    return [Experiment(name, "group", HERE, 0, {"method": "alife"}, base) for name, base in bases.items()]


def test_every_method_is_there_and_every_base_comes_before_what_needs_it():
    names = [one.name for one in all_experiments(SETTINGS, "msrc-15-6")]
    assert len(set(names)) == len(names)
    for setting in SETTINGS:
        for seed in setting.seeds:
            assert {f"{setting.name}/{method}-seed{seed}" for method in METHODS} <= set(names)
    for one in all_experiments(SETTINGS, "msrc-15-6"):
        assert one.base is None or names.index(one.base) < names.index(one.name)
    own = [one.name for one in all_experiments(SETTINGS, "msrc-15-6") if one.base is None]
    assert [name for name in own if name.startswith("voc")] == [
        "voc-15-5/fine-tuning-seed0", "voc-15-5/dkd-seed0", "voc-15-5/joint-seed0",
    ]  # fmt: skip


@pytest.mark.parametrize("setting", [*SETTINGS, *QUICK_SETTINGS], ids=lambda setting: setting.name)
def test_recipes_and_changes_are_settings(setting):
    for one in all_experiments([setting], setting.name):
        load_recipe(setting.recipe).with_settings({**setting.changes, **one.settings, "task": setting.task})


def test_command_line(tmp_path):
    one = Experiment(
        "a/b", "a", HERE, 3, {"method": "alife", "loss_weight": {"ali": 0, "kd": 2}, "unbiased_terms": True}, "a/base"
    )
    command = command_line(one, {**one.settings, "flip": False, "output": "out"}, tmp_path)
    assert command[1:6] == ["-m", "ciss_fast", "train", "--recipe", "demo"]
    text = " ".join(command)
    assert "--loss-weight ali=0 --loss-weight kd=2 --unbiased-terms --no-flip --output out" in text
    assert command[-2:] == ["--base-from", str(tmp_path / "a/base")]


def test_bases_run_first_and_what_is_done_is_not_done_again(tmp_path):
    wanted, started = experiments(later="base", base=None, alone=None), []

    def command(one):
        started.append(one.name)
        (tmp_path / one.name).mkdir(exist_ok=True)
        return [sys.executable, "-c", "pass"]

    lines = []
    run_all(wanted, command, tmp_path, 2, lines.append)
    assert set(started) == {"later", "base", "alone"} and started.index("base") < started.index("later")
    run_all(wanted, command, tmp_path, 2, lines.append)
    assert len(started) == 3


def test_a_failure_is_named_and_stops_what_has_not_started(tmp_path):
    def command(one):
        (tmp_path / one.name).mkdir(exist_ok=True)
        return [sys.executable, "-c", "import sys; print('error: reason'); sys.exit(2)" if one.name == "base" else ""]

    with pytest.raises(Failed, match="^base ended with exit code 2: see .*base.log$"):
        run_all(experiments(base=None, later="base"), command, tmp_path, 1, lambda line: None)
    assert "error: reason" in (tmp_path / "logs" / "base.log").read_text()
    assert not (tmp_path / "later").exists() and not (tmp_path / "base" / "done").exists()


def test_missing_data_is_named(tmp_path, capsys):
    with pytest.raises(DataError, match="msrc21_320.tar: not found"):
        prepare("msrc21_320", tmp_path / "nowhere", tmp_path)
    assert main(["run", "--data", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 2
    assert main(["run", "--only", "nothing", "--output", str(tmp_path)]) == 2
    assert "no experiment is called nothing" in capsys.readouterr().err
    assert main(["page", "--output", str(tmp_path)]) == 2
    assert "expected finished experiments, found none" in capsys.readouterr().err


def test_tuning_sees_the_base_classes_training_images_alone(tmp_path, shared_file):
    source = shared_file("data/msrc21_320.tar").parent
    settings = prepare(f"msrc21_320{BASE_ONLY}", source, tmp_path)
    whole = prepare("msrc21_320", source, tmp_path)
    listed = set(build_dataset("folder", Path(whole["data_root"]), "train").ids)
    found = []
    for split in ("train", "val"):
        data = build_dataset("folder", Path(settings["data_root"]), split)
        found += data.ids
        assert len(data.class_names) == 16
        assert all(set(np.unique(data.load_label(index))) <= {*range(16), 255} for index in range(0, len(data), 20))
    assert len(found) == len(set(found)) == 360 and set(found) <= listed  # 360: images of 15-6's base step


@pytest.fixture
def configuration(tmp_path):
    """A function that makes one of runs with these hIoU after their two steps, previews included."""

    def make(name, *scores):
        runs = []
        for number, score in enumerate(scores):
            folder = ResultsFolder(tmp_path / f"{name}{number}")
            folder.claim(Config())
            images = [np.zeros((6, 8, 3), dtype=np.uint8)]
            folder.write_preview_images(images, [np.zeros((6, 8), dtype=np.uint8)])
            steps = []
            for step in range(2):
                folder.write_evaluation(step, np.eye(2, dtype=np.int64), [np.full((6, 8), step, dtype=np.uint8)])
                steps.append(
                    {"step": step, "miou_base": 0.5, "miou_new": None, "miou_all": 0.25, "hiou": score, "stages": [],
                     "seconds_training": 60.0 * (1 + step), "peak_memory_bytes": 2**30}
                )  # fmt: skip
            metrics = {"steps": steps, "num_steps": 2, "method": name, "class_names": ["background", "cat"]}
            runs.append(RunData(name, folder, {}, metrics))
        return Configuration(name, runs)

    return make


def test_marked_tables_are_replaced_and_others_kept(tmp_path, configuration):
    path = tmp_path / "tables.md"
    path.write_text("a\n<!-- table one -->\nold\n<!-- end -->\nb\n<!-- table two -->\nkept\n<!-- end -->\n")
    assert write_tables({"one": [configuration("mib", 0.25, 0.75)], "three": []}, path) == 1
    row = "| mib | 2 | 50.0 ± 0.0 | – | 25.0 ± 0.0 | 50.0 ± 35.4 | 1.0 + 2.0 | 1.0 | – |"
    first, text = path.read_text().split("\n", 1)
    assert first == "a" and f"{row}\n<!-- end -->\nb\n<!-- table two -->\nkept\n<!-- end -->\n" in text
    assert "old" not in text
    before = path.read_text()
    assert write_tables({"three": []}, path) == 0 and path.read_text() == before
    path.write_text("nothing marked\n")
    for unmarked in (path, tmp_path / "nowhere.md"):
        with pytest.raises(DataError, match="lines <!-- table GROUP -->"):
            write_tables({}, unmarked)
    assert path.read_text() == "nothing marked\n" and not (tmp_path / "nowhere.md").exists()


def test_picture_shows_predictions(tmp_path, configuration):
    drawn = np.asarray(Image.open(draw_picture(tmp_path / "a.png", [configuration("mib", 0.5)])).convert("RGB"))
    for class_id in range(2):  # as many pixels as a prediction has, not just the legend's patch
        assert (drawn == class_palette()[class_id]).all(axis=-1).sum() > 1000
    assert not (drawn == class_palette()[2]).all(axis=-1).any()
    one = configuration("dkd", 0.5)
    one.runs[0].folder.previews_path.unlink()
    assert draw_picture(tmp_path / "b.png", [one]) is None and not (tmp_path / "b.png").exists()


@pytest.mark.slow
def test_tiny_runs_and_their_page(tmp_path, capsys):
    options = ["--quick", "--output", str(tmp_path)]
    assert main(["run", *options]) == 0, capsys.readouterr().err
    tables = tmp_path / "tables.md"
    tables.write_text("<!-- table shapes-6-1 -->\n<!-- end -->\n")
    assert main(["page", *options, "--page", str(tmp_path / "page.html"), "--tables", str(tables)]) == 0
    printed = capsys.readouterr().out
    assert "| mib | 1 |" in tables.read_text() and (tmp_path / "page-shapes-6-1.png").stat().st_size > 1000
    assert "| dkd-m | 2 |" in printed and "± " in printed
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "shapes-6-3-ablations" in page and "data:image/jpeg" not in page
