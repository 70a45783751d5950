"""The script that does everything on a GPU, tried out on the CPU: what it runs, what it writes, how it fails."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_run
from benchmarks.gpu_stages import GOLDEN, VOC_PART, WEIGHTS, Stage, all_stages


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder with every file, all of them empty."""
    folder = tmp_path / "shared"
    for name in (*(f"golden/{name}" for name in GOLDEN), f"data/{VOC_PART}", f"data/{WEIGHTS}"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def call(tmp_path: Path, shared: Path, *arguments: str) -> int:
    common = ["--output", str(tmp_path / "out"), "--shared", str(shared), "--device", "cpu"]
    return gpu_run.main([*common, *arguments])


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


JUNIT = '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1">'
JUNIT += '<testcase><skipped message="one GPU"/></testcase></testsuite></testsuites>'
STAGES = [
    Stage("good", python("print('fine')"), 60.0),
    Stage("bad", python("import sys; print('broken'); sys.exit(3)"), 60.0),
    Stage("slow", python("import time; print('begun', flush=True); time.sleep(600)"), 0.5),
    Stage("absent", ["no-such-command-here"], 60.0),
    Stage("impossible", [], 60.0, missing="no tool"),
    Stage("counted", python(f"open('REPORT', 'w').write('''{JUNIT}''')"), 60.0, {"GPU_RUN_TEST": "1"},
          results=("counted.xml",)),
]  # fmt: skip


def test_a_failing_stage_does_not_stop_the_others(tmp_path, shared, monkeypatch, capsys) -> None:
    def stages(options) -> list[Stage]:
        report = str(options.output / "counted.xml")
        counted = STAGES[-1]
        command = [part.replace("REPORT", report) for part in counted.command]
        return [*STAGES[:-1], Stage(counted.name, command, counted.seconds, results=counted.results)]

    monkeypatch.setattr(gpu_run, "all_stages", stages)
    assert call(tmp_path, shared, "--stages", "good") == 0
    assert call(tmp_path, shared, "--skip", "good") == 1
    out = tmp_path / "out"
    found = json.loads((out / "summary.json").read_text())["stages"]
    assert {name: outcome["status"] for name, outcome in found.items()} == {
        "good": "passed",  # of the first call
        "bad": "failed",
        "slow": "timeout",
        "absent": "failed",
        "impossible": "left out",
        "counted": "passed",
    }
    assert found["bad"]["exit_code"] == 3 and found["bad"]["note"] == "broken"
    assert (out / "logs" / "slow.log").read_text().splitlines()[-1] == "begun"
    assert found["counted"]["tests"] == {
        "tests": 3, "failures": 1, "errors": 0, "skipped": 1, "reasons_for_skipping": {"one GPU": 1},
    }  # fmt: skip
    text = (out / "summary.txt").read_text()
    assert "3 tests, 1 failed, 1 skipped" in text and "no tool" in text
    assert text.strip() in capsys.readouterr().out
    with tarfile.open(out / "results.tar.gz") as archive:
        names = archive.getnames()
    assert {"summary.json", "logs/bad.log"} <= set(names) and not any(name.startswith("work") for name in names)


@pytest.mark.parametrize("lost", ["golden/base.npz", f"data/{VOC_PART}"])
def test_missing_files_fail_at_once(tmp_path, shared, lost, capsys) -> None:
    (shared / lost).unlink()
    assert call(tmp_path, shared) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert lost in line and str(shared) in line and captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "nothing"], "'nothing'"),
        (["--skip", "build,nothing"], "'nothing'"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_wrong_command_line(tmp_path, shared, arguments, message, capsys) -> None:
    assert call(tmp_path, shared, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_without_a_gpu_nothing_runs(tmp_path, shared, capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert call(tmp_path, shared, "--device", "cuda") == 2
    assert "found none" in capsys.readouterr().err


def test_all_stages(tmp_path, shared, capsys) -> None:
    assert call(tmp_path, shared, "--list", "--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert names[:2] == ["build", "environment"] and len(set(names)) == len(names)
    for expected in ("tests-gpu", "tests", "sanitizer-racecheck", "benchmark-softmax_loss", "benchmark-training-step"):
        assert expected in names
    assert names[2:5] == ["tests-gpu", "tests-gpu-large", "tests-gpu-checks"]
    assert "benchmark-rotation-fit" in names
    assert [name for name in names if name.startswith("train-")][0] == "train-fine-tuning"


def test_tools_beside_the_interpreter_are_found(tmp_path, shared, monkeypatch) -> None:
    for name in ("python", "cmake", "ninja"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    arguments = ["--output", str(tmp_path), "--shared", str(shared)]
    build = all_stages(gpu_run.parser().parse_args(arguments))[0]
    assert "cmake" not in str(build.missing) and build.environment["PATH"].split(":")[0] == str(tmp_path)


def test_every_test_for_a_gpu_is_in_a_stage(tmp_path, shared, repository) -> None:
    arguments = ["--output", str(tmp_path), "--shared", str(shared)]
    stages = all_stages(gpu_run.parser().parse_args(arguments))
    given = [part for stage in stages if stage.name.startswith("tests-gpu") for part in stage.command]
    mark = "mark." + "gpu"
    files = (repository / "tests").rglob("test_*.py")
    marked = [file.relative_to(repository) for file in files if mark in file.read_text()]
    assert marked
    for path in marked:
        if path.name != "test_triton_testing.py":  # which writes a test with the mark
            assert {str(path), str(path.parent)} & set(given), path


def test_a_gpu_is_required_of_the_tests(tmp_path, shared) -> None:
    arguments = ["--output", str(tmp_path), "--shared", str(shared), "--backend", "triton"]
    stages = {stage.name: stage for stage in all_stages(gpu_run.parser().parse_args(arguments))}
    assert stages["tests-gpu"].environment == {"CISS_FAST_SHARED": str(shared), "CISS_FAST_REQUIRE_GPU": "1"}
    assert f"golden/{GOLDEN[0]}" in stages["tests"].needs
    assert {"--device", "cuda", "--backend", "triton"} <= set(stages["benchmark-sigmoid_loss"].command)
    assert {"benchmarks.rotation_fit", "--device", "cuda"} <= set(stages["benchmark-rotation-fit"].command)
    assert stages["benchmark-rotation-fit"].environment == {"CISS_FAST_BACKEND": "triton"}
