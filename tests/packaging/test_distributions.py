"""What the source distribution holds, and that a wheel built from it works in another environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "runs", "local", "*.egg-info", "*.so", "__pycache__", ".*_cache"
)


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    finished = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@pytest.fixture(scope="module")
def source_archive(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from a clean copy: an old egg-info would add files of its own."""
    folder = tmp_path_factory.mktemp("source")
    copy = folder / "copy"
    shutil.copytree(repository, copy, ignore=NOT_SOURCE)
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, folder, cwd=copy)
    (archive,) = folder.glob("*.tar.gz")
    return archive


def test_source_archive_holds_all_sources(source_archive: Path, repository: Path) -> None:
    with tarfile.open(source_archive) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"CMakeLists.txt", "setup.py", "pyproject.toml", "constraints.txt", "Makefile", "LICENSE"}
    wanted |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    for folder, suffixes in {
        "ciss_fast": {".py", ".toml", ".md"},
        "csrc": {".cpp", ".h", ".cu", ".cuh"},
        "tests": {".py"},
    }.items():
        files = [path for path in (repository / folder).rglob("*") if path.suffix in suffixes]
        assert files
        wanted |= {path.relative_to(repository).as_posix() for path in files}
    assert sorted(wanted - names) == []


def test_wheel_from_source_archive_runs_a_loss(source_archive: Path, tmp_path: Path) -> None:
    run(
        sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index",
        "--wheel-dir", tmp_path, source_archive, cwd=tmp_path,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # torch and the other dependencies come from the environment of the tests, behind what is installed here.
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    Path(packages.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    code = """
import sysconfig, torch, ciss_fast
from ciss_fast import native
assert ciss_fast.__file__.startswith(sysconfig.get_path("purelib")), ciss_fast.__file__
assert native.library is not None, native.unavailable_reason
torch.manual_seed(0)
student, teacher = torch.randn(1, 5, 4, 4, requires_grad=True), torch.randn(1, 3, 4, 4)
label = torch.tensor([0, 3, 4, 255]).repeat(1, 16, 4)
results = {}
for backend in ("cpu", "reference"):
    total, _ = ciss_fast.softmax_loss(student, teacher, label, ce=1.0, ali=3.0, kd=1.0, backend=backend)
    results[backend] = total.detach(), *torch.autograd.grad(total, student)
torch.testing.assert_close(results["cpu"], results["reference"])
print("ok")
"""
    assert run(python, "-c", code, cwd=tmp_path, CISS_FAST_DISABLE_NATIVE="0").splitlines()[-1] == "ok"
