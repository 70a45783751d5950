"""Data that is missing, damaged or changed, from the command line: one line, and nothing lost or left behind."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from ciss_fast.cli import main
from ciss_fast.data import TrainingSet
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.progress import Reporter

SMALL = [
    "train", "--quiet", "--dataset", "voc", "--task", "19-1", "--method", "ft", "--crop-size", "32", "--batch-size",
    "8", "--backbone", "mobilenet_v2", "--weights", "none", "--head-channels", "8", "--epochs-base", "1",
    "--epochs-later", "2", "--device", "cpu", "--previews", "0", "--freeze-batch-norm", "all",
]  # fmt: skip


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


def unlisted(root):
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()


def unlabelled(root):
    (root / "SegmentationClass" / "7.png").unlink()


def unknown_class(root):
    Image.fromarray(np.full((8, 8), 21, dtype=np.uint8)).save(root / "SegmentationClass" / "7.png")


def colours(root):
    Image.fromarray(np.full((8, 8, 3), 21, dtype=np.uint8)).save(root / "SegmentationClass" / "7.png")


def cut_off(root):
    path = root / "SegmentationClass" / "7.png"
    path.write_bytes(path.read_bytes()[:-30])


def other_layout(root):
    (root / "JPEGImages").rename(root / "images")


def no_image_of_a_step(root):
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.write_text("\n".join(path.read_text().split()[:-1]))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unlisted, "val.txt: image list missing"),
        (unlabelled, "7.png: label map missing; expected it because "),
        (unknown_class, "7.png: label map holds the class id 21; expected ids from 0 to 20"),
        (colours, "7.png: label map has mode RGB"),
        (cut_off, "7.png: label map damaged"),
        (other_layout, "voc: no folder in VOC layout; expected JPEGImages/ and ImageSets/Segmentation/"),
        (no_image_of_a_step, "task '19-1', step 1 (overlapped, train): none of 19 images; expected some that show tv"),
    ],
)
def test_faults_are_one_line_and_leave_nothing_behind(voc_of_squares, tmp_path, capsys, damage, words):
    damage(voc_of_squares)
    output = tmp_path / "run"
    assert main([*SMALL, "--data-root", str(voc_of_squares), "--output", str(output)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]
    assert not output.exists()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(("dataset", "words"), [("ade20k", "ADEChallengeData2016"), ("folder", "classes.txt")])
def test_a_folder_in_the_layout_of_another_data_set(voc_of_squares, tmp_path, capsys, dataset, words):
    arguments = [*SMALL, "--dataset", dataset, "--data-root", str(voc_of_squares), "--output", str(tmp_path / "run")]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and str(voc_of_squares) in lines[0] and words in lines[0]


def test_data_that_changes_between_two_parts_of_a_run(voc_of_squares, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [*SMALL, "--data-root", str(voc_of_squares), "--output", str(run)]
    assert main(arguments) == 0
    checkpoint_path(run, 1).unlink()
    before = shutil.copytree(run, tmp_path / "before")
    path = voc_of_squares / "SegmentationClass" / "7.png"
    original, changed = path.read_bytes(), np.full((8, 8), 3, dtype=np.uint8)
    Image.fromarray(changed).save(path)
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "step_0.pt: belongs to another run: the training data has changed since" in lines[0]
    assert checkpoint_path(run, 0).read_bytes() == checkpoint_path(before, 0).read_bytes()
    path.write_bytes(original)  # the data is brought back, and the run goes on
    assert main(arguments) == 0
    assert checkpoint_path(run, 1).is_file()


def test_data_that_is_damaged_after_it_was_scanned(voc_of_squares, tmp_path, capsys):
    arguments = [*SMALL, "--data-root", str(voc_of_squares), "--output", str(tmp_path / "run")]
    image = voc_of_squares / "JPEGImages" / "7.jpg"
    content = image.read_bytes()
    image.write_bytes(content[:-5])  # the scan reads an image's header only
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "7.jpg: image damaged; expected 8x8 pixels" in lines[0]
    image.write_bytes(content)
    assert main(arguments) == 0


def test_a_scan_that_is_interrupted_has_the_exit_code_and_goes_on(voc_of_squares, tmp_path, capsys, monkeypatch):
    from ciss_fast.data.file_dataset import FileDataset

    load_label, read = FileDataset.load_label, []

    def interrupted(self, index):
        if index == 10 and not read:
            raise KeyboardInterrupt
        return load_label(self, index)

    def watched(self, index):
        read.append(index)
        return load_label(self, index)

    arguments = [*SMALL, "--data-root", str(voc_of_squares), "--output", str(tmp_path / "run"), "--task", "19-2"]
    monkeypatch.setattr(FileDataset, "load_label", interrupted)
    assert main([*arguments, "--task", "19-1"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "run").exists()
    monkeypatch.setattr(FileDataset, "load_label", watched)
    assert main(arguments) == 2  # the task does not exist: found before the scan
    assert read == []
    # Goes on with image 10; the test list is the same one, so its answer is there by then. The base cannot be.
    assert main([*arguments, "--task", "19-1", "--base-from", str(tmp_path / "none")]) == 2
    assert sorted(read) == list(range(10, 20))


def test_a_loader_process_that_dies_ends_the_run_in_one_line(tmp_path, tiny_config, tiny_train, capsys, monkeypatch):
    """In the second epoch; the same command goes on to the same bits."""
    settings = {"method": "ft", "task": "joint", "epochs_base": 2, "save_every": 1, "previews": 0, "workers": 1}
    whole, run = tiny_train(tmp_path / "whole", **settings), tmp_path / "run"
    (tmp_path / "settings.json").write_text(json.dumps(tiny_config(**settings).to_dict()))
    command = ["train", "--recipe", str(tmp_path / "settings.json"), "--output", str(run), "--quiet"]
    getitem = TrainingSet.__getitem__

    def deadly(self, key):
        if key[0] == 1 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return getitem(self, key)

    monkeypatch.setattr(TrainingSet, "__getitem__", deadly)
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a process that loads images has died (")
    monkeypatch.setattr(TrainingSet, "__getitem__", getitem)
    assert main(command) == 0
    first, second = (load_checkpoint(checkpoint_path(folder, 0)).model for folder in (run, whole))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_long_scan_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr("ciss_fast.engine.progress.SECONDS_BETWEEN_LINES", 0.0)
    for quiet, expected in ((False, "reading label maps: 3/20\n"), (True, "")):
        count = Reporter(quiet=quiet).counter("reading label maps")
        count(3, 20)
        count(20, 20)
        assert capsys.readouterr().out == expected
    monkeypatch.setattr("ciss_fast.engine.progress.SECONDS_BETWEEN_LINES", 1000.0)
    Reporter().counter("reading label maps")(3, 20)
    assert capsys.readouterr().out == ""
