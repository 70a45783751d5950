"""Triton kernels compiled ahead of time, without a GPU, exactly as a launch function would launch them.

`recorded_launches` calls a launch function on CPU tensors while every kernel only notes how it was called;
`compiled` compiles such a launch for an architecture and reads what the binary needs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ciss_fast import triton_runtime

ARCHITECTURES = (pytest.param(80, marks=pytest.mark.slow), 90, pytest.param(100, marks=pytest.mark.slow))
"""Compute capabilities that kernels are compiled for; the quick tests take one of them."""

_TYPES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.uint8: "u8",
    torch.int32: "i32",
    torch.int64: "i64",
}
# Arguments of a launch that are no arguments of the kernel.
_OPTIONS = ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")


@dataclass(frozen=True)
class Launch:
    """One call ``kernel[grid](*arguments, **keywords)``."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.fn.__name__


@dataclass(frozen=True)
class Binary:
    """What a compiled kernel needs, and its instructions.

    Attributes:
        registers: per thread.
        spills: bytes of local memory per thread.
        shared: bytes of shared memory per program.
        instructions: how often each SASS instruction occurs, modifiers left out.
        ptx: the text of the intermediate form.
    """

    registers: int
    spills: int
    shared: int
    instructions: Counter[str]
    ptx: str


def skip_without_compiler() -> None:
    """Skip a test that compiles ahead of time where triton is missing or only interprets."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if triton_runtime.interpreting():
        pytest.skip("TRITON_INTERPRET is set: kernels are interpreted, not compiled")


@contextmanager
def _recording(launches: list[Launch]) -> Iterator[None]:
    from triton.runtime.jit import JITFunction

    def run(self, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        launches.append(Launch(self, grid, arguments, keywords))

    original = JITFunction.run
    JITFunction.run = run
    try:
        yield
    finally:
        JITFunction.run = original


def recorded_launches(call: Callable[[], Any]) -> list[Launch]:
    """The launches that ``call`` makes, in order; none of them runs."""
    launches: list[Launch] = []
    with _recording(launches):
        call()
    return launches


def compiled(launch: Launch, architecture: int) -> Binary:
    """Compile a launch for ``sm_<architecture>`` as triton's launcher would, specialised on the arguments' values."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = launch.kernel
    bound = dict(zip(kernel.arg_names, launch.arguments, strict=False))
    bound.update({name: value for name, value in launch.keywords.items() if name not in _OPTIONS})
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        value = bound.get(parameter.name, parameter.default if parameter.has_default else None)
        specialised = type(value) is int and value == 1 and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or specialised:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        else:
            signature[parameter.name] = _type_of(value)
            divisible = value.data_ptr() % 16 == 0 if isinstance(value, torch.Tensor) else value % 16 == 0
            if divisible and not isinstance(value, float) and not parameter.do_not_specialize:
                attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {name: launch.keywords[name] for name in _OPTIONS if name in launch.keywords}
    result = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    return _read(result)


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{_TYPES[value.dtype]}"
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _read(result: Any) -> Binary:
    import triton

    tools = Path(os.path.dirname(triton.__file__)) / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(result.asm["cubin"])

        def output_of(tool: str, option: str) -> str:
            return subprocess.run([tools / tool, option, file], capture_output=True, text=True, check=True).stdout

        usage, assembly = output_of("cuobjdump", "-res-usage"), output_of("nvdisasm", "-c")
    used = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", usage)
    names = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", assembly, re.MULTILINE)
    return Binary(
        registers=int(used[1]),
        spills=int(used[2]) + int(used[3]),
        shared=int(result.metadata.shared),
        instructions=Counter(names),
        ptx=result.asm["ptx"],
    )


def assert_fits(
    launches: list[Launch], architecture: int, most_registers: dict[str, int], spills: int = 0
) -> dict[str, Binary]:
    """Compile launches; fail where one needs more registers than its kernel is allowed (default 128), or spills more.

    ``spills``: bytes of local memory a thread may have. Returns the binaries by kernel's name.
    """
    binaries = {}
    for launch in launches:
        binary = compiled(launch, architecture)
        binaries[launch.name] = binary
        allowed = most_registers.get(launch.name, 128)
        assert binary.spills <= spills, f"{launch.name}, sm_{architecture}: {binary.spills} bytes of local memory"
        assert binary.registers <= allowed, f"{launch.name}, sm_{architecture}: {binary.registers} registers"
    return binaries
