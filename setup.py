"""Builds the native library with CMake; everything else about the package is in pyproject.toml.

Environment variables:
    CISS_FAST_NATIVE=0              install without the native library (the reference implementations serve)
    CMAKE_ARGS                      further arguments for CMake, separated by spaces
    CMAKE_BUILD_PARALLEL_LEVEL      compiler processes at a time (default: Ninja's choice)
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """`build_ext` for one extension whose sources and options are CMakeLists.txt's business."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        # A folder of our own, not build_temp: setuptools throws that away in editable installs, and with it
        # the objects that need no recompiling. What CMake remembers does go: under build isolation its tools
        # lie elsewhere every time (cmake --fresh would delete the objects as well).
        build = ROOT / "build" / f"cmake-{self.plat_name}-{sys.implementation.cache_tag}"
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        for remembered in build.glob("CMakeFiles/[0-9]*"):
            shutil.rmtree(remembered)
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCISS_FAST_OUTPUT_DIRECTORY={output}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            cause = error if isinstance(error, OSError) else "its message is above"
            raise CompileError(
                f"the native library of ciss_fast was not built ({cause}). It needs CMake, Ninja and a "
                "C++17 compiler, GCC or Clang. CISS_FAST_NATIVE=0 installs without it."
            ) from error


def native_wanted() -> bool:
    value = os.environ.get("CISS_FAST_NATIVE", "1")
    if value not in ("0", "1"):
        raise SystemExit(f"error: CISS_FAST_NATIVE must be 0 or 1, got {value!r}")
    return value == "1"


setup(
    ext_modules=[Extension("ciss_fast._native", sources=[])] if native_wanted() else [],
    cmdclass={"build_ext": CMakeBuild},
)
