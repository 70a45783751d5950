"""`predict` and `confusion` as PyTorch operators: registration, compilation, gradients, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ciss_fast

pytestmark = pytest.mark.usefixtures("kernel")


@pytest.fixture
def label() -> torch.Tensor:
    return torch.randint(5, (2, 20, 33), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("classes, sigmoid", [(5, False), (5, True), (300, False)])
def test_opcheck_predict(classes, sigmoid, dtype, label_map_logits) -> None:
    logits = label_map_logits(classes, (3, 4), dtype=dtype)
    op = torch.ops.ciss_fast.predict.default
    torch.library.opcheck(op, (logits, 12, 20, sigmoid, False))
    torch.library.opcheck(op, (logits.to(memory_format=torch.channels_last), 3, 4, sigmoid, True))


@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int64], ids=str)
def test_opcheck_confusion(label_dtype, label, label_map_logits) -> None:
    op = torch.ops.ciss_fast.confusion.default
    torch.library.opcheck(op, (label_map_logits(5, (3, 4)), label.to(label_dtype), 7, False, False, 255))
    torch.library.opcheck(op, (label_map_logits(5, (3, 4)).double(), label.to(label_dtype), 5, True, True, 0))


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiles_without_a_graph_break(dynamic, label, label_map_logits) -> None:
    torch._dynamo.reset()

    def evaluate(logits, label):
        scaled = logits * 2
        labels = ciss_fast.predict(scaled, label.shape[-2:], align_corners=True, backend="cpu")
        return labels, ciss_fast.confusion(scaled, label, 7, kind="sigmoid") + 1

    compiled = torch.compile(evaluate, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for batch, rows in ((2, 20), (2, 17), (1, 9)):
        logits, part = label_map_logits(5, (4, 6), batch=batch, seed=rows), label[:batch, :rows]
        for result, expected in zip(compiled(logits, part), evaluate(logits, part), strict=True):
            assert result.dtype == expected.dtype and torch.equal(result, expected)


def test_compiles_with_a_size_per_image(label, label_map_logits) -> None:
    torch._dynamo.reset()
    logits, labels = label_map_logits(5, (4, 6)), [label[0], label[1, :7]]

    def evaluate(logits, labels):
        maps = ciss_fast.predict(logits, [(9, 12), (3, 4)])
        return *maps, ciss_fast.confusion(logits, labels, 5)

    compiled = torch.compile(evaluate, backend="aot_eager", fullgraph=True)
    for result, expected in zip(compiled(logits, labels), evaluate(logits, labels), strict=True):
        assert torch.equal(result, expected)


def test_logits_that_require_a_gradient(label, label_map_logits, backend) -> None:
    logits = label_map_logits(5, (4, 6))
    leaf = logits.clone().requires_grad_()
    for source in (leaf, leaf * 1):
        labels = ciss_fast.predict(source, (20, 33), backend=backend)
        counts = ciss_fast.confusion(source, label, 5, backend=backend)
        assert not labels.requires_grad and not counts.requires_grad
        assert torch.equal(labels, ciss_fast.predict(logits, (20, 33), backend=backend))
        assert torch.equal(counts, ciss_fast.confusion(logits, label, 5, backend=backend))


def test_inference_mode(label, label_map_logits, backend) -> None:
    logits = label_map_logits(5, (4, 6))
    expected = ciss_fast.predict(logits, (20, 33), backend=backend)
    counts = ciss_fast.confusion(logits, label, 5, backend=backend)
    with torch.inference_mode():
        inside = logits.clone()
        assert inside.is_inference()
        assert torch.equal(ciss_fast.predict(inside, (20, 33), backend=backend), expected)
        assert torch.equal(ciss_fast.confusion(inside, label, 5, backend=backend), counts)
    assert torch.equal(ciss_fast.predict(inside, (20, 33), backend=backend), expected)


def test_autocast_casts_nothing(label, label_map_logits, backend) -> None:
    # The two classes differ by less than a bfloat16 can hold.
    logits = torch.tensor([1.0, 1.0001]).reshape(1, 2, 1, 1).expand(2, 2, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ciss_fast.predict(logits, (20, 33), backend=backend).eq(1).all()
        assert ciss_fast.confusion(logits, label.clamp(max=1), 2, backend=backend)[:, 1].sum() == label.numel()


def test_inputs_stay_as_they_are(label, label_map_logits, backend) -> None:
    logits = label_map_logits(5, (4, 6))
    before, label_before = logits.clone(), label.clone()
    ciss_fast.predict(logits, (20, 33), kind="sigmoid", backend=backend)
    ciss_fast.confusion(logits, label, 5, kind="sigmoid", backend=backend)
    assert torch.equal(logits, before) and torch.equal(label, label_before)


def test_the_number_of_threads_changes_nothing(label, label_map_logits) -> None:
    # Random logits and, of the same size, small integers with ties within rounding.
    generator = torch.Generator().manual_seed(0)
    tied = torch.randint(-2, 3, (2, 5, 7, 11), generator=generator).float()
    for logits in (label_map_logits(5, (7, 11)), tied, tied.double()):
        results = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            maps = [ciss_fast.predict(logits, size) for size in ((20, 33), (7, 11), (3, 4), (97, 101))]
            results.append([*maps, ciss_fast.confusion(logits, label, 5)])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_calls_from_several_python_threads(label, label_map_logits) -> None:
    many = [label_map_logits(5, (4, 6), seed=i) for i in range(8)]

    def evaluate(logits):
        return ciss_fast.predict(logits, (20, 33)), ciss_fast.confusion(logits, label, 5)

    expected = [evaluate(logits) for logits in many]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for result, alone in zip(pool.map(evaluate, many), expected, strict=True):
                assert torch.equal(result[0], alone[0]) and torch.equal(result[1], alone[1])
