"""The stages of `gpu_run`: commands with their time limits, in the order they run in."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from .case import OPS

ROOT = Path(__file__).resolve().parents[1]
MINUTE = 60.0
GOLDEN = (
    *("base.npz", "cayley_256_init.npz", "cayley_small.npz", "dkd_ade.npz", "dkd_small.npz"),
    *("softmax_fullres_hot.npz", "softmax_fullres_small.npz", "softmax_fullres_voc15_1.npz"),
    *("softmax_up_ade.npz", "softmax_up_false.npz", "softmax_up_true.npz"),
    *("reference_models.json", "reference_models.npz", "voc_splits.json.gz"),
)
VOC_PART, WEIGHTS = "voc12part_bal320.tar", "mobilenet_v2_imagenet.pth"
# Each method, and the one whose base step it takes over.
METHODS = {"fine-tuning": None, "mib": None, "alife": "fine-tuning", "alife-m": "fine-tuning",
           "dkd": None, "dkd-m": "dkd"}  # fmt: skip
QUICK_CASES = dict.fromkeys(OPS, "call-overhead") | {"prototypes": "voc-one-image", "cayley_rotate": "start-16"}
SANITIZERS = ("memcheck", "racecheck", "initcheck")


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: of the stage, of its log and of its entry in the summary.
        command: what runs, in the root of the source tree.
        seconds: the longest it may take.
        environment: variables beside those of this process.
        missing: why it cannot run here, in one line; then it is left out, and the summary says so.
        needs: files of the shared folder that must be there.
        results: files it writes, inside the output folder.
    """

    name: str
    command: list[str]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    missing: str | None = None
    needs: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


def all_stages(options: argparse.Namespace) -> list[Stage]:
    """Every stage, for the chosen device; ``options`` are the command line's."""
    return [
        *_preparation(options),
        *_tests(options),
        *[_sanitizer(tool, options) for tool in SANITIZERS],
        *_benchmarks(options),
        *[_training(method, base, options) for method, base in METHODS.items()],
    ]


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _preparation(options: argparse.Namespace) -> list[Stage]:
    facts = (
        "nvidia-smi; nvcc --version; set -e; "
        f"'{sys.executable}' -m torch.utils.collect_env; '{sys.executable}' -m ciss_fast.info"
    )
    build = _python("setup.py", "build_ext", "--inplace")
    cuda = "1" if shutil.which(os.environ.get("CUDACXX", "nvcc")) else "0"
    # Tools of an environment that is not activated lie beside its interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    tools = [name for name in ("cmake", "ninja") if shutil.which(name, path=path) is None]
    tools += [name for name in ("pybind11", "setuptools") if find_spec(name) is None]
    missing = f"{', '.join(tools)} not installed" if tools else None
    return [
        Stage("build", build, 20 * MINUTE, {"CISS_FAST_CUDA": cuda, "PATH": path}, missing),
        Stage("environment", ["bash", "-c", facts], 3 * MINUTE),
    ]


def _pytest(name: str, options: argparse.Namespace, *arguments: str) -> list[str]:
    report = options.output / f"{name}.xml"
    return _python("-m", "pytest", "-q", "-rsfE", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments)


def _tests(options: argparse.Namespace) -> list[Stage]:
    environment = {"CISS_FAST_SHARED": str(options.shared)}
    if options.device == "cuda":
        environment["CISS_FAST_REQUIRE_GPU"] = "1"
    else:
        environment["TRITON_INTERPRET"] = "1"
    parallel = ("-n", "auto", "--maxprocesses", "8", "--dist")
    # On a GPU compiling takes longest: single tests are dealt out. Elsewhere files, whose fixtures take longest.
    compiling, processes = ((*parallel, "load"), (*parallel, "loadfile")) if find_spec("xdist") else ((), ())
    golden = tuple(f"golden/{name}" for name in GOLDEN)
    plain = {name: value for name, value in environment.items() if name != "TRITON_INTERPRET"}
    large = "tests/gpu/test_gpu_large.py"
    gpu = {
        "tests-gpu": ("tests/gpu", "--ignore", large, *compiling),
        "tests-gpu-large": (large,),  # by themselves: they fill the card's memory
        "tests-gpu-checks": ("tests/ops/test_triton_checks.py", *compiling),
    }
    rest = processes
    if options.quick:
        gpu = {
            "tests-gpu": ("tests/gpu/test_gpu_accuracy.py", "-k", "predict"),
            "tests-gpu-large": (large, "-k", "predict"),
            "tests-gpu-checks": ("tests/ops/test_triton_checks.py", "-k", "label_map and ties"),
        }
        rest = ("tests/packaging/test_info.py",)

    def stage(name: str, minutes: float, environment: dict[str, str], *arguments: str) -> Stage:
        command = _pytest(name, options, *arguments)
        return Stage(name, command, minutes * MINUTE, environment, needs=golden, results=(f"{name}.xml",))

    return [
        *[stage(name, 20, environment, "-m", "gpu", *arguments) for name, arguments in gpu.items()],
        stage("tests", 20, plain, "-m", "not slow and not gpu", *rest),
        stage("tests-slow", 40, plain, "-m", "slow and not gpu", *rest),
    ]


