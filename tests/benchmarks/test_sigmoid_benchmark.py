"""The benchmark of ``sigmoid_loss`` on small cases, and the recorded logits it runs on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import eager_sigmoid, machine, recorded_logits
from benchmarks.__main__ import main
from benchmarks.measure import check_errors
from benchmarks.sigmoid_loss import CASES, MIXES, OTHERS, SigmoidCase
from ciss_fast import backends
from ciss_fast.errors import DataError

SMALL = {"logits_size": (3, 4), "label_size": (17, 23)}
FORMS = ("softplus_form", "group_by_group", "one_call", "class_by_class")


def case_named(name: str) -> SigmoidCase:
    return next(case for case in CASES if case.name == name)


@pytest.mark.skipif(backends.table()["sigmoid_loss"]["cpu"] is not None, reason="no kernel to measure")
def test_table_and_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"copy_bandwidth_16_MiB": 1e10, "multiply_adds_per_second": 1e12}  # measuring them takes seconds
    monkeypatch.setattr(machine, "measure_rates", lambda device: rates)
    arguments = ["sigmoid_loss", "--quick", "--no-compile", "--threads", "1", "--no-memory"]
    assert main([*arguments, "--cases", "voc-smooth,voc-rough,voc-base-step", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    records = json.loads((tmp_path / "sigmoid_loss-quick.json").read_text())["cases"]
    assert [record["name"] for record in records] == ["voc-smooth", "voc-rough", "voc-base-step"]
    for record in records:
        assert record["name"] in output
        assert record["floor"]["bound"] == "traffic"
        for errors in record["errors"].values():
            check_errors(record["name"], "", errors, record["allowed_errors"])
    smooth, rough, _ = records
    assert set(OTHERS) <= set(smooth["ratios"])
    assert rough["time_per_pixel_over_compared"] > 0
    assert smooth["details"]["neighbour_difference"] < 1 < rough["details"]["neighbour_difference"]


@pytest.mark.parametrize("labels", ["blobs", "random"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mix", MIXES)
def test_all_mixes_agree_with_the_definition(mix: str, align_corners: bool, labels: str) -> None:
    case = replace(
        case_named("voc-rough"), shape=(2, 9, 5), mix=mix, align_corners=align_corners, labels=labels, **SMALL
    )
    workload = replace(case, others={}).workload()
    expected = workload.expected()
    for name, candidate in workload.candidates.items():
        check_errors(mix, name, workload.errors(candidate(), expected), workload.allowed)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", [{}, {"pos_weight": 2.0, "kd": 3.0, "ac": 0.5}])
@pytest.mark.parametrize("teacher", [True, False])
def test_all_formulations_agree(form: str, weights: dict[str, float], teacher: bool) -> None:
    case = replace(case_named("voc-rough"), shape=(2, 9, 5 if teacher else 1), **SMALL)
    student, logits, label = case.tensors()
    results = []
    for function in (eager_sigmoid.class_by_class, getattr(eager_sigmoid, form)):
        loss = function(eager_sigmoid.Weights(**weights))
        total = loss(student, logits if teacher else None, label, False)
        results.append((total, torch.autograd.grad(total, student)[0]))
    for computed, expected in zip(*results, strict=True):
        torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["voc-bfloat16", "ade-pos-weight", "label-size-voc", "call-overhead"])
def test_other_settings_agree(name: str) -> None:
    case = case_named(name).tiny()
    workload = case.workload()
    expected = workload.expected()
    for candidate in workload.candidates.values():
        total, gradient = candidate()
        assert gradient.dtype == case.dtype
        check_errors(name, "", workload.errors((total, gradient), expected), workload.allowed)


def test_names_of_cases() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.compared_with for case in CASES} - {None} <= set(names)
    for name, text in (("voc-smooth", "a trained network's logits"), ("voc-large-logits", "deviation 50")):
        assert text in case_named(name).description


@pytest.mark.parametrize(("channels", "old"), [(21, 16), (151, 101), (2, 2), (2, 1)])
@pytest.mark.parametrize("size", [(32, 32), (33, 40), (128, 5)])
def test_recorded_logits_of_any_shape(channels: int, old: int, size: tuple[int, int]) -> None:
    student, teacher = recorded_logits.arrange(2, channels, old, size)
    assert student.shape == (2, channels, *size) and teacher.shape == (2, old, *size)
    assert student.is_contiguous() and student.isfinite().all() and teacher.isfinite().all()
    again, _ = recorded_logits.arrange(2, channels, old, size)
    assert torch.equal(again, student)


def test_recorded_logits_are_all_different() -> None:
    for batch, channels, old in ((4, 21, 16), (1, 151, 101)):
        student, teacher = recorded_logits.arrange(batch, channels, old, (32, 32))
        planes = [plane for logits in (student, teacher[:, 1:]) for image in logits for plane in image]
        assert len({tuple(plane.flatten().tolist()) for plane in planes}) == len(planes)


def test_student_and_teacher_of_a_class_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(2, 7, 4, 4)
    monkeypatch.setattr(recorded_logits, "recorded", lambda: (maps, maps[:, :4] + 1))
    student, teacher = recorded_logits.arrange(3, 31, 21, (5, 9))
    assert torch.equal(teacher[:, 1:], student[:, 1:21] + 1)


def test_arranging_leaves_the_smoothness_as_it_is() -> None:
    recorded, _ = recorded_logits.recorded()
    expected = recorded_logits.neighbour_difference(recorded)
    for size in ((32, 32), (64, 64), (128, 128)):
        student, _ = recorded_logits.arrange(4, 21, 16, size)
        assert 0.6 * expected < recorded_logits.neighbour_difference(student) < 1.6 * expected
    assert recorded_logits.neighbour_difference(torch.zeros(1, 1, 1, 1)) == 0
    assert recorded_logits.neighbour_difference(torch.tensor([[[[0.0, 3.0]]]])) == 3


def test_damaged_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_logits, "FILE", tmp_path / "logits.npz")
    recorded_logits.recorded.cache_clear()
    try:
        with pytest.raises(DataError, match=r"^logits\.npz: expected arrays student and teacher, got "):
            recorded_logits.recorded()
        np.savez(tmp_path / "logits.npz", student=np.zeros((1, 3, 4, 4)), teacher=np.zeros((2, 2, 4, 4)))
        with pytest.raises(DataError, match="^logits.npz: expected maps of the same images"):
            recorded_logits.recorded()
    finally:
        recorded_logits.recorded.cache_clear()
