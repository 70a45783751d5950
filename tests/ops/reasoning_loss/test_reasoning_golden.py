"""Losses and gradients of the paper's own code, made in double precision, through every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ciss_fast
from ciss_fast import native

FILES = ("small", "ade")
# backend, type, tolerance of the losses (relative) and of the gradients (of their largest entry). Gradients are stored
# in single precision, which bounds what can be asked of double precision.
PRECISIONS = [
    pytest.param("reference", torch.float64, 1e-12, 1e-7, id="reference-float64"),
    pytest.param("reference", torch.float32, 1e-5, 1e-5, id="reference-float32"),
    pytest.param("cpu", torch.float64, 1e-12, 1e-7, id="cpu-float64"),
    pytest.param("cpu", torch.float32, 1e-5, 1e-5, id="cpu-float32"),
]
STORED_IN_SINGLE = ("mbce", "ac", "total")  # losses with the digits of single precision, or with a part like that
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.fixture(scope="session")
def dkd_golden(shared_file):
    """Function from a file's name and a type to its arrays as tensors, floating ones as that type."""

    def load(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
        with np.load(shared_file(str(Path("golden") / f"dkd_{name}.npz"))) as arrays:
            tensors = {key: torch.from_numpy(np.asarray(array)) for key, array in arrays.items()}
        inputs = ("feature", "feature_old", "weight", "bias", "weight_old", "bias_old", "weight_aux", "bias_aux")
        return {key: value.to(dtype) if key in inputs else value for key, value in tensors.items()}

    return load


def skip_without(backend: str, *ops: str) -> None:
    for op in ops if backend == "cpu" else ():
        if native.reason_without(op) is not None:
            pytest.skip(f"no compiled kernel: {native.reason_without(op)}")


def classify(feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(feature, weight[:, :, None, None], bias)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("backend", "dtype", "loss", "gradient"), PRECISIONS)
@pytest.mark.parametrize("file", FILES)
def test_terms(dkd_golden, file, backend, dtype, loss, gradient, layout) -> None:
    skip_without(backend, "reasoning_loss")
    arrays = dkd_golden(file, dtype)
    feature, feature_old = (
        arrays[name].contiguous(memory_format=LAYOUTS[layout]) for name in ("feature", "feature_old")
    )
    weight = arrays["weight"][: int(arrays["n_old"])]
    _, terms = ciss_fast.reasoning_loss(
        feature, weight, feature_old, arrays["weight_old"], pos=1.0, neg=1.0, backend=backend
    )
    assert float(terms["pos"]) == pytest.approx(float(arrays["loss_dkd_pos"]), rel=loss)
    assert float(terms["neg"]) == pytest.approx(float(arrays["loss_dkd_neg"]), rel=loss)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("backend", "dtype", "loss", "gradient"), PRECISIONS)
@pytest.mark.parametrize("file", FILES)
def test_whole_loss(dkd_golden, file, backend, dtype, loss, gradient, layout) -> None:
    # The method's loss at a later step, mBCE + 5 KD + 5 DKD+ + 5 DKD- + AC, down to the network's last layers. The
    # auxiliary classifier reads detached features.
    skip_without(backend, "reasoning_loss", "sigmoid_loss")
    arrays = dkd_golden(file, dtype)
    old = int(arrays["n_old"])
    leaves = {name: arrays[name].clone() for name in ("feature", "weight", "bias", "weight_aux", "bias_aux")}
    leaves["feature"] = leaves["feature"].contiguous(memory_format=LAYOUTS[layout])
    for leaf in leaves.values():
        leaf.requires_grad_()
    feature, weight = leaves["feature"], leaves["weight"]
    auxiliary = classify(feature.detach(), leaves["weight_aux"], leaves["bias_aux"])
    student = torch.cat([auxiliary, classify(feature, weight, leaves["bias"])], dim=1)
    teacher = classify(arrays["feature_old"], arrays["weight_old"], arrays["bias_old"])
    teacher = torch.cat([torch.full_like(teacher[:, :1], float("nan")), teacher], dim=1)  # channel 0 is not read
    logits_loss, logits_terms = ciss_fast.sigmoid_loss(
        *(student, teacher, arrays["label"]),
        **{"mbce": 1.0, "kd": 5.0, "ac": 1.0, "pos_weight": float(arrays["pos_weight"]), "backend": backend},
    )
    feature_loss, terms = ciss_fast.reasoning_loss(
        *(feature, weight[:old], arrays["feature_old"], arrays["weight_old"]), pos=5.0, neg=5.0, backend=backend
    )
    total = logits_loss + feature_loss
    named = {"total": total, "dkd_pos": terms["pos"], "dkd_neg": terms["neg"], **logits_terms}
    stored = {key.removeprefix("loss_") for key in arrays if key.startswith("loss_")}
    assert stored == set(named)
    for name, value in named.items():
        tolerance = max(loss, 1e-7) if name in STORED_IN_SINGLE else loss
        assert float(value.detach()) == pytest.approx(float(arrays[f"loss_{name}"]), rel=tolerance), name
    total.backward()
    assert {key.removeprefix("grad_") for key in arrays if key.startswith("grad_")} == set(leaves)
    for name, leaf in leaves.items():
        expected = arrays[f"grad_{name}"].double()
        error = (leaf.grad.double() - expected).abs().max() / expected.abs().max()
        assert float(error) <= gradient, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("file", FILES)
def test_scores_add_up_to_the_logits(dkd_golden, file, dtype) -> None:
    arrays = dkd_golden(file, dtype)
    positive, negative, logits = ciss_fast.reasoning_scores(arrays["feature"], arrays["weight"], arrays["bias"])
    expected = classify(arrays["feature"], arrays["weight"], arrays["bias"])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(positive + negative + arrays["bias"][:, None, None], logits)
