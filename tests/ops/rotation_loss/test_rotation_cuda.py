"""The CUDA kernels of `rotation_loss`, emulated on the CPU, against the definition in double precision."""

from __future__ import annotations

import pytest
import torch

from ciss_fast.ops.cayley_rotate.cuda_launch import cayley_rotate
from ciss_fast.ops.rotation_loss.cuda_launch import rotation_loss

pytestmark = pytest.mark.usefixtures("emulated_cuda")

CUDA = {"backend": "cuda"}
NINETY_NINE_KIB = "101376"  # compute capability 8.6, 8.9, 12.0: the triangle of D = 256 has no room
SOLVED_DIRECTLY, NOT_SOLVED = -1, -2


@pytest.mark.parametrize("scale", [0.0, 0.05, 1.5])
@pytest.mark.parametrize(
    ("classes", "dimension", "groups", "outputs"),
    [(1, 2, None, 1), (2, 3, 2, 2), (3, 16, None, 3), (4, 17, 3, 16), (5, 31, 1, 33), (2, 65, None, 40)],
)
def test_matches_the_definition(
    nan_filled, rotation_fit, rotation_matches, classes, dimension, groups, outputs, scale
) -> None:
    fit = rotation_fit(classes=classes, dimension=dimension, groups=groups, outputs=outputs, scale=scale)
    rotation_matches(fit, tolerance=2e-5, **CUDA)


@pytest.mark.parametrize("shared", [None, NINETY_NINE_KIB])
def test_published_dimension(monkeypatch, rotation_fit, rotation_matches, shared) -> None:
    if shared:
        monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", shared)
    rotation_matches(rotation_fit(classes=1, dimension=256, groups=2, outputs=21, scale=0.3), tolerance=2e-5, **CUDA)


@pytest.mark.parametrize(
    ("limit", "of_loss", "of_vectors"),
    [(163 * 1024, 144120, 138840), (227 * 1024, 144120, 138840), (99 * 1024, 13560, 8280)],
    ids=["8.0", "9.0 and 10.0", "8.6, 8.9 and 12.0"],
)
def test_shared_memory_by_compute_capability(monkeypatch, tmp_path, rotation_fit, limit, of_loss, of_vectors) -> None:
    monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", str(limit))
    monkeypatch.setenv("CISS_FAST_EMULATION_LOG", str(tmp_path / "launches"))
    fit = rotation_fit(classes=1, dimension=256, outputs=21, scale=0.0)
    rotation_loss(*fit, True)
    cayley_rotate(fit.params, fit.previous, False)
    launches = [line.split() for line in (tmp_path / "launches").read_text().splitlines()]
    names = ["rotation_means", "rotation_krylov", "rotation_elimination", "rotation_finish"]
    assert [launch[0] for launch in launches] == [*names, "cayley_krylov", "cayley_elimination"]
    assert [int(launches[i][4]) for i in (1, 4)] == [of_loss, of_vectors]
    assert all(int(launch[4]) <= limit for launch in launches)


@pytest.mark.parametrize("file", ["cayley_small", "cayley_256_init"])
def test_golden_values(shared_file, rotation_golden, file) -> None:
    rotation_golden(shared_file(f"golden/{file}.npz"), **CUDA)


@pytest.mark.parametrize("scale", [20.0, 300.0])
def test_elimination(nan_filled, rotation_fit, rotation_matches, scale) -> None:
    fit = rotation_fit(classes=3, dimension=40, groups=2, scale=scale)
    rotation_matches(fit, tolerance=5e-5, **CUDA)
    products = rotation_loss(*fit, True)[2]
    assert scale < 300 or (products == SOLVED_DIRECTLY).all()


def test_classes_of_both_kinds(rotation_fit, rotation_matches, rotation_evaluate) -> None:
    fit = rotation_fit(classes=70, dimension=24, groups=2, outputs=70)
    params = fit.params.clone()
    params[1::2] *= 1e3
    fit = fit._replace(params=params)
    rotation_matches(fit, tolerance=1e-4, **CUDA)
    products = rotation_loss(*fit, True)[2]
    assert (products[::2] > 0).all() and (products[64:] == SOLVED_DIRECTLY).any()  # more classes than slots


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_weights_of_the_terms(rotation_fit, rotation_matches, weight) -> None:
    rotation_matches(rotation_fit()._replace(fidelity_weight=weight), **CUDA)


