"""When an installation has CUDA kernels: where nvcc is, unless told otherwise; one that is unfit does no harm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ciss_fast import cuda_runtime

# Notes down the configurations it is called for, and fails for CUDA's.
CMAKE = """#!/bin/sh
case " $* " in
  *-DCISS_FAST_CUDA=ON*) echo with >> calls; echo "CMake Error: no good nvcc"; exit 1;;
  *-DCISS_FAST_CUDA=OFF*) echo without >> calls;;
esac
"""


@pytest.fixture
def package(repository: Path, tmp_path: Path) -> Path:
    """What setup.py reads, and a folder of programs."""
    pytest.importorskip("setuptools", "77")
    pytest.importorskip("pybind11")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, tmp_path)
    (tmp_path / "ciss_fast").mkdir()
    (tmp_path / "ciss_fast" / "__init__.py").write_text('__version__ = "0"\n')
    (tmp_path / "programs").mkdir()
    return tmp_path


def write_program(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return file


def build(package: Path, *, cuda: str | None, nvcc: bool, torch: str | None = None) -> tuple[int, str, list[str]]:
    """Exit code and output of setup.py, and the configurations cmake was called for."""
    write_program(package / "programs", "cmake", CMAKE)
    if nvcc:
        write_program(package / "programs", "nvcc", "#!/bin/sh\n")
    if torch is not None:
        (package / "torch").mkdir()
        (package / "torch" / "__init__.py").touch()
        (package / "torch" / "version.py").write_text(f"cuda: str | None = {torch}\n")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("CISS_", "CUDACXX"))}
    variables |= {"PATH": f"{package / 'programs'}:/usr/bin:/bin", "PYTHONPATH": str(package)}
    if shutil.which("nvcc", path="/usr/bin:/bin"):
        pytest.skip("nvcc is among the system's own programs")
    if cuda is not None:
        variables["CISS_FAST_CUDA"] = cuda
    finished = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", "out"],
        cwd=package, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    calls = package / "calls"
    return finished.returncode, finished.stdout, calls.read_text().split() if calls.exists() else []


def test_nvcc_that_fails_leaves_the_rest(package) -> None:
    code, output, calls = build(package, cuda=None, nvcc=True, torch="'13.0'")
    assert code == 0 and calls == ["without", "with"], output
    assert "the CUDA kernels of ciss_fast were not built (its message is above). They need nvcc 11.8" in output


def test_asked_for_its_failure_is_an_error(package) -> None:
    code, output, calls = build(package, cuda="1", nvcc=True)
    assert code == 1 and calls == ["without", "with"], output
    assert "the CUDA kernels of ciss_fast were not built (its message is above). They need nvcc 11.8" in output


@pytest.mark.parametrize(
    ("cuda", "nvcc", "torch"), [("0", True, "'13.0'"), (None, False, "'13.0'"), (None, True, "None")]
)
def test_left_out(package, cuda, nvcc, torch) -> None:
    code, output, calls = build(package, cuda=cuda, nvcc=nvcc, torch=torch)
    assert code == 0 and calls == ["without"], output


def test_switch_with_another_value(package) -> None:
    code, output, _ = build(package, cuda="yes", nvcc=True)
    assert code != 0 and "error: CISS_FAST_CUDA must be 0 or 1, got 'yes'" in output


@pytest.mark.parametrize(
    ("nvcc", "message"),
    [
        (None, "CUDA kernels: expected nvcc on the PATH or in CUDACXX, found none"),
        ("echo 'Cuda compilation tools, release 11.4, V11.4.48'", "CUDA kernels: expected nvcc 11.8 or newer, "),
        pytest.param("echo broken; exit 127", "CUDA kernels: expected the version from ", marks=pytest.mark.slow),
        pytest.param("echo something else", "CUDA kernels: expected the version from ", marks=pytest.mark.slow),
    ],
)
def test_configuration_names_what_is_wrong(repository, tmp_path, nvcc, message) -> None:
    if not shutil.which("cmake") or not shutil.which("ninja"):
        pytest.skip("no cmake or ninja")
    pybind11 = pytest.importorskip("pybind11")
    program = tmp_path / "nvcc"
    if nvcc is not None:
        write_program(tmp_path, "nvcc", f"#!/bin/sh\n{nvcc}\n")
    finished = subprocess.run(
        ["cmake", "-S", repository, "-B", tmp_path / "build", "-G", "Ninja", "-DCISS_FAST_CUDA=ON",
         f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"],
        env={**os.environ, "CUDACXX": str(program)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert finished.returncode != 0 and message in finished.stdout, finished.stdout


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        ("80-real 90-real 120-real 120-virtual", (7, 5), False),
        ("80-real 90-real 120-real 120-virtual", (8, 0), True),
        ("80-real 90-real 120-real 120-virtual", (8, 9), True),  # machine code of the same major number
        ("80-real 90-real 120-real 120-virtual", (10, 3), False),
        ("80-real 90-real 120-real 120-virtual", (12, 1), True),
        ("80-real 90-real 120-real 120-virtual", (13, 0), True),  # PTX
        ("90-real", (8, 9), False),
        ("90-real", (10, 0), False),
        ("90", (10, 0), True),
        ("90", (8, 0), False),
        ("native", (9, 0), True),
    ],
)
def test_which_gpus_the_kernels_serve(architectures, capability, expected) -> None:
    assert cuda_runtime.compiled_for(architectures, capability) is expected


class Module:
    """A library of CUDA kernels."""

    compiler, architectures = "nvcc 13.0.88", "80-real 90-real"

    @staticmethod
    def runtime_version() -> int:
        return 13000

    @staticmethod
    def driver_version() -> int:
        return 12080


def test_reasons_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_runtime, "module_or_reason", lambda: (Module, None))
    monkeypatch.setattr(cuda_runtime.torch.cuda, "is_available", lambda: False)
    assert cuda_runtime.reason_without() == "no GPU"
    monkeypatch.setattr(cuda_runtime.torch.cuda, "is_available", lambda: True)
    expected = "the kernels need a driver for CUDA 13.0, the one installed is for CUDA 12.8"
    assert cuda_runtime.reason_without() == expected
    monkeypatch.setattr(Module, "driver_version", staticmethod(lambda: 13010))
    monkeypatch.setattr(cuda_runtime.torch.cuda, "get_device_capability", lambda: (12, 0))
    expected = "the kernels are compiled for 80-real 90-real, the GPU has compute capability 12.0"
    assert cuda_runtime.reason_without() == expected
    monkeypatch.setattr(cuda_runtime.torch.cuda, "get_device_capability", lambda: (9, 0))
    assert cuda_runtime.reason_without() is None
