from __future__ import annotations

import copy
from statistics import NormalDist

import pytest
import torch

from qprompt import (
    InvalidOptionError,
    InvalidWeightsError,
    Quantizer,
    QuantizerOptions,
    kmeans_1d,
)
from qprompt.assignment import encode, histograms, number_below, quantize
from qprompt.quantizer import normal_levels

BITS = [1, 2, 3, 4, 8]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1, 1), (3, 5), (4, 160), (2, 3, 7)]

grid = [
    pytest.mark.parametrize("codebook", ["kmeans", "uniform", "normal"]),
    pytest.mark.parametrize("normalize", [True, False]),
    pytest.mark.parametrize("dtype", DTYPES, ids=str),
    pytest.mark.parametrize("bits", BITS),
    pytest.mark.parametrize("shape", SHAPES, ids=str),
]


def over_grid(test):
    for mark in grid:
        test = mark(test)
    return test


def weights(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 0.02 + 0.003).to(dtype)


def fitted(weight, bits, normalize=True, codebook="kmeans"):
    options = QuantizerOptions(bits, normalize, codebook=codebook)
    quantizer = Quantizer(options, "ctx", weight.dtype)
    quantizer.fit_(weight)
    return quantizer


@over_grid
def test_invariants(shape, bits, dtype, normalize, codebook):
    weight = weights(shape, dtype).requires_grad_()
    quantizer = fitted(weight, bits, normalize, codebook)
    before = copy.deepcopy(quantizer.state_dict())
    value = quantizer(weight)

    assert value.shape == weight.shape and value.dtype == dtype
    assert len(value.detach().float().unique()) <= 2**bits
    assert torch.equal(value, value.half().to(dtype)), "not a half-precision number"
    assert torch.equal(value, quantizer(weight)), "forward is not a function"
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name]), f"forward changed {name}"

    gradient = torch.randn(shape).to(dtype)
    value.backward(gradient)
    assert torch.equal(weight.grad, gradient)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("constant", [False, True])
def test_gradient_through_moments_is_that_of_the_written_out_map(bits, normalize, constant):
    weight = weights((4, 32), torch.float32).mul(not constant).requires_grad_()
    options = QuantizerOptions(bits, normalize, through_moments=True)
    quantizer = Quantizer(options)
    quantizer.fit_(weight)
    value = quantizer(weight)
    assert torch.equal(value, fitted(weight, bits, normalize)(weight))

    weight64 = weight.detach().double().requires_grad_()
    mu, sigma = 0, 1
    if normalize and not constant:
        mu, sigma = weight64.mean(), weight64.var(unbiased=False).sqrt()
    standard = (weight64 - mu) / sigma
    levels = ((value.double() - mu) / sigma).detach()
    expected = sigma * (standard + (levels - standard).detach()) + mu

    gradient = torch.randn((4, 32), generator=torch.Generator().manual_seed(1))
    value.backward(gradient)
    expected.backward(gradient.double())
    torch.testing.assert_close(weight.grad.double(), weight64.grad, rtol=1e-4, atol=1e-5)


@over_grid
def test_fitting_quantized_weights_changes_nothing(shape, bits, dtype, normalize, codebook):
    weight = weights(shape, dtype)
    value = fitted(weight, bits, normalize, codebook)(weight)
    assert torch.equal(fitted(value, bits, normalize, codebook)(value), value)


@pytest.mark.parametrize("k", [2, 4, 256])
def test_normal_levels_are_the_quantiles_of_the_weights_own_normal_distribution(k):
    weight = weights((1000,), torch.float32)
    own = NormalDist(float(weight.mean()), float(weight.std(unbiased=False)))
    expected = [own.inv_cdf((i + 0.5) / k) for i in range(k)]
    assert normal_levels(weight, k).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_precision_values_are_kept_to_the_last_bit(dtype):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    every = every[every.isfinite()].float().to(dtype).half()
    every = every[every.isfinite()].float().unique().half()
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        chosen = every[torch.randint(len(every), (16,), generator=generator)].sort().values
        value = chosen.to(dtype)[torch.randint(16, (50,), generator=generator)]
        quantizer = Quantizer(QuantizerOptions(4), dtype=dtype)
        quantizer.fit_(value)
        assert torch.equal(quantizer(value), value)


@pytest.mark.parametrize("bits", BITS)
def test_each_weight_goes_to_its_nearest_centroid(bits):
    weight = weights((4, 512), torch.float32)
    quantizer = fitted(weight, bits)
    centroids = quantizer.codebook * weight.double().std(unbiased=False) + weight.double().mean()
    distance = (weight.double()[..., None] - centroids).abs()
    indices, _ = quantizer.encode(weight)
    chosen = distance.gather(-1, indices[..., None].long())[..., 0]
    assert (chosen <= distance.min(-1).values + 1e-9).all()


