"""Loading the compiled library, and what happens without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ciss_fast import native

needs_library = pytest.mark.skipif(native.library is None, reason=f"no library: {native.unavailable_reason}")


def run_python(code: str, **environment: str) -> str:
    """Standard output of ``code`` in a fresh interpreter."""
    finished = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_either_the_library_or_a_reason() -> None:
    assert (native.library is None) == (native.unavailable_reason is not None)


def test_switched_off_by_environment_variable() -> None:
    code = "import ciss_fast; from ciss_fast import native; print(native.library, native.unavailable_reason)"
    assert run_python(code, CISS_FAST_DISABLE_NATIVE="1") == (
        "None switched off by the environment variable CISS_FAST_DISABLE_NATIVE\n"
    )


@needs_library
def test_zero_does_not_switch_off() -> None:
    code = "from ciss_fast import native; print(native.library.__name__, native.unavailable_reason)"
    assert run_python(code, CISS_FAST_DISABLE_NATIVE="0") == "ciss_fast._native None\n"


def test_missing_library_is_a_reason_not_an_error() -> None:
    code = (
        "import sys; sys.modules['ciss_fast._native'] = None\n"
        "from ciss_fast import native; print(native.library, native.unavailable_reason)"
    )
    printed = run_python(code, CISS_FAST_DISABLE_NATIVE="0")
    assert printed.startswith("None not part of this installation")


def test_damaged_library_is_a_reason_not_an_error(tmp_path: Path) -> None:
    # A finder before all others hands out a file that is no library.
    (tmp_path / "_native.so").write_bytes(b"not a library")
    code = f"""
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import spec_from_file_location

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "ciss_fast._native":
            file = {str(tmp_path / "_native.so")!r}
            return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))

sys.meta_path.insert(0, Finder)
from ciss_fast import native
print(native.library, native.unavailable_reason)
"""
    assert run_python(code, CISS_FAST_DISABLE_NATIVE="0").startswith("None cannot be loaded: ")


def test_without_the_library_the_reference_serves() -> None:
    code = """
import torch, ciss_fast
student, label = torch.zeros(1, 4, 2, 2), torch.zeros(1, 8, 8, dtype=torch.int64)
total, _ = ciss_fast.softmax_loss(student, None, label, ce=1.0)
torch.testing.assert_close(total, torch.tensor(4.0).log())
try:
    ciss_fast.softmax_loss(student, None, label, ce=1.0, backend="cpu")
except RuntimeError as error:
    print(error)
"""
    assert run_python(code, CISS_FAST_DISABLE_NATIVE="1") == (
        "softmax_loss: backend 'cpu' cannot run here: "
        "switched off by the environment variable CISS_FAST_DISABLE_NATIVE\n"
    )


@needs_library
def test_instruction_set_by_environment_variable() -> None:
    code = """
from ciss_fast import native
try:
    print(native.library.instruction_set())
except RuntimeError as error:
    print(error)
"""
    enabled = {"CISS_FAST_DISABLE_NATIVE": "0"}
    assert run_python(code, CISS_FAST_ISA="baseline", **enabled) == "baseline\n"
    assert run_python(code, CISS_FAST_ISA="", **enabled).strip() in native.library.compiled_instruction_sets()
    assert run_python(code, CISS_FAST_ISA="other", **enabled) == (
        "CISS_FAST_ISA: expected an instruction set that is compiled in, got other\n"
    )


@needs_library
def test_shares_the_openmp_threads_of_torch() -> None:
    # torch sets the number in the OpenMP library it uses itself; a second one would not hear of it.
    code = """
import torch
from ciss_fast import native
for threads in (1, 3):
    torch.set_num_threads(threads)
    print(native.library.openmp_threads())
"""
    assert run_python(code, CISS_FAST_DISABLE_NATIVE="0").split() == ["1", "3"]