def _sanitizer(tool: str, options: argparse.Namespace) -> Stage:
    """The kernels of every op, on small tensors; torch's own memory pool would hide what memcheck looks for."""
    missing = None if options.device == "cuda" else "needs a GPU"
    if shutil.which("compute-sanitizer") is None:
        missing = "compute-sanitizer is not installed"
    kernels = "against_double_precision and float32 and not default and not reference"
    checked = ["-m", "gpu", "-k", kernels, "tests/gpu/test_gpu_accuracy.py"]
    command = _pytest(f"sanitizer-{tool}", options, *checked)
    return Stage(
        f"sanitizer-{tool}",
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", "86", *command],
        15 * MINUTE,
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CISS_FAST_REQUIRE_GPU": "1"},
        missing,
        results=(f"sanitizer-{tool}.xml",),
    )


def _benchmarks(options: argparse.Namespace) -> list[Stage]:
    folder = options.output / "benchmarks"
    device = ["--device", options.device, *(["--backend", options.backend] if options.backend else [])]
    quick = ["--quick", "--no-compile", "--no-memory", "--threads", "1"] if options.quick else []
    stages = []
    for op in OPS:
        cases = ["--cases", QUICK_CASES[op]] if options.quick else []
        command = _python("-m", "benchmarks", op, *device, *quick, *cases, "--output", str(folder))
        stages.append(Stage(f"benchmark-{op}", command, 25 * MINUTE))
    tiny = ["--backbone", "resnet18", "--images", "2", "--size", "64", "--old-classes", "3", "--new-classes", "2",
            "--rounds", "1", "--seconds", "0", "--threads", "1"]  # fmt: skip
    step = _python("-m", "benchmarks.training_step", *device, *(tiny if options.quick else []), "--output", str(folder))
    little = ["--backbone", "mobilenet_v2", "--classes", "3", "--features", "20", "--dimension", "16", "--images", "3",
              "--group", "2", "--size", "64", "--iterations", "1", "--threads", "1"]  # fmt: skip
    full = ["--bf16"] if options.device == "cuda" else []
    fit = _python(
        *("-m", "benchmarks.rotation_fit", *device[:2], *(little if options.quick else full), "--output", str(folder))
    )
    environment = {"CISS_FAST_BACKEND": options.backend} if options.backend else {}  # of every op of the fit
    return [
        *stages,
        Stage("benchmark-training-step", step, 10 * MINUTE),
        Stage("benchmark-rotation-fit", fit, 10 * MINUTE, environment),
    ]


def _training(method: str, base: str | None, options: argparse.Namespace) -> Stage:
    runs = options.output / "runs"
    command = _python(
        *("-m", "ciss_fast", "train", "--recipe", "voc15-5-mobilenet", "--method", method, "--device", options.device),
        *("--data-root", str(data_folder(options)), "--weights", str(options.shared / "data" / WEIGHTS)),
        *("--seed", "0", "--quiet", "--output", str(runs / method)),
        *(["--base-from", str(runs / base)] if base else []),
        *(["--epochs-base", "0.01", "--epochs-later", "0.02"] if options.quick else []),
    )
    needs = (f"data/{VOC_PART}", f"data/{WEIGHTS}")
    return Stage(f"train-{method}", command, options.training_minutes * MINUTE, needs=needs)


def data_folder(options: argparse.Namespace) -> Path:
    """Where the VOC part is unpacked."""
    return options.output / "work" / "voc_part"


def unpack(options: argparse.Namespace) -> None:
    """Unpack the VOC part, once; the folder inside the archive that has JPEGImages becomes `data_folder`."""
    target = data_folder(options)
    if target.is_dir():
        return
    partial = target.with_name("voc_part.unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(options.shared / "data" / VOC_PART) as archive:
        archive.extractall(partial, filter="data")
    (images,) = partial.rglob("JPEGImages")
    images.parent.rename(target)
    shutil.rmtree(partial, ignore_errors=True)