@pytest.mark.parametrize("bits", BITS)
def test_equals_clustering_of_the_normalised_weights(bits):
    weight = weights((4, 512), torch.float32)
    normalised = (weight - weight.mean()) / weight.std(unbiased=False)
    codebook = fitted(weight, bits).codebook.float()
    torch.testing.assert_close(codebook, kmeans_1d(normalised, 2**bits), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("bits", range(1, 9))
def test_search_agrees_with_bucketize(bits):
    generator = torch.Generator().manual_seed(bits)
    bounds = torch.randn(2, 2**bits - 1, generator=generator).mul(20).round().sort().values
    x = torch.randn(40, 50, generator=generator).mul(20).round()  # ties, also among bounds
    x[0, :4] = torch.tensor([float("inf"), -float("inf"), 0.0, -0.0])
    for numbers in (x, x.t(), x[::2, 3:7], x[:0]):
        rows = numbers.reshape(1, -1)
        expected = torch.stack([torch.bucketize(rows[0], row) for row in bounds])
        for indices, n in (
            (number_below(bounds[:1], rows), 1),
            (number_below(bounds, rows.repeat(2, 1)), 2),
        ):
            assert indices.dtype == torch.int32
            assert torch.equal(indices.long(), expected[:n])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_several_at_once_are_what_each_is_alone(bits, dtype, normalize):
    several = [weights((2, 3, 70), dtype, seed) * 2**seed for seed in range(3)]
    pairs = [(fitted(weight, bits, normalize), weight) for weight in several]
    moved = [(quantizer, weight * 1.25) for quantizer, weight in pairs]  # off the centroids
    for of_all, of_one in (
        (quantize(moved), lambda quantizer, weight: quantizer(weight)),
        (encode(moved)[0], lambda quantizer, weight: quantizer.encode(weight)[0]),
        (histograms(moved), lambda quantizer, weight: quantizer.histogram(weight)),
    ):
        assert torch.equal(of_all, torch.stack([of_one(*pair) for pair in moved]))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_seen(normalize, number):
    weight = weights((4, 32), torch.float32)
    quantizer = fitted(weight, 2, normalize)
    weight[1, 2] = number
    assert quantizer(weight).isnan().all()


def test_normalised_codebook_follows_shift_and_scale():
    weight = weights((4, 512), torch.float32)
    quantizer = fitted(weight, 2)
    moved = quantizer(weight * 3 + 0.5)
    torch.testing.assert_close(moved, quantizer(weight) * 3 + 0.5, atol=5e-4, rtol=0)
    plain = fitted(weight, 2, normalize=False)
    assert torch.equal(plain(weight + 0.5).unique(), plain(weight).max()[None])


def test_zero_is_positive():
    weight = torch.tensor([[-1e-9, 1.0], [-1e-9, 1.0]])
    quantizer = fitted(weight, 1, normalize=False)
    for zero in (quantizer(weight)[0, 0], quantizer.encode(weight)[1][0]):
        assert zero == 0 and not zero.signbit()


def test_non_contiguous_weights():
    weight = weights((6, 4), torch.float32)
    assert torch.equal(fitted(weight.t(), 2)(weight.t()), fitted(weight, 2)(weight).t())


def test_constant_weights():
    weight = torch.full((3, 3), 0.1)
    assert torch.equal(fitted(weight, 2)(weight), torch.full((3, 3), 0.1).half().float())


@pytest.mark.parametrize("kind", ["half", "bfloat16", "float", "double"])
def test_codebook_survives_conversion(kind):
    quantizer = fitted(weights((4, 64), torch.float32), 4)
    before = quantizer.codebook.clone()
    getattr(quantizer, kind)()
    assert torch.equal(quantizer.codebook, before)


def test_state_dict_round_trip():
    weight = weights((4, 64), torch.float32)
    quantizer, other = fitted(weight, 3), Quantizer(QuantizerOptions(3))
    quantizer.steps += 7
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(weight), quantizer(weight))
    assert int(other.steps) == 7 and int(other.fits) == 1


def test_non_finite_weights_name_the_parameter():
    weight = torch.tensor([[1.0, float("nan")]])
    with pytest.raises(InvalidWeightsError, match="parameter 'ctx' holds 1 NaN"):
        fitted(weight, 1)


def test_overflow_of_half_precision_names_the_parameter():
    with pytest.raises(InvalidWeightsError, match="'ctx' needs the centroid 80000"):
        fitted(torch.tensor([[80000.0, 0.0]]), 1)
    with pytest.raises(InvalidWeightsError):
        fitted(torch.tensor([[65500.0, 0.0]]).bfloat16(), 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bits": 0}, "bits must be an integer from 1 to 8, got 0"),
        ({"bits": 9}, "got 9"),
        ({"bits": 1.0}, "got 1.0"),
        ({"bits": True}, "got True"),
        ({"interval": 0}, "interval must be .* got 0"),
        ({"kl_threshold": -0.1}, "kl_threshold must be .* got -0.1"),
        ({"kl_threshold": float("nan")}, "got nan"),
        ({"codebook": "lloyd"}, "codebook must be one of .* got 'lloyd'"),
    ],
)
def test_options_outside_their_range(change, message):
    options = {"bits": 1, "interval": 1, "kl_threshold": 0.0, "codebook": "kmeans", **change}
    with pytest.raises(InvalidOptionError, match=message):
        QuantizerOptions(**options)
