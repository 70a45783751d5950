"""Every op with arguments to try it on: drawing them, one call with its gradients, the definition's answer.

Arguments are drawn by the helpers of the ops' own tests. `CASES` holds one case for each op and kind of input,
`WAYS` all cases with all the backends that serve tensors of a GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from loss_testing import SIGMOID, SOFTMAX, LossUnderTest
from torch import Tensor

import ciss_fast
from ciss_fast import backends, triton_runtime

Tensors = dict[str, Tensor]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
UPSTREAM = 2.5  # the incoming gradient of scalars
NO_BACKEND_NAMED = "default"


@functools.cache
def helpers(name: str) -> ModuleType:
    """A module of ``tests/ops`` that fixtures or tests are made of, such as "prototypes/conftest"."""
    file = Path(__file__).resolve().parents[1] / "ops" / f"{name}.py"
    module_name = "gpu_suite_" + name.replace("/", "_")
    specification = importlib.util.spec_from_file_location(module_name, file)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    specification.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class OpCase:
    """One op on one kind of arguments.

    Attributes:
        name: of the case; begins with the op's.
        op: the op, as `ciss_fast.backends` knows it; None: it has no backends.
        draw: makes the arguments that are tensors, on the CPU, from a type and a seed. "upstream" among them is the
            gradient of the first result.
        call: the public function; takes the tensors by name, and ``backend``, returns results by name.
        leaves: arguments that get gradients.
        tolerance: allowed error in single precision, relative to the largest entry.
        scale_argument: the argument whose largest entry errors are measured against, instead of each result's.
    """

    name: str
    op: str | None
    draw: Callable[[torch.dtype, int], Tensors]
    call: Callable[..., Tensors]
    leaves: tuple[str, ...] = ()
    tolerance: float = 1e-5
    scale_argument: str | None = None

    def tensors(self, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensors:
        """Drawn arguments on ``device``."""
        return {name: x.to(device) for name, x in self.draw(dtype, seed).items()}

    def evaluate(self, tensors: Tensors, backend: str = NO_BACKEND_NAMED) -> Tensors:
        """Results and gradients, by name, detached. Nothing is brought from the CPU."""
        arguments = {name: x.detach() for name, x in tensors.items() if name != "upstream"}
        leaves = [arguments[name].requires_grad_() for name in self.leaves]
        chosen = {} if backend == NO_BACKEND_NAMED else {"backend": backend}
        results = self.call(**arguments, **chosen)
        first = next(iter(results.values()))
        if leaves:
            upstream = tensors.get("upstream", torch.full_like(first, UPSTREAM))
            gradients = torch.autograd.grad(first, leaves, upstream.to(first.dtype))
            named = zip(self.leaves, gradients, strict=True)
            results = results | {f"gradient on {name}": gradient for name, gradient in named}
        return {name: value.detach() for name, value in results.items()}

    def expected(self, tensors: Tensors) -> Tensors:
        """The definition's answer in double precision, on the CPU, to the same (rounded) arguments."""
        exact = {name: x.cpu().double() if x.is_floating_point() else x.cpu() for name, x in tensors.items()}
        return self.evaluate(exact, NO_BACKEND_NAMED if self.op is None else "reference")

    def assert_close(self, results: Tensors, expected: Tensors, tensors: Tensors, dtype: torch.dtype) -> None:
        """Real results within the tolerance of the largest entry, and their type's rounding; whole numbers equal."""
        assert results.keys() == expected.keys()
        tolerance = self.tolerance * (1e-6 if dtype == torch.float64 else 1.0)
        for name, value in results.items():
            exact = expected[name]
            assert value.shape == exact.shape, f"{name}: {list(value.shape)}, expected {list(exact.shape)}"
            if not value.is_floating_point():
                assert torch.equal(value.cpu().long(), exact.long()), name
                continue
            largest = float((exact if self.scale_argument is None else tensors[self.scale_argument]).abs().max())
            error = float((value.cpu().double() - exact).abs().max())
            allowed = (tolerance + ROUNDING.get(value.dtype, 0.0)) * largest
            assert error <= allowed, f"{name}: off by {error:.2e}, allowed {allowed:.2e}, largest {largest:.2e}"


