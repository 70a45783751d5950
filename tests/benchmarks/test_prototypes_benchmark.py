"""The benchmark of ``prototypes`` on small cases: that it runs, and that it refuses wrong results."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import prototypes
from benchmarks.__main__ import main
from benchmarks.measure import check_errors
from benchmarks.prototypes import CASES
from ciss_fast import native

needs_native = pytest.mark.skipif(
    native.reason_without("prototypes") is not None, reason=f"{native.reason_without('prototypes')}"
)
QUICK = ["prototypes", "--quick", "--no-compile", "--no-memory", "--threads", "1"]


@needs_native
def test_table_and_json(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    assert main([*QUICK, "--cases", "voc-one-image,voc-100-features", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    records = json.loads((tmp_path / "prototypes-quick.json").read_text())["cases"]
    assert [record["name"] for record in records] == ["voc-one-image", "voc-100-features"]
    for record in records:
        assert record["name"] in output
        assert set(record["milliseconds"]) == {"eager", "ours", "eager, class by class"}
        assert record["floor"]["bound"] == "operations"


@needs_native
@pytest.mark.parametrize("name", ["our_prototypes", "class_by_class"])
def test_wrong_candidate_is_refused(name, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = getattr(prototypes, name)
    monkeypatch.setattr(prototypes, name, lambda *tensors: (right(*tensors)[0], right(*tensors)[1] * 1.01))
    assert main([*QUICK, "--cases", "voc-one-image"]) == 1
    captured = capsys.readouterr()
    assert "voc-one-image" not in captured.out and "current: expected" in captured.err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_candidates_agree(case) -> None:
    workload = replace(case.shrunk(), positions=100, dimension=24).workload()
    expected = workload.expected()
    for name, candidate in workload.candidates.items():
        check_errors(case.name, name, workload.errors(candidate(), expected), workload.allowed)


def test_names_and_floor() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.compared_with for case in CASES} - {None} <= set(names)
    workload = next(case for case in CASES if case.name == "voc-one-image").tiny().workload()
    assert workload.multiply_adds == 20 * 2 * 15 * 256
    assert workload.traffic_bytes == 4 * 256 * (2 * 20 + 2 * 15 + 2 * 2)
