import json
import os
import subprocess
import sys

import pytest

from ciss_fast import __version__
from ciss_fast.cli import main

TINY = [
    "train", "--task", "6-3", "--data-option", "image_size_px=32", "--data-option", "train_images=40",
    "--data-option", "val_images=8", "--crop-size", "32", "--batch-size", "8", "--backbone", "mobilenet_v2",
    "--weights", "none", "--head-channels", "8", "--epochs-base", "1", "--epochs-later", "1", "--device",
    "cpu",
]  # fmt: skip


def test_version(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"ciss-fast {__version__}\n"


def test_train_and_compare(tmp_path, capsys):
    runs = [str(tmp_path / name) for name in ("ft", "mib")]
    assert main([*TINY, "--method", "ft", "--output", runs[0]]) == 0
    output = capsys.readouterr().out
    assert output.startswith("shapes 6-3 (overlapped), fine-tuning: training images by step [")
    assert [line.split()[0] for line in output.splitlines() if "(+" in line] == ["0", "1", "2"]
    assert main([*TINY, "--method", "mib", "--base-from", runs[0], "--output", runs[1], "--quiet"]) == 0
    assert "step 0: taken over" not in capsys.readouterr().out
    assert main(["compare", *runs]) == 0
    output = capsys.readouterr().out
    assert "fine-tuning" in output and "mib" in output
    assert str(tmp_path / "comparison.png") in output
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_command_line_overrides_the_recipe_and_is_saved(tmp_path):
    (tmp_path / "mine.toml").write_text("[data]\nbatch_size = 4\n[optimisation]\nlr_base = 0.25\nlr_later = 0.5\n")
    arguments = [*TINY, "--recipe", str(tmp_path / "mine.toml"), "--lr-later", "0.125", "--no-flip"]
    assert main([*arguments, "--task", "joint", "--method", "ft", "--output", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["batch_size"] == 8  # the command line's
    assert config["optimisation"]["lr_base"] == 0.25  # the recipe's
    assert config["optimisation"]["lr_later"] == 0.125
    assert config["data"]["flip"] is False
    assert config["method"]["method"] == "fine-tuning"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "6-4"], "task '6-4'"),
        (["--task", "six"], "'six'"),
        (["--method", "alive"], "'alive', known: "),
        (["--dataset", "shape"], "'shape': expected one of "),
        (["--setting", "sequence"],
         "--setting: expected one of overlapped, disjoint, sequential, partitioned, got 'sequence'"),
        (["--backbone", "resnet"], "'resnet', known: "),
        (["--weights", "/nonexistent/weights.pth"], "/nonexistent/weights.pth"),
        (["--recipe", "dmeo"], "--recipe: expected the name of a recipe (such as demo) or a file, got 'dmeo'"),
        (["--recipe", "dkd-voc-15-2"], "expected one of the tasks 19-1, "),
        (["--lr-base", "x"], "--lr-base: expected a number or none, got 'x'"),
        (["--lr-later", "1,1,1"], "--lr-later: expected one value or 2 (one for each later step), got 3"),
        (["--loss-weight", "alii=2"],
         "--loss-weight: expected a term out of ac, ali, ckd, dkd_neg, dkd_pos, kd, memory, replay_ali, got 'alii'"),
        (["--method", "alife", "--loss-weight", "ali=1,2,3"], "'ali'"),
        (["--data-option", "size=3"], "'size'"),
        (["--class-order", "1,1,2"], "class 1 (circle) repeats"),
        (["--scale-min", "3"], "--scale-min: expected at most --scale-max (2.0), got 3.0"),
        (["--device", "gpu"], "--device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["--device", "meta"], "--device: expected auto, cpu, cuda or cuda:N, got 'meta'"),
        (["--device", "cpu:1"], "--device: expected auto, cpu, cuda or cuda:N, got 'cpu:1'"),
        (["--data-option", "root=x"], "'shapes' has no option 'root'"),
        (["--batch-size", "1"], "step 0 with 33 training images: a batch of 1 image: "),
        (
            ["--backbone-lr-multiplier", "0", "--head-lr-multiplier", "0", "--later-new-classifier-lr-multiplier", "0",
             "--old-classifiers-lr-multiplier", "0"],
            "step 1 with 21 training images: learning-rate multipliers: expected at least one above 0",
        ),
        (["--base-from", "/nonexistent/run"], "--base-from: expected a run with a finished base step"),
        # One image shows at most four classes, so several of seven steps have none.
        (["--task", "6-1", "--data-option", "train_images=1"], "none of 1 images; expected some that show "),
        (["--learning-rate", "1"], "unrecognized arguments: --learning-rate 1"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(tmp_path, capsys, arguments, message):
    output = tmp_path / "run"
    assert main([*TINY, "--output", str(output), *arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert not output.exists()


def test_missing_data_folder(tmp_path, capsys):
    output = tmp_path / "run"
    assert main(["train", "--dataset", "voc", "--data-root", str(tmp_path / "voc"), "--output", str(output)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"error: {tmp_path / 'voc'}: ")
    assert list(tmp_path.iterdir()) == []


def test_no_command_is_a_mistake(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "run").write_text("mine")
    assert main([*TINY, "--output", str(tmp_path / "run")]) == 2
    assert f"error: --output: expected a folder, got the file {tmp_path / 'run'}" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "mine"


def test_output_below_a_file_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main([*TINY, "--output", str(tmp_path / "file" / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: --output: cannot write to ")


def test_read_only_output(tmp_path, capsys):
    tmp_path.chmod(0o555)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere")
        assert main([*TINY, "--output", str(tmp_path / "run")]) == 2
    finally:
        tmp_path.chmod(0o755)
    assert "error: --output: cannot write to " in capsys.readouterr().err


def test_wrong_weights_file_is_found_before_the_folder_is_made(tmp_path, capsys):
    (tmp_path / "weights.pth").write_bytes(b"not a state dict")
    assert main([*TINY, "--weights", str(tmp_path / "weights.pth"), "--output", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "weights.pth" in lines[0]
    assert not (tmp_path / "run").exists()


def test_compare_refuses_what_is_not_a_run(tmp_path, capsys):
    assert main(["compare", str(tmp_path)]) == 2
    assert "metrics.json: expected the file of a run, there is none" in capsys.readouterr().err


def test_interruption_has_its_own_exit_code(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ciss_fast.engine.run.train", interrupt)
    assert main([*TINY, "--output", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err.startswith("interrupted")


def test_a_reader_that_has_enough_has_its_own_exit_code(repository):
    code = "import sys; from ciss_fast.cli import main; sys.stdin.read(); sys.exit(main(['recipes']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()  # as `head` does, before anything is written
    process.stdin.close()
    assert process.wait(timeout=120) == 141 and process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(("error", "words"), [
    (MemoryError(), "out of memory (none could be had); a smaller --batch-size or --crop-size, --accumulate or "),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
     "out of memory ("),
    (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. \nmore"),
     "a process that loads images has died (DataLoader worker (pid 12) is killed by signal: Killed); if memory ran"),
    (RuntimeError("[../gloo/pair.cc:598] Connection closed by peer [127.0.0.1]:1"),
     "another process of the run has ended"),
    (OSError(28, "No space left on device", "/data/metrics.json"), "/data/metrics.json: No space left on device"),
])  # fmt: skip
def test_failures_of_the_machine_are_one_line(tmp_path, capsys, monkeypatch, error, words):
    def fail(*_):
        raise error

    monkeypatch.setattr("ciss_fast.engine.run.train", fail)
    assert main([*TINY, "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {words}")


def test_what_a_failure_of_the_machine_sets_off_is_the_same_line(tmp_path, capsys, monkeypatch):
    """A loader process that dies while a checkpoint is written: torch.save raises an error of its own."""

    def fail(*_):
        try:
            raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. ")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 14433408 vs 14433296")

    monkeypatch.setattr("ciss_fast.engine.run.train", fail)
    assert main([*TINY, "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a process that loads images has died (DataLoader worker (pid 12) is killed")


def test_a_defect_is_not_taken_for_a_failure_of_the_machine(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("ciss_fast.engine.run.train", fail)
    with pytest.raises(RuntimeError, match="^mat1 and mat2 shapes"):
        main([*TINY, "--output", str(tmp_path / "run")])


def test_as_a_program(tmp_path, repository):
    command = [sys.executable, "-m", "ciss_fast", *TINY, "--output", str(tmp_path / "run"), "--method", "no"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: method: unknown name 'no'") and done.stderr.count("\n") == 1
