"""Runs checks in a process of their own, on one of the compiled instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ciss_fast import native

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` with the modules beside this one importable, and with changes to the environment."""
    here = Path(__file__).resolve().parent
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here))), **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )


def output_with(name: str, code: str, *arguments: str) -> str:
    """Standard output of ``code`` with the instruction set ``name``; skips the test where it cannot be used."""
    if name not in native.library.compiled_instruction_sets():
        pytest.skip(f"{name} is not compiled in")
    finished = run_python(code, *arguments, CISS_FAST_ISA=name)
    if f"does not run {name}" in finished.stderr:
        pytest.skip(f"this processor does not run {name}")
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout
