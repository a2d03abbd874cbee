"""Paired differences; SciPy's paired t-test and binomial test are the oracles."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, ttest_rel

from reporting.plots import section_plots
from reporting.report import make_report
from reporting.scores import differences, holm
from reporting.writers import COLLAPSED, markdown


def difference(first, second):
    """Mean, margin and n of first minus second, each a mapping from seeds."""
    gains = pd.DataFrame({"x": pd.Series(first) - pd.Series(second)})
    gains.index = pd.MultiIndex.from_product([["pair"], gains.index], names=["pair", "seed"])
    return differences(gains).xs("x", axis=1, level="measure").iloc[0]


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_is_that_of_the_paired_t_test(n):
    random = np.random.default_rng(n)
    first, second = random.normal(80, 3, (2, n))
    found = difference(dict(enumerate(first)), dict(enumerate(second)))
    interval = ttest_rel(first, second).confidence_interval(0.95)
    assert found["mean"] == pytest.approx((first - second).mean())
    assert found["mean"] - found["margin"] == pytest.approx(interval.low)
    assert found["mean"] + found["margin"] == pytest.approx(interval.high)
    assert found["n"] == n


@pytest.mark.parametrize("gains", [[1, 2, 3, -1], [0, 0, 5, 4, 3, 2, 1], [0, 0], [-30, 1, 1, 1, 1]])
def test_p_is_that_of_the_sign_test_without_ties(gains):
    found = difference(dict(enumerate(gains)), dict.fromkeys(range(len(gains)), 0))
    wins, losses = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1
    assert found["p"] == pytest.approx(expected)
    assert found["median"] == np.median(gains)


def test_p_is_corrected_for_the_number_of_tests():
    # smallest first: 4 * 0.01, 3 * 0.02, the same again because 2 * 0.025 is less, 1 * 0.3
    p = pd.Series([0.3, 0.01, np.nan, 0.025, 0.02])
    expected = [0.3, 0.04, np.nan, 0.06, 0.06]
    np.testing.assert_allclose(holm(p), expected)


def test_by_hand_for_two_seeds():
    found = difference({1: 82.0, 2: 86.0, 7: 0.0}, {1: 80.0, 2: 82.0, 9: 0.0})
    assert (found["mean"], found["n"]) == (3.0, 2)  # gains 2 and 4; s / sqrt(n) = 1
    assert found["margin"] == pytest.approx(12.7062, abs=1e-4)  # t(0.975, 1)


def test_one_pair_claims_nothing():
    found = difference({1: 90.0}, {1: 10.0})
    assert (found["mean"], found["n"]) == (80.0, 1)
    assert np.isnan(found["margin"])


def test_without_a_shared_seed_there_is_no_comparison(runs, compared):
    runs.trained("CoOp", "Digits", 90.0, seed=1)
    runs.trained("MaPLe", "Digits", 10.0, seed=2)
    assert not compared()


@pytest.fixture
def compared(runs):
    """A function that returns the comparisons of the first section by pair and data set."""

    def compared():
        (section,) = make_report(runs.root).sections
        return {
            (first.label, second.label, dataset): compared.unstack("measure")
            for (first, second, dataset), compared in section.comparisons.iterrows()
        }

    return compared


def test_a_loss_is_reported_as_a_loss(runs, compared):
    for seed in (1, 2):
        runs.base_to_new("CoOp", "Digits", 80.0 + seed, 60.0, seed=seed)
        runs.base_to_new("QCoOp", "Digits", 80.0 + seed, 55.0 - seed, seed=seed, bits=2)
    ((pair, comparison),) = compared().items()
    assert pair == ("QCoOp, 2 bits", "CoOp", "Digits")
    assert comparison.at["mean", "base"] == 0.0
    assert comparison.at["mean", "new"] == -6.5  # -6 and -7
    assert comparison.at["margin", "new"] == pytest.approx(12.7062 * 0.5, abs=1e-4)


def test_the_average_compares_the_seeds_averages(runs, compared):
    # gains on Digits: 1, 3; on Characters: 3, 5: the seeds' averages gain 2 and 4
    for dataset, gains in (("Digits", (1.0, 3.0)), ("Characters", (3.0, 5.0))):
        for seed, gain in zip((1, 2), gains, strict=True):
            runs.trained("CoOp", dataset, 70.0 + seed, seed=seed)
            runs.trained("QCoOp", dataset, 70.0 + seed + gain, seed=seed, bits=1)
    found = compared()
    assert [key[2] for key in found] == ["average", "Digits", "Characters"]
    average = found["QCoOp, 1 bit", "CoOp", "average"]["16 shots"]
    assert tuple(average[["mean", "n", "sets"]]) == (3.0, 2, 2)
    assert average["margin"] == pytest.approx(12.7062, abs=1e-4)


def test_the_average_is_over_what_both_ran_on(runs, compared):
    for dataset in ("Digits", "Characters", "DigitsNoise"):
        runs.trained("CoOp", dataset, 70.0)
    for dataset in ("Digits", "Characters"):
        runs.trained("QCoOp", dataset, 71.0, bits=1)
    average = compared()["QCoOp, 1 bit", "CoOp", "average"]["16 shots"]
    assert tuple(average[["mean", "sets"]]) == (1.0, 2)
    assert np.isnan(average["margin"])


def test_h_of_an_average_is_that_of_the_averages(runs, compared):
    for dataset, base, new in (("Digits", 90.0, 50.0), ("Characters", 70.0, 90.0)):
        runs.base_to_new("CoOp", dataset, base, new)
        runs.base_to_new("QCoOp", dataset, base, new + 10, bits=1)
    average = compared()["QCoOp, 1 bit", "CoOp", "average"]["H"]
    assert average["mean"] == pytest.approx(2 * 80 * 80 / 160 - 2 * 80 * 70 / 150)


def test_zero_shot_has_no_seeds_to_compare(runs, compared):
    runs.zero_shot("Digits", 50.0)
    runs.trained("CoOp", "Digits", 70.0)
    assert not compared()


def test_collapsed_runs_are_counted_and_drawn(runs):
    runs.zero_shot("Digits", 80.0)
    for seed in range(6):
        runs.trained("CoOp", "Digits", 69.9 if seed < 2 else 90.0, seed=seed)
        runs.trained("QCoOp", "Digits", 70.1, bits=1, seed=seed)
    runs.trained("CoOp", "Characters", 1.0)  # without a zero-shot run nobody can tell
    report = make_report(runs.root)
    (section,) = report.sections
    counts = {(m.label, d): (k, n) for (m, d), (k, n, *_) in section.collapsed.iterrows()}
    assert counts == {("CoOp", "Digits"): (2, 6), ("QCoOp, 1 bit", "Digits"): (0, 6)}
    interval = binomtest(2, 6).proportion_ci(method="wilson")
    assert section.collapsed.iloc[0][["low", "high"]].tolist() == [interval.low, interval.high]
    plots = {section: section_plots(section)}
    assert [p.dataset for p in plots[section] if p.slug.endswith("stability")] == ["Digits"]
    text = markdown(report, plots, "plots")
    assert COLLAPSED in text and "2 of 6 |" in text and "p (sign test)" in text


def test_where_nothing_collapsed_nothing_is_said_of_it(runs):
    runs.zero_shot("Digits", 80.0)
    runs.trained("CoOp", "Digits", 70.0)
    (section,) = make_report(runs.root).sections
    assert not len(section.collapsed)
