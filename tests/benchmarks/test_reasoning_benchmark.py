"""The benchmark of ``reasoning_loss`` on small cases: that it runs, and that it refuses wrong results."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import memory, reasoning_loss
from benchmarks.__main__ import main
from benchmarks.measure import check_errors
from benchmarks.reasoning_loss import CASES
from ciss_fast import native

needs_native = pytest.mark.skipif(
    native.reason_without("reasoning_loss") is not None, reason=f"{native.reason_without('reasoning_loss')}"
)
QUICK = ["reasoning_loss", "--quick", "--no-compile", "--no-memory", "--threads", "1"]


@needs_native
def test_table_and_json(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert main([*QUICK, "--cases", "voc,voc-bfloat16", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    records = json.loads((tmp_path / "reasoning_loss-quick.json").read_text())["cases"]
    assert [record["name"] for record in records] == ["voc", "voc-bfloat16"]
    for record in records:
        assert record["name"] in output
        assert set(record["milliseconds"]) == {"eager", "ours", "eager, term by term"}
        assert record["floor"]["bound"] == "operations"


WRONG = {
    "loss": lambda total: total * 1.001,
    "feature": lambda total: 1.001 * total - 0.001 * total.detach(),
}


@needs_native
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_candidate_is_refused(wrong, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = reasoning_loss.our_loss
    monkeypatch.setattr(reasoning_loss, "our_loss", lambda *tensors: WRONG[wrong](right(*tensors)))
    assert main([*QUICK, "--cases", "call-overhead"]) == 1
    captured = capsys.readouterr()
    assert "call-overhead" not in captured.out and f"call-overhead: ours: {wrong}: expected" in captured.err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_candidates_agree(case) -> None:
    workload = replace(case, batch=2, classes=7, channels=24, size=(6, 5)).workload()
    expected = workload.expected()
    for name, candidate in workload.candidates.items():
        check_errors(case.name, name, workload.errors(candidate(), expected), workload.allowed)


@needs_native
def test_memory_of_a_case() -> None:
    case = next(case for case in CASES if case.name == "ade")
    measured = memory.extra_memory("reasoning_loss", "ade", "ours", threads=1, shrunk=True)["bytes"]
    feature, scores = (4 * case.batch * 8 * 8 * n for n in (case.channels, 2 * case.classes))
    assert measured < 3 * feature + 2**21 and scores > 0


def test_names_and_floor() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.compared_with for case in CASES} - {None} <= set(names)
    workload = CASES[0].tiny().workload()
    assert workload.multiply_adds == 4 * 6 * 2 * 3 and workload.traffic_bytes == 3 * 4 * 3 * 6
