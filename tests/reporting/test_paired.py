"""Paired differences; SciPy's paired t-test is the oracle of the intervals."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from reporting.report import make_report
from reporting.scores import difference


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_is_that_of_the_paired_t_test(n):
    random = np.random.default_rng(n)
    first, second = random.normal(80, 3, (2, n))
    found = difference(dict(enumerate(first)), dict(enumerate(second)))
    interval = ttest_rel(first, second).confidence_interval(0.95)
    assert found.mean == pytest.approx((first - second).mean())
    assert found.mean - found.margin == pytest.approx(interval.low)
    assert found.mean + found.margin == pytest.approx(interval.high)
    assert found.n == n


def test_by_hand_for_two_seeds():
    found = difference({1: 82.0, 2: 86.0, 7: 0.0}, {1: 80.0, 2: 82.0, 9: 0.0})
    assert (found.mean, found.n) == (3.0, 2)  # gains 2 and 4; s / sqrt(n) = 1
    assert found.margin == pytest.approx(12.7062, abs=1e-4)  # t(0.975, 1)
    assert not found.excludes_zero


def test_one_pair_claims_nothing_and_none_is_none():
    found = difference({1: 90.0}, {1: 10.0})
    assert (found.mean, found.margin, found.excludes_zero) == (80.0, None, False)
    assert difference({1: 90.0}, {2: 10.0}) is None


@pytest.fixture
def compared(runs):
    """A function that returns the comparisons of the first section by pair and data set."""

    def compared():
        (section,) = make_report(runs.root).sections
        return {(c.first.label, c.second.label, c.dataset): c for c in section.comparisons}

    return compared


def test_a_loss_is_reported_as_a_loss(runs, compared):
    for seed in (1, 2):
        runs.base_to_new("CoOp", "Digits", 80.0 + seed, 60.0, seed=seed)
        runs.base_to_new("QCoOp", "Digits", 80.0 + seed, 55.0 - seed, seed=seed, bits=2)
    ((pair, comparison),) = compared().items()
    assert pair == ("QCoOp, 2 bits", "CoOp", "Digits")
    assert comparison.of_counterparts
    assert comparison.differences["base"].mean == 0.0
    assert comparison.differences["new"].mean == -6.5  # -6 and -7
    assert comparison.differences["new"].margin == pytest.approx(12.7062 * 0.5, abs=1e-4)


def test_the_average_compares_the_seeds_averages(runs, compared):
    # gains on Digits: 1, 3; on Characters: 3, 5: the seeds' averages gain 2 and 4
    for dataset, gains in (("Digits", (1.0, 3.0)), ("Characters", (3.0, 5.0))):
        for seed, gain in zip((1, 2), gains, strict=True):
            runs.trained("CoOp", dataset, 70.0 + seed, seed=seed)
            runs.trained("QCoOp", dataset, 70.0 + seed + gain, seed=seed, bits=1)
    found = compared()
    assert [key[2] for key in found] == ["average", "Digits", "Characters"]
    average = found["QCoOp, 1 bit", "CoOp", "average"].differences["16 shots"]
    assert (average.mean, average.n, average.sets) == (3.0, 2, 2)
    assert average.margin == pytest.approx(12.7062, abs=1e-4)


def test_the_average_is_over_what_both_ran_on(runs, compared):
    for dataset in ("Digits", "Characters", "DigitsNoise"):
        runs.trained("CoOp", dataset, 70.0)
    for dataset in ("Digits", "Characters"):
        runs.trained("QCoOp", dataset, 71.0, bits=1)
    average = compared()["QCoOp, 1 bit", "CoOp", "average"].differences["16 shots"]
    assert (average.mean, average.sets, average.margin) == (1.0, 2, None)


def test_h_of_an_average_is_that_of_the_averages(runs, compared):
    for dataset, base, new in (("Digits", 90.0, 50.0), ("Characters", 70.0, 90.0)):
        runs.base_to_new("CoOp", dataset, base, new)
        runs.base_to_new("QCoOp", dataset, base, new + 10, bits=1)
    average = compared()["QCoOp, 1 bit", "CoOp", "average"].differences["H"]
    assert average.mean == pytest.approx(2 * 80 * 80 / 160 - 2 * 80 * 70 / 150)


def test_zero_shot_has_no_seeds_to_compare(runs, compared):
    runs.zero_shot("Digits", 50.0)
    runs.trained("CoOp", "Digits", 70.0)
    assert not compared()
