"""The benchmark of ``softmax_loss`` on small cases: that it runs, and that it refuses wrong results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import logits_loss, memory
from benchmarks.__main__ import main, select
from benchmarks.logits_loss import LossCase
from benchmarks.measure import check_errors
from benchmarks.softmax_loss import CASES, MIXES
from ciss_fast import native
from ciss_fast.errors import CissFastError, ConfigError

needs_native = pytest.mark.skipif(native.library is None, reason=f"no native library: {native.unavailable_reason}")
QUICK = ["softmax_loss", "--quick", "--no-compile", "--threads", "1"]
SMALL = {"logits_size": (3, 4), "label_size": (17, 23)}


def case_named(name: str) -> LossCase:
    return next(case for case in CASES if case.name == name)


@needs_native
def test_table_and_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cases = "voc-alife,voc-mib,label-size-voc-*"
    assert main([*QUICK, "--no-memory", "--cases", cases, "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    (file,) = tmp_path.iterdir()
    assert file.name == "softmax_loss-quick.json"  # must not pass for the result of the full cases
    content = json.loads(file.read_text())
    assert content["quick"] and content["machine"]["threads"] == 1
    records = {record["name"]: record for record in content["cases"]}
    assert list(records) == ["voc-alife", "voc-mib", "label-size-voc-alife"]
    for name, record in records.items():
        assert name in output
        assert record["milliseconds"]["ours"]["median"] > 0
        assert record["ratios"]["eager"]["median"] > 0
        for errors in record["errors"].values():
            check_errors(name, "", errors, record["allowed_errors"])
    assert "8x8 to 128x128" in records["voc-alife"]["description"]
    assert records["voc-alife"]["floor"]["bound"] == "operations"
    assert records["label-size-voc-alife"]["floor"]["bound"] == "traffic"
    assert records["voc-mib"]["time_per_pixel_over_compared"] > 0
    assert "eager, term by term" in records["voc-alife"]["errors"]


WRONG = {
    "total": lambda total: total * 1.001,
    "gradient": lambda total: 1.001 * total - 0.001 * total.detach(),
    "nan": lambda total: total * float("nan"),
}


@needs_native
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_candidate_is_refused(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    right = logits_loss.our_loss
    monkeypatch.setattr(logits_loss, "our_loss", lambda *a, **k: WRONG[wrong](right(*a, **k)))
    assert main([*QUICK, "--cases", "call-overhead", "--output", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "call-overhead" not in captured.out and "ours" not in captured.out
    (error,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert "call-overhead: ours: " + ("gradient" if wrong == "gradient" else "loss") in error
    assert list(tmp_path.iterdir()) == []


@needs_native
def test_wrong_baseline_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plain = MIXES["alife"].eager
    half = replace(MIXES["alife"], eager=lambda *arguments: 0.5 * plain(*arguments))
    monkeypatch.setitem(MIXES, "alife", half)
    assert main([*QUICK, "--cases", "call-overhead"]) == 1
    assert "call-overhead: eager: loss" in capsys.readouterr().err


@pytest.mark.parametrize("labels", ["blobs", "random"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mix", MIXES)
def test_all_formulations_agree(mix: str, align_corners: bool, labels: str) -> None:
    case = replace(
        case_named("voc-alife"), shape=(2, 9, 5), mix=mix, align_corners=align_corners, labels=labels, **SMALL
    )
    if mix != "alife":
        case = replace(case, others={})
    workload = case.workload()
    expected = workload.expected()
    for name, candidate in workload.candidates.items():
        check_errors(mix, name, workload.errors(candidate(), expected), workload.allowed)


@pytest.mark.parametrize("name", ["voc-bfloat16", "label-size-ade-scaled"])
def test_other_settings_agree(name: str) -> None:
    case = case_named(name)
    case = replace(case, shape=(2, 9, 5), logits_size=(6, 5), label_size=(6, 5)) if "label-size" in name else case
    workload = case.tiny().workload() if "bfloat16" in name else case.workload()
    expected = workload.expected()
    for candidate in workload.candidates.values():
        total, gradient = candidate()
        assert gradient.dtype == case.dtype
        check_errors(name, "", workload.errors((total, gradient), expected), workload.allowed)


def test_names_of_cases() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.compared_with for case in CASES} - {None} <= set(names)
    assert [case.name for case in select(CASES, "ade-kd,*-kd")] == ["ade-kd", "voc-kd"]
    with pytest.raises(ConfigError, match="'nothing'"):
        select(CASES, "voc-kd,nothing")


def test_inputs_are_the_same_every_time() -> None:
    case = replace(case_named("voc-alife"), **SMALL)
    for first, second in zip(case.tensors(), case.tensors(), strict=True):
        assert torch.equal(first, second)


def test_floors() -> None:
    label_size = replace(case_named("label-size-ade-mib"), logits_size=(8, 8), label_size=(8, 8)).workload()
    assert label_size.multiply_adds == 0
    assert label_size.traffic_bytes == 2 * 8 * 8 * (4 * (151 + 101 + 151) + 8)
    assert replace(case_named("ade-alife"), **SMALL).workload().multiply_adds == 4 * (151 + 101) * 17 * 23
    assert replace(case_named("ade-ce"), **SMALL).workload().multiply_adds == 4 * 151 * 17 * 23
    assert replace(case_named("ade-kd"), **SMALL).workload().multiply_adds == 4 * (101 + 101) * 17 * 23


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["softmax_loss", "--cases", "nothing"], "'nothing'"),
        (["softmax_loss", "--threads", "0"], "above 0"),
        (["unknown"], "'unknown'"),
    ],
)
def test_wrong_command_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and message in line


def test_list_of_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["softmax_loss", "--list", "--cases", "voc-kd"]) == 0
    assert capsys.readouterr().out.split() == "voc-kd 4x21(16) 32x32 to 512x512, KD, align_corners=True".split()


@needs_native
def test_memory_of_a_case() -> None:
    eager, ours = (
        memory.extra_memory("softmax_loss", "voc-alife", name, threads=1, shrunk=True)["bytes"]
        for name in ("eager", "ours")
    )
    enlarged_logits = 4 * 4 * 21 * 128 * 128
    assert eager > 2 * enlarged_logits > 0  # the enlarged logits and their softmax live at the same time
    assert 0 <= ours < enlarged_logits


def test_memory_measurement_that_fails() -> None:
    with pytest.raises(CissFastError, match="voc-alife: nobody: .* failed: .*KeyError"):
        memory.extra_memory("softmax_loss", "voc-alife", "nobody", threads=1, shrunk=True)


@needs_native
@pytest.mark.slow
def test_torch_compile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = [argument for argument in QUICK if argument != "--no-compile"]
    assert main([*arguments, "--no-memory", "--cases", "voc-mib", "--output", str(tmp_path)]) == 0
    (record,) = json.loads((tmp_path / "softmax_loss-quick.json").read_text())["cases"]
    assert "compile_failure" in record or record["ratios"]["torch.compile"]["median"] > 0
