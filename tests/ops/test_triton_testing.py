"""The helpers that test Triton kernels: what is wrong is noticed, and compiled kernels are read rightly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from triton_compilation import ARCHITECTURES, compiled, recorded_launches, skip_without_compiler
from triton_testing import checks_of, interpreted, judge

KERNELS = """
import triton
import triton.language as tl

@triton.jit
def double(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, 2 * tl.load(x + i, mask=i < n).to(tl.float32), mask=i < n)
"""
CHECKS = """
import pytest
import torch
from double_kernel import double

def run(device):
    x = torch.arange(20, dtype=torch.float16, device=device)
    out = torch.empty(20, device=device)
    double[(2,)](x, out, 20, BLOCK=16)
    return x, out

def check_right(device):
    x, out = run(device)
    assert torch.equal(out, 2 * x.float())

def check_wrong(device):
    x, out = run(device)
    assert torch.equal(out, x.float()), "not the double"

def slow_check_skipped(device):
    pytest.skip("not today")
"""


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a kernel and three checks of it: one passes, one fails, one is skipped."""
    (tmp_path / "double_kernel.py").write_text(KERNELS)
    (tmp_path / "double_checks.py").write_text("import sys, os\nsys.path.insert(0, os.path.dirname(__file__))" + CHECKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("double_kernel", None)


def test_checks_in_the_interpreter(kernels: Path) -> None:
    file = kernels / "double_checks.py"
    assert checks_of(file) == ["check_right", "check_wrong"] and checks_of(file, slow=True) == ["slow_check_skipped"]
    names = ("check_right", "check_wrong", "slow_check_skipped")
    right, wrong, skipped = interpreted((file, name) for name in names).values()
    judge(right)
    with pytest.raises(pytest.fail.Exception, match="not the double"):
        judge(wrong)
    with pytest.raises(pytest.skip.Exception, match="^not today$"):
        judge(skipped)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compilation_ahead_of_time(kernels: Path, architecture: int) -> None:
    skip_without_compiler()
    from double_kernel import double

    def launch() -> None:
        x, out = torch.empty(20, dtype=torch.float16), torch.empty(20)
        double[(2,)](x, out, 20, BLOCK=16, num_warps=1, enable_fp_fusion=True)

    (recorded,) = recorded_launches(launch)
    assert recorded.name == "double" and recorded.grid == (2,)
    binary = compiled(recorded, architecture)
    assert 0 < binary.registers < 64 and binary.spills == 0 and binary.shared == 0
    assert f"sm_{architecture}" in binary.ptx
    assert binary.instructions["STG"] == 1 and binary.instructions["LDG"] >= 1


def test_gpu_tests_fail_where_a_gpu_is_required(tmp_path: Path, repository: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "conftest.py").write_text((repository / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.gpu\ndef test_it(): pass\n")
    for required, outcome in (("0", "1 skipped"), ("1", "1 error")):
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
            env={**os.environ, "CISS_FAST_REQUIRE_GPU": required}, capture_output=True, text=True,
        )  # fmt: skip
        assert outcome in finished.stdout, finished.stdout
