"""The benchmark of ``cayley_rotate`` on small cases: that it runs, and that it refuses wrong results."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import cayley_rotate
from benchmarks.__main__ import main
from benchmarks.cayley_rotate import CASES, spectral_norm
from benchmarks.measure import check_errors
from ciss_fast import native

needs_native = pytest.mark.skipif(
    native.reason_without("cayley_rotate") is not None, reason=f"{native.reason_without('cayley_rotate')}"
)
QUICK = ["cayley_rotate", "--quick", "--no-compile", "--no-memory", "--threads", "1"]


def case_named(name: str) -> cayley_rotate.RotationCase:
    return next(case for case in CASES if case.name == name)


@needs_native
def test_table_and_json(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert main([*QUICK, "--cases", "start-16,normal-20-16,apply-16", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    start, direct, applying = json.loads((tmp_path / "cayley_rotate-quick.json").read_text())["cases"]
    for record in (start, direct, applying):
        assert record["name"] in output
        others = {"ours, term by term"} if record is not applying else set()
        assert set(record["milliseconds"]) == others | {"eager", "ours", "loop of solves", "batched solve, one thread"}
    assert start["details"]["products_per_class"] > 0 and start["details"]["classes_solved_directly"] == 0
    assert direct["details"]["classes_solved_directly"] == direct["details"]["pixels"] == 8
    assert applying["details"]["pixels"] == 8 * 100


@needs_native
@pytest.mark.parametrize("name", ["our_fit", "our_rotation", "loop_of_inverses", "batched_solve"])
def test_wrong_candidate_is_refused(name, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = getattr(cayley_rotate, name)
    monkeypatch.setattr(cayley_rotate, name, lambda params, *others, **named: right(1.01 * params, *others, **named))
    assert main([*QUICK, "--cases", "normal-3-16"]) == 1
    captured = capsys.readouterr()
    assert "normal-3-16" not in captured.out and ": expected the float64 reference's" in captured.err


@pytest.mark.parametrize("case", [case for case in CASES if case.name.endswith("-16")], ids=lambda case: case.name)
def test_candidates_agree(case) -> None:
    workload = replace(case.shrunk(), dimension=40).workload()
    expected = workload.expected()
    for name, candidate in workload.candidates.items():
        check_errors(case.name, name, workload.errors(candidate(), expected), workload.allowed)


@pytest.mark.parametrize("name", ["normal-3-16", "fit-3-16"])
def test_norms(name) -> None:
    case = replace(case_named(name), classes=3, dimension=32)
    classifier = torch.randn(8, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(8)
    first, again = (case.parameters(torch.Generator().manual_seed(0), classifier) for _ in range(2))
    assert torch.equal(first, again)
    for params in first:
        assert spectral_norm(params, 32) == pytest.approx(3, rel=1e-5)


def test_threads_are_given_back_by_the_batched_solve() -> None:
    torch.set_num_threads(2)
    assert cayley_rotate.on_one_thread(torch.get_num_threads) == 1
    assert torch.get_num_threads() == 2


@needs_native
def test_names_and_floors() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.compared_with for case in CASES} - {None} <= set(names)
    iterations = torch.tensor([4, 6, -1])
    case = replace(case_named("start-16"), classes=3, dimension=12)
    assert case.multiply_adds(iterations) == 2 * (10 * 12 * 11 + 12**3 // 3)
    assert replace(case, vectors=1000).multiply_adds(-torch.ones(3)) == 3 * 12 * 12 * (12 + 12 + 1000)
    assert case.workload().traffic_bytes == 3 * 4 * 3 * 66
    assert replace(case, vectors=20).workload().traffic_bytes == 4 * 3 * 66 + 2 * 4 * 3 * 20 * 12
