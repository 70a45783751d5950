"""Benchmarks on a GPU as far as a CPU can try them: cases, devices, the record, the training step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, report, runner, training_step
from benchmarks.__main__ import device_named
from benchmarks.__main__ import main as run_benchmark
from benchmarks.case import OPS, Target, Workload, load_cases
from benchmarks.measure import WrongResult
from ciss_fast.errors import ConfigError

ON_GPU = Target(torch.device("cuda", 0), "triton")


@pytest.mark.parametrize("op", OPS)
def test_cases_for_a_gpu(op: str) -> None:
    names = [case.name for case in load_cases(op, ON_GPU)]
    assert len(set(names)) == len(names)
    on_cpu = [case.name for case in load_cases(op)]
    assert names[len(names) - len(on_cpu) :] == on_cpu
    assert {case.compared_with for case in load_cases(op, ON_GPU)} - {None} <= set(names)


def test_goals_have_cases() -> None:
    cases = {case.name: case for op in ("softmax_loss", "sigmoid_loss") for case in load_cases(op, ON_GPU)}
    for name in ("gpu-ade-alife", "gpu-ade-dkd"):
        assert cases[name].shape == (12, 151, 101) and cases[name].label_size == (512, 512) and cases[name].compiled
    for name in ("gpu-label-size-ade-alife", "gpu-label-size-ade-dkd"):
        assert cases[name].logits_size == cases[name].label_size == (512, 512)
    assert "start-141" in [case.name for case in load_cases("cayley_rotate", ON_GPU)]


@pytest.mark.parametrize("name", ["abacus", "meta", "cuda:99"])
def test_devices_that_are_not_here(name: str) -> None:
    with pytest.raises(ConfigError, match="--device: expected"):
        device_named(name)


def test_a_backend_that_cannot_run_is_refused(capsys) -> None:
    assert run_benchmark(["softmax_loss", "--backend", "abacus", "--cases", "call-overhead"]) == 2
    assert "abacus" in capsys.readouterr().err


def test_the_backend_is_passed_on() -> None:
    case = next(case for case in load_cases("softmax_loss") if case.name == "call-overhead")
    workload = case.workload(Target(backend="reference"))
    assert workload.errors(workload.candidates["ours"](), workload.expected())["loss"] < 1e-4
    with pytest.raises(ValueError, match="abacus"):
        case.workload(Target(backend="abacus")).candidates["ours"]()


def record_of(candidates, monkeypatch) -> dict:
    """The runner's record with a GPU's events, memory and graphs replaced."""
    workload = Workload(
        candidates=candidates, compiled=None, expected=lambda: 1.0,
        errors=lambda result, expected: {"value": abs(result - expected)}, allowed={"value": 1e-5},
        pixels=1, traffic_bytes=8000, multiply_adds=100, details={"pixels": 1},
    )  # fmt: skip

    class Case:
        name, description, compared_with = "case", "a case", None

        def workload(self, target: Target) -> Workload:
            assert target is ON_GPU
            return workload

    def times(candidate, count: int) -> list[float]:
        return [1e-3 * candidate() for _ in range(count)]

    monkeypatch.setattr(runner.machine, "timer", lambda device: times)
    monkeypatch.setattr(runner.gpu, "captured", lambda candidate, device: candidate)
    monkeypatch.setattr(runner.gpu, "peak_allocation", lambda function, device: {"bytes": 5, "method": "none"})
    rates = {"copy_bandwidth_4096_MiB": 16e6, "multiply_adds_per_second": 1e9}
    (record,) = runner.run("op", [Case()], runner.Settings(1, 2, 0.0, target=ON_GPU), rates, lambda text: None)
    return record


def test_record_on_a_gpu(monkeypatch) -> None:
    def too_large() -> float:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB\nmore")

    record = record_of({"eager": too_large, "ours": lambda: 1.0, "other": lambda: 1.00005}, monkeypatch)
    assert record["left_out"] == {"eager": "CUDA out of memory. Tried to allocate 80 GiB"}
    assert set(record["milliseconds"]) == {"ours", "other", runner.GRAPH}
    assert record["milliseconds"]["ours"]["median"] == pytest.approx(1.0)
    assert record["floor"]["share_of_copy_bandwidth"] == pytest.approx(0.5)
    assert record["floor"]["milliseconds"] == pytest.approx(0.5) and record["floor"]["bound"] == "traffic"
    assert set(record["extra_memory"]) == {"ours", "other"}
    text = report.table([record])
    assert "eager is left out: CUDA out of memory" in text and "50 % of the copy's" in text


def test_wrong_results_are_refused_on_a_gpu(monkeypatch) -> None:
    with pytest.raises(WrongResult, match="ours"):
        record_of({"eager": lambda: 1.0, "ours": lambda: 1.00005}, monkeypatch)
    with pytest.raises(WrongResult, match="eager"):
        record_of({"eager": lambda: 1.0005, "ours": lambda: 1.0}, monkeypatch)


def test_driver_version(tmp_path: Path) -> None:
    file = tmp_path / "version"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC 12.2\n")
    assert gpu.driver_version(file) == "580.95.05"
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n")
    assert gpu.driver_version(file) == "535.129.03"


def test_training_step(tmp_path: Path, capsys) -> None:
    sizes = ["--images", "2", "--size", "32", "--old-classes", "3", "--new-classes", "2"]
    arguments = ["--backbone", "resnet18", *sizes, "--rounds", "1", "--seconds", "0", "--threads", "1", "--float32"]
    assert training_step.main([*arguments, "--output", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "training_step.json").read_text())
    assert set(content["milliseconds"]) == {"step, no loss", "step, ours", "loss, ours", "step, eager", "loss, eager"}
    assert 0 < content["loss_share_of_step"]["ours"] < 1
    assert "the loss is" in capsys.readouterr().out
