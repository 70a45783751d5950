"""``python -m ciss_fast.info``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ciss_fast import backends, info, native


def test_runs_as_a_module_and_says_why_the_library_is_missing() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "ciss_fast.info"],
        env={**os.environ, "CISS_FAST_DISABLE_NATIVE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    reason = "no: switched off by the environment variable CISS_FAST_DISABLE_NATIVE"
    facts = dict(line.split("  ", 1) for line in finished.stdout.splitlines() if "  " in line)
    assert facts["native library"].strip() == reason
    assert facts["torch"].strip().startswith(torch.__version__)


@pytest.mark.skipif(native.library is None, reason=f"native library: {native.unavailable_reason}")
def test_reports_the_library() -> None:
    report = info.report()
    assert "native library" in report and "yes, compiled with" in report
    for instruction_set in native.library.compiled_instruction_sets():
        assert instruction_set in report


def test_backend_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_ops", {})
    backends.register("some_op", reference=None, cpu="for a reason")
    assert info.report().splitlines()[-3:] == [
        "op       backend    runs here",
        "some_op  reference  yes",
        "some_op  cpu        no: for a reason",
    ]


def test_backend_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_ops", {})
    backends.register("some_op", reference=None, cpu="for a reason")
    backends.require("some_op", "reference")
    with pytest.raises(RuntimeError, match="^some_op: backend 'cpu' cannot run here: for a reason$"):
        backends.require("some_op", "cpu")
    with pytest.raises(ValueError, match="^some_op: backend must be one of reference, cpu, got 'gpu'$"):
        backends.require("some_op", "gpu")


def test_an_op_registers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_ops", {})
    backends.register("some_op", reference=None)
    with pytest.raises(ValueError, match="'some_op' is registered already"):
        backends.register("some_op", reference=None)