def assert_same_bits(results: Tensors, expected: Tensors) -> None:
    """Exactly equal, wherever they are; NaN equals nothing."""
    assert results.keys() == expected.keys()
    for name, value in results.items():
        assert torch.equal(value.cpu(), expected[name].cpu()), f"{name}: not the same bits"


def skip_unless_it_runs(case: OpCase, backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """Skip where the backend cannot run here, or has no double precision."""
    if backend in (NO_BACKEND_NAMED, "reference"):
        return
    reason = backends.table()[case.op][backend]
    if reason is None and device.type == "cpu" and not (backend == "triton" and triton_runtime.interpreting()):
        reason = "no GPU"
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    if dtype == torch.float64 and not takes_double_precision(case, backend, device):
        pytest.skip(f"{backend}: no double precision")


def takes_double_precision(case: OpCase, backend: str, device: torch.device) -> bool:
    """Whether the backend's kernels take float64; refusing must be a TypeError that says so."""
    try:
        case.evaluate(case.tensors(torch.float64, device), backend)
    except TypeError as error:
        assert "float64" in str(error), error
        return False
    return True


def _loss_case(loss: LossUnderTest, name: str, **sizes: tuple[int, int]) -> OpCase:
    def draw(dtype: torch.dtype, seed: int) -> Tensors:
        inputs = loss.draw(dtype=dtype, seed=seed, sequential=True, **sizes)
        # What is not read must not matter, but NaN would hide from `assert_same_bits` that it is passed on.
        return dict(student=inputs.student, teacher=inputs.teacher.nan_to_num(7.0), label=inputs.label)

    def call(student: Tensor, teacher: Tensor, label: Tensor, **options: str) -> Tensors:
        total, terms = loss.function(student, teacher, label, **loss.everything, **options)
        return {"total": total, **terms}

    return OpCase(name, loss.name, draw, call, ("student",))


def _draw_reasoning(dtype: torch.dtype, seed: int) -> Tensors:
    return helpers("reasoning_loss/conftest").draw_inputs(dtype=dtype, seed=seed)._asdict()


def _reasoning_loss(**arguments: Tensor) -> Tensors:
    total, terms = ciss_fast.reasoning_loss(**arguments, **helpers("reasoning_loss/conftest").BOTH)
    return {"total": total, **terms}


def _draw_scores(dtype: torch.dtype, seed: int) -> Tensors:
    inputs = helpers("reasoning_loss/conftest").draw_inputs(dtype=dtype, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(inputs.feature), len(inputs.weight), *inputs.feature.shape[2:])
    return {"feature": inputs.feature, "weight": inputs.weight, "upstream": torch.randn(shape, generator=generator)}


def _reasoning_scores(**arguments: Tensor) -> Tensors:
    return dict(zip(("positive", "negative", "logits"), ciss_fast.reasoning_scores(**arguments), strict=True))


def _draw_prototypes(dtype: torch.dtype, seed: int) -> Tensors:
    return helpers("prototypes/conftest").draw(dtype=dtype, seed=seed)._asdict()


def _prototypes(**arguments: Tensor) -> Tensors:
    return dict(zip(("previous", "current"), ciss_fast.prototypes(**arguments), strict=True))


def _rotation_case(name: str, norm: float, vectors: int | None) -> OpCase:
    def draw(dtype: torch.dtype, seed: int) -> Tensors:
        inputs = helpers("cayley_rotate/conftest").draw_inputs(norm=norm, vectors=vectors, dtype=dtype, seed=seed)
        upstream = helpers("cayley_rotate/conftest").draw_upstream(inputs, seed + 1)
        return {**inputs._asdict(), "upstream": upstream}

    def call(**arguments: Tensor) -> Tensors:
        return {"rotated": ciss_fast.cayley_rotate(**arguments)}

    return OpCase(name, "cayley_rotate", draw, call, ("params", "vectors"))


def _draw_fit(dtype: torch.dtype, seed: int) -> Tensors:
    fit = helpers("rotation_loss/conftest").draw_fit(seed=seed)
    tensors = {name: x.to(dtype) for name, x in fit._asdict().items() if isinstance(x, Tensor)}
    if dtype in ROUNDING:  # parameters are not read in half precision
        tensors["params"] = fit.params
    return tensors


def _rotation_loss(**arguments: Tensor) -> Tensors:
    total, terms = ciss_fast.rotation_loss(**arguments)
    return {"total": total, **terms}


LABEL_MAP_SIZE = (21, 26)


def _draw_label_map(dtype: torch.dtype, seed: int) -> Tensors:
    """Logits without ties within rounding, so that labels must be those of the definition."""
    shared = helpers("label_map/conftest")
    for attempt in range(100):
        logits = shared.draw_logits(6, (4, 5), dtype=dtype, seed=100 * seed + attempt)
        highest = shared.enlarge_exactly(logits, LABEL_MAP_SIZE, "sigmoid", True).topk(2, dim=1).values
        gap = float((highest[:, 0] - highest[:, 1]).min())
        if gap > 4 * shared.ROUNDING[dtype] * float(logits.abs().max()):
            return {"logits": logits}
    raise AssertionError("expected logits without ties within rounding among 100 drawn")


def _draw_confusion(dtype: torch.dtype, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 7, (2, *LABEL_MAP_SIZE), generator=generator)
    return {**_draw_label_map(dtype, seed), "label": label.masked_fill(label == 6, 255).to(torch.uint8)}


def _predict(**arguments: Tensor) -> Tensors:
    return {"labels": ciss_fast.predict(**arguments, size=LABEL_MAP_SIZE, kind="sigmoid", align_corners=True)}


def _confusion(**arguments: Tensor) -> Tensors:
    return {"counts": ciss_fast.confusion(**arguments, num_classes=8, kind="sigmoid", align_corners=True)}


_REASONING_LEAVES = ("feature", "weight")
CASES = (
    _loss_case(SOFTMAX, "softmax_loss", size=(9, 21), label_size=(9, 21)),
    _loss_case(SOFTMAX, "softmax_loss, enlarged", size=(3, 4), label_size=(21, 26)),
    _loss_case(SIGMOID, "sigmoid_loss", size=(9, 21), label_size=(9, 21)),
    _loss_case(SIGMOID, "sigmoid_loss, enlarged", size=(3, 4), label_size=(21, 26)),
    OpCase("reasoning_loss", "reasoning_loss", _draw_reasoning, _reasoning_loss, _REASONING_LEAVES),
    OpCase("reasoning_scores", None, _draw_scores, _reasoning_scores, _REASONING_LEAVES),
    OpCase("prototypes", "prototypes", _draw_prototypes, _prototypes, scale_argument="feature_prev"),
    _rotation_case("cayley_rotate", 1.0, None),
    _rotation_case("cayley_rotate, large rotations", 20.0, None),
    _rotation_case("cayley_rotate, memory", 1.0, 11),
    OpCase("rotation_loss", "rotation_loss", _draw_fit, _rotation_loss, ("params",)),
    OpCase("predict", "predict", _draw_label_map, _predict),
    OpCase("confusion", "confusion", _draw_confusion, _confusion),
)


def kernels(case: OpCase) -> list[str]:
    """The op's backends for tensors of a GPU."""
    if case.op is None:
        return []
    return [backend for backend in backends.table()[case.op] if backends.DEVICES.get(backend) == "cuda"]


def every_way(*others: str) -> pytest.MarkDecorator:
    """Parametrises ``case`` and ``backend``: all cases with their kernels, and with ``others``."""
    ways = []
    for case in CASES:
        chosen = [*kernels(case), *(name for name in others if case.op is not None or name == NO_BACKEND_NAMED)]
        ways += [pytest.param(case, backend, id=f"{case.name}-{backend}") for backend in chosen]
    return pytest.mark.parametrize(("case", "backend"), ways)
