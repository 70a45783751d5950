"""``python -m ciss_fast.info``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ciss_fast import backends, cuda_runtime, info, native


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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    backends.register("some_op", reference=None, cpu="for a reason", triton=lambda: "no GPU", cuda=None)
    assert info.report().splitlines()[-8:] == [
        "op       backend    runs here",
        "some_op  reference  yes",
        "some_op  cpu        no: for a reason",
        "some_op  triton     no: no GPU; never run on a GPU so far",
        "some_op  cuda       yes; never run on a GPU so far",
        "",
        "op       on the CPU  on a GPU",
        "some_op  reference   no GPU here; in this order: triton, cuda, reference",
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert info._choice_lines()[-1] == "some_op  reference   cuda"
    monkeypatch.setitem(backends._environment, "some_op", ("CISS_FAST_BACKEND", "triton"))
    reason = "none: some_op: CISS_FAST_BACKEND 'triton' cannot run here: no GPU"
    assert info._choice_lines()[-1] == f"some_op  {reason}  {reason}"


class CudaKernels:
    """What the library of CUDA kernels says about itself."""

    compiler, architectures = "nvcc 13.0.88", "80-real 90-real 90-virtual"

    @staticmethod
    def runtime_version() -> int:
        return 13000

    @staticmethod
    def driver_version() -> int:
        return 0


def test_facts_of_the_cuda_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_runtime, "module_or_reason", lambda: (CudaKernels, None))
    lines = [" ".join(line.split()) for line in info.report().splitlines()]
    first = lines.index("CUDA kernels yes, compiled with nvcc 13.0.88")
    assert lines[first + 1 : first + 4] == [
        "architectures 80-real 90-real 90-virtual",
        "CUDA runtime 13.0, linked statically",
        "driver for no driver found",
    ]
    monkeypatch.setattr(CudaKernels, "driver_version", staticmethod(lambda: 13010))
    assert ("  driver for", "CUDA 13.1") in info._cuda_kernel_facts()
    monkeypatch.setattr(cuda_runtime, "module_or_reason", lambda: (None, "built without"))
    assert info._cuda_kernel_facts() == [("CUDA kernels", "no: built without")]


def test_triton_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert info._triton().startswith("yes, ") and info._triton().endswith(" (kernels need 3.6 or newer)")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert info._triton().endswith("; interpreting on the CPU, TRITON_INTERPRET is set")
