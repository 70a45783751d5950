"""`prototypes` against the formulas in double precision: sizes, types, layouts, lengths, precision."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import ciss_fast

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def test_by_hand(backend) -> None:
    # Two positions; the class's memory is the first one's direction twice, and something opposite that ReLU hides.
    prev = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    curr = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    memory = torch.tensor([[[1.0, 0.0], [7.0, 0.0], [-3.0, -3.0]]])
    weight = torch.tensor([[2.0, 0.0]]).mul(0.5).softmax(dim=1)  # cosines add up to 2 and to 0; temperature 1/2
    result = ciss_fast.prototypes(prev, curr, memory, 0.5, backend=backend)
    torch.testing.assert_close(result, (weight @ prev, weight @ curr))


# Whole vectors and tiles, one more, one less; one block of positions and several.
@pytest.mark.parametrize("dimension", [1, 2, 15, 16, 17, 33, 64])
@pytest.mark.parametrize("per_class", [1, 2, 4, 11, 12, 13, 29])
def test_sizes(per_class, dimension, backend, prototype_inputs, prototypes_match) -> None:
    for positions, classes in ((1, 1), (2, 3), (31, 2), (32, 1), (33, 9), (97, 2)):
        for dtype in (torch.float32, torch.float64):
            inputs = prototype_inputs(positions, classes, per_class, dimension, dtype=dtype)
            prototypes_match(inputs, backend=backend)


def test_many_blocks_and_chunks(backend, prototype_inputs, close_positions, prototypes_match) -> None:
    for sizes in ((1500, 3, 200, 256), (130, 2, 420, 2100), (3000, 20, 5, 300), (2000, 1, 1, 70)):
        for dtype in (torch.float32, torch.float64):
            prototypes_match(prototype_inputs(*sizes, dtype=dtype), backend=backend)
            prototypes_match(close_positions(*sizes, dtype=dtype), backend=backend)


def test_one_position_is_the_prototype(backend, prototype_inputs) -> None:
    inputs = prototype_inputs(1, 4)
    for value, feature in zip(ciss_fast.prototypes(*inputs, backend=backend), inputs[:2], strict=True):
        assert torch.equal(value, feature.expand(4, -1))


def test_no_classes(backend, prototype_inputs) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        for value in ciss_fast.prototypes(*prototype_inputs(9, 0, dtype=dtype), backend=backend):
            assert value.shape == (0, 13)
            assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("types", list(product(DTYPES, repeat=3)), ids=str)
def test_types(types, backend, prototype_inputs, prototypes_match) -> None:
    inputs = prototype_inputs(40, 2, 14, 19)
    inputs = inputs._replace(**{name: t.to(d) for name, t, d in zip(inputs._fields, inputs, types, strict=True)})
    prototypes_match(inputs, backend=backend)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts(dtype, backend, prototype_inputs) -> None:
    inputs = prototype_inputs(48, 3, 14, 20, dtype=dtype)
    expected = ciss_fast.prototypes(*inputs, backend=backend)

    def embedded(t):  # every other row and every third element of something larger
        room = torch.full([*t.shape[:-2], 2 * t.shape[-2], 3 * t.shape[-1]], torch.nan, dtype=t.dtype)
        room[..., ::2, 1::3] = t
        return room[..., ::2, 1::3]

    transposed = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in inputs]
    classes_inside = inputs.memory.transpose(0, 1).contiguous().transpose(0, 1)
    maps = [t.T.reshape(20, 2, 4, 6).transpose(0, 1).contiguous() for t in inputs[:2]]
    from_maps = [t.permute(0, 2, 3, 1).flatten(0, 2) for t in maps]
    views = [
        [embedded(t) for t in inputs],
        transposed,
        [*inputs[:2], classes_inside],
        [*from_maps, inputs.memory],
    ]
    for view in views:
        assert all(torch.equal(t, original) for t, original in zip(view, inputs, strict=True))
        result = ciss_fast.prototypes(*view, backend=backend)
        for value, exact in zip(result, expected, strict=True):  # a matrix product may depend on the layout
            torch.testing.assert_close(value, exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_repeated_views(backend, prototype_inputs, prototypes_match) -> None:
    inputs = prototype_inputs(30, 2, 13, 8)
    repeated = inputs._replace(
        feature_curr=inputs.feature_curr[:1].expand(30, -1), memory=inputs.memory[:1, :1].expand(2, 13, -1)
    )
    prototypes_match(repeated, backend=backend)


@pytest.mark.parametrize("temperature", [1e-6, 0.5, 10, 1000.0])
def test_temperature(temperature, backend, prototype_inputs, prototypes_match) -> None:
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        prototypes_match(
            prototype_inputs(dtype=dtype),
            temperature=temperature,
            backend=backend,
            tolerance=tolerance * max(temperature, 1),
        )


def test_lengths_do_not_matter_for_the_weights(backend, prototype_inputs, prototypes_match) -> None:
    # Nor do they overflow or vanish: a length is taken in double precision.
    inputs = prototype_inputs(60, 3, 14, 24, dtype=torch.float64)
    factors = 10.0 ** torch.linspace(-10, 25, 60, dtype=torch.float64)
    memory = inputs.memory * 10.0 ** torch.linspace(-10, 25, 14, dtype=torch.float64)[:, None]
    expected = ciss_fast.prototypes(inputs.feature_prev, inputs.feature_curr, inputs.memory, backend=backend)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        scaled = inputs._replace(feature_prev=inputs.feature_prev * factors[:, None], memory=memory)
        scaled = type(inputs)(*(t.to(dtype) for t in scaled))
        prototypes_match(scaled, backend=backend)
        if dtype == torch.float64:
            torch.testing.assert_close(
                ciss_fast.prototypes(*scaled, backend=backend)[1], expected[1], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_vectors_of_zeros(dtype, backend, prototype_inputs, prototypes_match) -> None:
    inputs = prototype_inputs(40, 3, 14, 20, dtype=dtype)
    inputs.feature_prev[::3] = 0
    inputs.memory[0, ::2] = 0
    inputs.memory[1] = 0  # cosine 0 everywhere: the mean over the positions
    prototypes_match(inputs, backend=backend)
    mean = inputs.feature_curr.double().mean(dim=0)
    result = ciss_fast.prototypes(*inputs, backend=backend)[1][1]
    torch.testing.assert_close(result.double(), mean, rtol=0, atol=1e-6)
    inputs.feature_prev.zero_()
    prototypes_match(inputs, backend=backend)


def test_everything_behind_relu(backend, prototype_inputs, prototypes_match) -> None:
    inputs = prototype_inputs(40, 1, 14, 20)
    inputs = inputs._replace(memory=inputs.memory.abs(), feature_prev=-inputs.feature_prev.abs())
    prototypes_match(inputs, backend=backend)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-11)], ids=str)
def test_a_thousand_features_a_class(
    dtype, tolerance, backend, close_positions, prototype_scores, define_prototypes, prototypes_close
) -> None:
    # Scores of several thousand, of which exp has to see the thousandths.
    inputs = close_positions(700, 2, 1000, 256, dtype=dtype)
    score = 10 * prototype_scores(inputs)
    weight = score.softmax(dim=1)
    assert score.max() > 2000 and weight.max() < 0.2 and ((weight > 1e-3).sum(dim=1) > 50).all()
    prototypes_close(ciss_fast.prototypes(*inputs, backend=backend), define_prototypes(inputs), tolerance)


def test_scores_far_apart(backend, prototype_inputs, prototypes_match) -> None:
    # Within a block and between blocks: what exp(-745) makes of the others must not disturb the best.
    inputs = prototype_inputs(2100, 2, 300, 128)
    inputs.feature_prev[1000:] *= -1
    for order in (inputs, inputs._replace(feature_prev=inputs.feature_prev.flip(0))):
        prototypes_match(order, backend=backend)
        prototypes_match(order, backend=backend, temperature=1e4, tolerance=1e-5)