def test_types_and_strides(rotation_fit, rotation_matches) -> None:
    fit = rotation_fit(groups=2)
    rotation_matches(fit._replace(previous=fit.previous.bfloat16(), current=fit.current.half()), **CUDA)
    rotation_matches(fit._replace(params=fit.params.t().contiguous().t()), **CUDA)
    with pytest.raises(TypeError, match="^rotation_loss: GPU kernels take float32, bfloat16 or float16, got float64"):
        rotation_matches(fit._replace(bias=fit.bias.double()), **CUDA)


def test_large_logits_and_vanishing_prototypes(rotation_fit, rotation_matches) -> None:
    fit = rotation_fit()
    rotation_matches(fit._replace(weight=1e3 * fit.weight, fidelity_weight=0.0), tolerance=1e-4, **CUDA)
    for size in (1e-6, 1e6):
        scaled = fit._replace(previous=size * fit.previous, current=size * fit.current, weight=fit.weight / size)
        rotation_matches(scaled, **CUDA)
    same = rotation_matches(fit._replace(previous=fit.previous[:1].expand_as(fit.previous)), **CUDA)
    assert float(same.fid) == pytest.approx(1) and not same.gradient.any()


@pytest.mark.parametrize("scale", [0.5, 300.0])
def test_not_finite(rotation_fit, rotation_evaluate, scale) -> None:
    fit = rotation_fit(groups=2, scale=scale)
    clean = rotation_evaluate(fit, **CUDA)
    for value in (float("nan"), float("inf")):
        params = fit.params.clone()
        params[1, 3] = value
        result = rotation_evaluate(fit._replace(params=params), **CUDA)
        assert result.total.isnan() and result.gradient[1].isnan().all()
        assert torch.equal(result.gradient[[0, 2, 3]], clean.gradient[[0, 2, 3]])
        for name in ("previous", "current", "weight", "bias"):
            broken = getattr(fit, name).clone()
            broken.view(-1)[0] = value
            result = rotation_evaluate(fit._replace(**{name: broken}), **CUDA)
            assert result.total.isnan() or result.total.isinf()
            assert not result.gradient.isfinite().all()


def test_what_cannot_be_solved_is_not_a_number(rotation_fit, rotation_evaluate) -> None:
    fit = rotation_fit(dimension=33)  # odd: one of S's eigenvalues is 0
    params = fit.params.clone()
    params[2] *= 1e15
    fit = fit._replace(params=params)
    result = rotation_evaluate(fit, **CUDA)
    assert rotation_loss(*fit, True)[2][2] == NOT_SOLVED
    assert result.total.isnan() and result.gradient[2].isnan().all() and result.gradient[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("scale", [0.5, 300.0])
def test_order_of_threads(monkeypatch, rotation_fit, rotation_evaluate, scale) -> None:
    # A barrier that is missing shows as a result that depends on which thread runs first.
    fit = rotation_fit(classes=2, dimension=40, groups=2, scale=scale)
    for shared in ("232448", "5000"):
        monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", shared)
        ascending = rotation_evaluate(fit, **CUDA)
        monkeypatch.setenv("CISS_FAST_EMULATION_ORDER", "descending")
        assert all(map(torch.equal, rotation_evaluate(fit, **CUDA), ascending))
        monkeypatch.delenv("CISS_FAST_EMULATION_ORDER")


def test_without_gradient(rotation_fit) -> None:
    fit = rotation_fit()
    total, _, products, gradient = rotation_loss(*fit, False)
    both = rotation_loss(*fit, True)
    assert gradient.numel() == 0 and torch.equal(total, both[0]) and (both[2] > products).all()


def test_operator(rotation_fit) -> None:
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.ciss_fast.rotation_loss.default, (*rotation_fit(groups=2), True), CUDA, test_utils=checks
    )


def test_dimension_too_large_is_an_error(monkeypatch, rotation_fit) -> None:
    monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", "2000")
    with pytest.raises(RuntimeError, match="rotation_loss: expected vectors that fit into 2000 bytes"):
        rotation_loss(*rotation_fit(dimension=40), False)
