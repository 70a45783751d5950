"""Builds the native library with CMake; everything else about the package is in pyproject.toml.

Environment variables:
    CISS_FAST_NATIVE=0              install without the native library (the reference implementations serve)
    CISS_FAST_CUDA=0|1              without, or with, the library of CUDA kernels. It needs nvcc 11.8 or newer, on the
                                    PATH or in CUDACXX. Default: with it where nvcc is found, unless the torch that is
                                    installed is built without CUDA; an nvcc that fails is then a warning, and the
                                    installation goes on without CUDA kernels. With 1 it is an error.
                                    CMAKE_ARGS=-DCMAKE_CUDA_ARCHITECTURES=90 for one architecture
    CMAKE_ARGS                      further arguments for CMake, separated by spaces
    CMAKE_BUILD_PARALLEL_LEVEL      compiler processes at a time (default: Ninja's choice)
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """`build_ext` for extensions whose sources and options are CMakeLists.txt's business; targets have their names.

    The library of CUDA kernels comes last and is configured for by itself: what fails there does the other one no harm.
    """

    configured = False

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        # A folder of our own, not build_temp: setuptools throws that away in editable installs, and with it
        # the objects that need no recompiling. What CMake remembers does go: under build isolation its tools
        # lie elsewhere every time (cmake --fresh would delete the objects as well).
        build = ROOT / "build" / f"cmake-{self.plat_name}-{sys.implementation.cache_tag}"
        if not self.configured:
            (build / "CMakeCache.txt").unlink(missing_ok=True)
            for remembered in build.glob("CMakeFiles/[0-9]*"):
                shutil.rmtree(remembered)
        self.configured = True
        library, name = Path(self.get_ext_fullpath(ext.name)).resolve(), ext.name.split(".")[-1]
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCISS_FAST_OUTPUT_DIRECTORY={library.parent}",
            f"-DCISS_FAST_CUDA={'ON' if name == '_cuda' else 'OFF'}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build), "--target", name], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            library.unlink(missing_ok=True)  # an older one must not pass for this one
            cause = error if isinstance(error, OSError) else "its message is above"
            raise CompileError(f"{FAILURES[name]} ({cause}). {REMEDIES[name]}") from error


FAILURES = {
    "_native": "the native library of ciss_fast was not built",
    "_cuda": "the CUDA kernels of ciss_fast were not built",
}
REMEDIES = {
    "_native": "It needs CMake, Ninja and a C++17 compiler, GCC or Clang. CISS_FAST_NATIVE=0 installs without it.",
    "_cuda": "They need nvcc 11.8 or newer and a C++ compiler it takes. CISS_FAST_CUDA=0 installs without them.",
}


def switch(variable: str, default: bool) -> bool:
    value = os.environ.get(variable, str(int(default)))
    if value not in ("0", "1"):
        raise SystemExit(f"error: {variable} must be 0 or 1, got {value!r}")
    return value == "1"


def native_wanted() -> bool:
    return switch("CISS_FAST_NATIVE", True)


def cuda_wanted() -> bool:
    has_nvcc = "CUDACXX" in os.environ or shutil.which("nvcc") is not None
    return native_wanted() and switch("CISS_FAST_CUDA", has_nvcc and not torch_without_cuda())


def torch_without_cuda() -> bool:
    """Whether the torch that is installed cannot use a GPU; under build isolation none is seen."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda\b[^=]*= None$", version.read_text(), re.MULTILINE) is not None


extensions = [Extension("ciss_fast._native", sources=[])] * native_wanted()
# Optional unless asked for: setuptools turns its failure into a warning.
extensions += [Extension("ciss_fast._cuda", sources=[], optional="CISS_FAST_CUDA" not in os.environ)] * cuda_wanted()
setup(ext_modules=extensions, cmdclass={"build_ext": CMakeBuild})
