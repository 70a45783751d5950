"""Losses, gradients and rotations of the papers' own code, made in double precision, through the GPU's backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_testing import SIGMOID, SOFTMAX
from op_cases import CASES, NO_BACKEND_NAMED, helpers, kernels, skip_unless_it_runs
from torch import Tensor

import ciss_fast

pytestmark = pytest.mark.gpu(interpreter=True)
softmax_golden = helpers("softmax_loss/test_softmax_golden")
logits_of = helpers("sigmoid_loss/conftest").logits_of
CASE = {case.op: case for case in CASES}
TOLERANCE = 1e-5  # single precision; the files' gradients are stored in it


def every_backend(op: str) -> pytest.MarkDecorator:
    """Parametrises ``backend``: the op's kernels, and what is taken where none is named."""
    return pytest.mark.parametrize("backend", [*kernels(CASE[op]), NO_BACKEND_NAMED])


def chosen(op: str, backend: str, device: torch.device) -> dict[str, str]:
    """The argument that names the backend; skips where it cannot run here."""
    skip_unless_it_runs(CASE[op], backend, device, torch.float32)
    return {} if backend == NO_BACKEND_NAMED else {"backend": backend}


@pytest.fixture(scope="session")
def golden(shared_file) -> Callable[[str], dict[str, np.ndarray]]:
    """Function from a file's name to its arrays."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(shared_file(str(Path("golden") / f"{name}.npz"))) as arrays:
            return dict(arrays)

    return load


def move(inputs, device: torch.device):
    """Student, teacher and label on ``device``."""
    return type(inputs)(*(None if x is None else x.to(device) for x in inputs))


def assert_near(value: Tensor, stored: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Within ``tolerance`` of the stored array's largest entry."""
    expected = torch.from_numpy(np.asarray(stored)).double()
    error = float((value.detach().cpu().double().reshape(expected.shape) - expected).abs().max())
    assert error <= tolerance * float(expected.abs().max()), f"off by {error:.2e}"


def assert_softmax(arrays, name: str, options: dict, device: torch.device) -> None:
    teacher = torch.from_numpy(arrays["teacher"]) if "teacher" in arrays else None
    inputs = type(SOFTMAX.draw())(torch.from_numpy(arrays["student"]), teacher, torch.from_numpy(arrays["label"]))
    inputs = move(type(inputs)(*(x if x is None or not x.is_floating_point() else x.float() for x in inputs)), device)
    align_corners = int(arrays["align_corners"]) == 1
    result = SOFTMAX.evaluate(inputs, align_corners=align_corners, **options)
    assert_near(result.total, arrays[f"loss_{name}"])
    assert_near(result.gradient, arrays[f"grad_{name}"])


@every_backend("softmax_loss")
@pytest.mark.parametrize("name", softmax_golden.OPTIONS)
@pytest.mark.parametrize("file", softmax_golden.FILES)
def test_softmax_loss(golden, file: str, name: str, backend: str, device) -> None:
    options = softmax_golden.OPTIONS[name] | chosen("softmax_loss", backend, device)
    assert_softmax(golden(f"softmax_{file}"), name, options, device)


@every_backend("softmax_loss")
@pytest.mark.parametrize("name", softmax_golden.BASE_OPTIONS)
def test_softmax_loss_at_the_base_step(golden, name: str, backend: str, device) -> None:
    options = softmax_golden.BASE_OPTIONS[name] | chosen("softmax_loss", backend, device)
    arrays = {key: value for key, value in golden("base").items() if key != "teacher"}
    assert_softmax(arrays, name, options, device)


@every_backend("sigmoid_loss")
@pytest.mark.parametrize("file", ["small", "ade"])
def test_sigmoid_loss(golden, file: str, backend: str, device) -> None:
    options = {"pos_weight": 0.0} | chosen("sigmoid_loss", backend, device)
    arrays = golden(f"dkd_{file}")
    options["pos_weight"] = float(arrays["pos_weight"])
    inputs = logits_of(arrays, torch.float32)
    for term in ("mbce", "kd", "ac"):
        result = SIGMOID.evaluate(move(inputs, device), **{term: 1.0}, **options)
        assert_near(result.total, arrays[f"loss_{term}"])
    # No other loss of DKD's reaches the auxiliary classifier: the files' gradient of the whole loss is AC's alone.
    auxiliary = result.gradient[:, 0].cpu().double()
    feature = torch.from_numpy(arrays["feature"]).double()
    assert_near(torch.einsum("bhw,bdhw->d", auxiliary, feature), arrays["grad_weight_aux"])
    assert_near(auxiliary.sum(), arrays["grad_bias_aux"])


@every_backend("sigmoid_loss")
def test_sigmoid_loss_at_the_base_step(golden, backend: str, device) -> None:
    options = chosen("sigmoid_loss", backend, device)
    arrays = golden("base")
    inputs = move(logits_of(arrays, torch.float32), device)
    result = SIGMOID.evaluate(inputs, mbce=1.0, ac=1.0, pos_weight=float(arrays["pos_weight"]), **options)
    assert_near(result.total, arrays["loss_mbce_base"])
    assert_near(result.gradient, arrays["grad_mbce_base"])


