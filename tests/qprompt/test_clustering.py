from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from qprompt import InvalidWeightsError, Quantizer, QuantizerOptions
from qprompt.clustering import adapt_, kl_divergence


def weights():
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


def other_shape():
    """Weights whose normalised distribution is far from normal."""
    return weights().exp()


def adapt(quantizer, weight):
    return adapt_([(quantizer, weight)])


def fitted(interval, kl_threshold):
    quantizer = Quantizer(QuantizerOptions(2, True, interval, kl_threshold), "ctx")
    quantizer.fit_(weights())
    return quantizer


@pytest.mark.parametrize("interval", [1, 3, 10])
def test_no_fit_before_the_interval_and_a_fit_when_it_has_passed(interval):
    quantizer = fitted(interval, 0.01)
    for _ in range(2):
        fits = [adapt(quantizer, other) for other in [other_shape()] * (interval - 1)]
        before = quantizer.codebook.clone()
        assert not any(fits)
        assert adapt(quantizer, weights() if quantizer.fits > 1 else other_shape())
        assert not torch.equal(before, quantizer.codebook) and int(quantizer.steps) == 0
    assert int(quantizer.fits) == 3


def test_no_fit_below_the_divergence():
    quantizer = fitted(1, 0.01)
    assert not any(adapt(quantizer, weights() * 5 + 3) for _ in range(5)), "moments do not count"
    assert int(quantizer.steps) == 5
    divergence = float(kl_divergence(quantizer.histogram(other_shape()), quantizer.counts))
    quantizer.options = replace(quantizer.options, kl_threshold=divergence * 1.001)
    assert not adapt(quantizer, other_shape())
    quantizer.options = replace(quantizer.options, kl_threshold=divergence * 0.999)
    assert adapt(quantizer, other_shape())


def test_fitted_codebook_is_that_of_the_current_weights():
    quantizer = fitted(1, 0.01)
    adapt(quantizer, other_shape())
    fresh = Quantizer(QuantizerOptions(2, True, 1, 0.01))
    fresh.fit_(other_shape())
    assert torch.equal(quantizer.codebook, fresh.codebook)
    assert torch.equal(quantizer.counts, fresh.counts)


def test_divergence_agrees_with_torch():
    p, q = torch.tensor([5, 1, 10, 4]), torch.tensor([2, 8, 3, 7])
    expected = F.kl_div(((q + 1) / (q + 1).sum()).log(), (p + 1) / (p + 1).sum(), reduction="sum")
    torch.testing.assert_close(kl_divergence(p, q).float(), expected)
    assert kl_divergence(p, q) != kl_divergence(q, p)


def test_divergence_of_empty_bins():
    p, q = torch.tensor([0, 10, 0]), torch.tensor([10, 0, 0])
    assert kl_divergence(p, p) == 0
    assert 0 < kl_divergence(p, q) < float("inf")


def test_diverged_training_names_the_parameter():
    quantizer = fitted(1, 0.01)
    with pytest.raises(InvalidWeightsError, match="'ctx'"):
        adapt(quantizer, torch.full((64, 64), float("nan")))


def test_each_codebook_is_judged_for_itself():
    pairs, alone = [], []
    for bits, weight in [
        (1, weights()),
        (2, other_shape()),
        (2, weights() * 2),
        (4, other_shape()),
    ]:
        for found in (pairs, alone):
            quantizer = Quantizer(QuantizerOptions(bits, True, 2, 0.01), "ctx")
            quantizer.fit_(weights())
            quantizer.steps += bits % 2
            found.append((quantizer, weight))
    for fitted in (0, 2, 0):
        assert adapt_(pairs) == sum(adapt(*pair) for pair in alone) == fitted
        for (one, _), (other, _) in zip(pairs, alone, strict=True):
            for key, value in one.state_dict().items():
                assert torch.equal(value, other.state_dict()[key]), key
    assert adapt_([]) == 0
