"""The benchmark of ``reasoning_loss`` on small cases: that it runs, and that it refuses wrong results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import reasoning_loss
from benchmarks.__main__ import main
from benchmarks.reasoning_loss import CASES
from ciss_fast import native

pytestmark = pytest.mark.skipif(
    native.reason_without("reasoning_loss") is not None, reason=f"{native.reason_without('reasoning_loss')}"
)
QUICK = ["reasoning_loss", "--quick", "--no-compile", "--no-memory", "--threads", "1"]


def test_every_case_runs(tmp_path: Path) -> None:
    assert main([*QUICK, "--output", str(tmp_path)]) == 0
    records = json.loads((tmp_path / "reasoning_loss-quick.json").read_text())["cases"]
    assert [record["name"] for record in records] == [case.name for case in CASES]


def test_a_wrong_total_is_not_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = reasoning_loss.our_loss
    monkeypatch.setattr(reasoning_loss, "our_loss", lambda *tensors: right(*tensors) * 1.01)
    assert main([*QUICK, "--cases", "voc"]) == 1
    assert "ours: loss" in capsys.readouterr().err