@every_backend("reasoning_loss")
@pytest.mark.parametrize("file", ["small", "ade"])
def test_the_whole_loss_of_dkd(golden, file: str, backend: str, device) -> None:
    options = chosen("reasoning_loss", backend, device)
    arrays = golden(f"dkd_{file}")
    tensors = {key: torch.from_numpy(np.asarray(array)).to(device) for key, array in arrays.items()}
    tensors = {key: x.float() if x.is_floating_point() else x for key, x in tensors.items()}
    names = ("feature", "weight", "bias", "weight_aux", "bias_aux")
    leaves = {name: tensors[name].clone().requires_grad_() for name in names}

    def classify(feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.einsum("bdhw,cd->bchw", feature, weight) + bias[:, None, None]

    auxiliary = classify(leaves["feature"].detach(), leaves["weight_aux"], leaves["bias_aux"])
    student = torch.cat([auxiliary, classify(leaves["feature"], leaves["weight"], leaves["bias"])], dim=1)
    teacher = classify(tensors["feature_old"], tensors["weight_old"], tensors["bias_old"])
    teacher = torch.cat([torch.full_like(teacher[:, :1], torch.nan), teacher], dim=1)
    logits_loss, _ = ciss_fast.sigmoid_loss(
        student, teacher, tensors["label"], mbce=1.0, kd=5.0, ac=1.0, pos_weight=float(arrays["pos_weight"])
    )
    old = int(arrays["n_old"])
    features_loss, terms = ciss_fast.reasoning_loss(
        leaves["feature"], leaves["weight"][:old], tensors["feature_old"], tensors["weight_old"],
        pos=5.0, neg=5.0, **options,
    )  # fmt: skip
    total = logits_loss + features_loss
    total.backward()
    for name, value in {"dkd_pos": terms["pos"], "dkd_neg": terms["neg"], "total": total}.items():
        assert_near(value, arrays[f"loss_{name}"])
    for name, leaf in leaves.items():
        assert_near(leaf.grad, arrays[f"grad_{name}"])


@every_backend("cayley_rotate")
@pytest.mark.parametrize("file", ["cayley_small", "cayley_256_init"])
def test_rotated_memory_and_the_loss_of_the_fit(golden, file: str, backend: str, device) -> None:
    options = chosen("cayley_rotate", backend, device)
    arrays = golden(file)
    tensors = {key: torch.from_numpy(np.asarray(array)).float().to(device) for key, array in arrays.items()}
    params = tensors["params"].requires_grad_()
    assert_near(ciss_fast.cayley_rotate(params, tensors["memory"], **options), arrays["memory_rotated"])
    previous, current = tensors["proto_prev"], tensors["proto_curr"]
    mean = current.mean(0)
    rotated = ciss_fast.cayley_rotate(params, previous - previous.mean(0), **options)
    fidelity = (1 - F.cosine_similarity(rotated, current - mean, dim=1)).mean()
    scores = (rotated + mean) @ tensors["cls_weight"].T + tensors["cls_bias"]
    regulariser = F.cross_entropy(scores, torch.arange(len(params), device=device))
    weight = float(arrays["lam"])
    total = weight * fidelity + (1 - weight) * regulariser
    (gradient,) = torch.autograd.grad(total, params)
    named = {"rot_proto_centered": rotated, "loss_fid": fidelity, "loss_reg": regulariser, "loss_total": total}
    for name, value in named.items():
        assert_near(value, arrays[name])
    assert_near(gradient, arrays["grad_params"], 10 * TOLERANCE)


@every_backend("rotation_loss")
@pytest.mark.parametrize("file", ["cayley_small", "cayley_256_init"])
def test_rotation_loss(golden, file: str, backend: str, device) -> None:
    options = chosen("rotation_loss", backend, device)
    arrays = golden(file)
    names = ("params", "proto_prev", "proto_curr", "cls_weight", "cls_bias")
    params, *others = (torch.from_numpy(arrays[name]).float().to(device) for name in names)
    params.requires_grad_()
    total, terms = ciss_fast.rotation_loss(params, *others, fidelity_weight=float(arrays["lam"]), **options)
    (gradient,) = torch.autograd.grad(total, params)
    for name, value in {"loss_fid": terms["fid"], "loss_reg": terms["reg"], "loss_total": total}.items():
        assert_near(value, arrays[name])
    assert_near(gradient, arrays["grad_params"], 10 * TOLERANCE)


@every_backend("prototypes")
@pytest.mark.parametrize("file", ["cayley_small", "cayley_256_init"])
def test_prototypes(golden, file: str, backend: str, device) -> None:
    options = chosen("prototypes", backend, device)
    arrays = golden(file)
    names = ("feature_prev", "feature_curr", "memory")
    inputs = [torch.from_numpy(arrays[name]).float().to(device) for name in names]
    previous, current = ciss_fast.prototypes(*inputs, float(arrays["temp"]), **options)
    assert_near(previous, arrays["proto_prev"])
    assert_near(current, arrays["proto_curr"])
