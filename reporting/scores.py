"""Means over seeds and data sets, and paired differences of two methods.

Scores are accuracies in percent, with the index (method, dataset, seed) and a column for each
measure, such as "base". ``finish`` makes the means of measures that follow from others, such as the
harmonic mean; pd.DataFrame leaves all as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import binom, binomtest
from scipy.stats import t as student

AVERAGE = "average"
CONFIDENCE = 0.95
COLLAPSE = 10  # points below zero-shot CLIP
Finish = Callable[[pd.DataFrame], pd.DataFrame]


class ConflictingResultsError(ValueError):
    """Two different results claim to be the same run."""


def collect(runs: pd.DataFrame) -> pd.DataFrame:
    """Sort the runs' accuracies; a run that was evaluated again, to the same end, counts once.

    Raises:
        ConflictingResultsError: two different results for one run.
    """
    key = ["method", "dataset", "seed", "measure"]
    once = runs.drop_duplicates([*key, "accuracy"])
    if once.duplicated(key).any():
        again = once[once.duplicated(key, keep=False)]
        paths = list(again.merge(again[key].head(1)).path)
        raise ConflictingResultsError(
            f"two different results for one run: {paths[0]} and {paths[1]}; move one away"
        )
    return once.pivot(index=key[:3], columns="measure", values="accuracy")


def summarise(scores: pd.DataFrame, finish: Finish = pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds.

    Returns:
        Index (method, dataset), columns (mean, std, seeds, sets or of; measure).
    """
    seeds = scores.groupby(["method", "dataset"])
    means, counts = finish(seeds.mean()), seeds.count()
    one = counts.clip(1, 1)
    return statistics(mean=means, std=seeds.std(), seeds=counts[counts > 0], sets=one, of=one)


def average(scores: pd.DataFrame, of: int, finish: Finish = pd.DataFrame) -> pd.DataFrame:
    """Average the data sets' means of each measure, over those that have it.

    The deviation is that of the seeds' own averages; seeds that did not run on all count not.

    Args:
        scores: on several data sets.
        of: the number of data sets that a whole average is over.
        finish: see above.

    Returns:
        Index method, columns as of :func:`summarise`.
    """
    seeds = scores.groupby(["method", "dataset"])
    means, counts = seeds.mean().groupby("method"), seeds.count()
    return statistics(
        mean=finish(means.mean()),
        std=finish(scores.groupby("method").apply(_average_seeds)).groupby("method").std(),
        seeds=counts[counts > 0].groupby("method").min(),
        sets=means.count(),
        of=means.count().clip(of, of),
    )


def compare(
    scores: pd.DataFrame, datasets: Sequence[str], finish: Finish = pd.DataFrame
) -> pd.DataFrame:
    """Compare each two methods on each data set, and on the average over those that both ran on.

    The unit is the seed, also for the average: its differences are taken between the seeds'
    averages, so that the interval speaks of these data sets trained again, not of others.

    Returns:
        Index (first, second, dataset), columns (mean, margin, median, p, n or sets; measure).
    """
    trained = [m for m in scores.index.unique("method") if not m.zero_shot]  # the rest has no seeds
    gains, sets = {}, {}
    for second, first in combinations(sorted(trained), 2):
        one, other = scores.loc[first], scores.loc[second]
        shared = [d for d in datasets if d in one.index and d in other.index]
        if len(shared) > 1:
            key = first, second, AVERAGE
            gains[key], sets[key] = _gains_on_average(one.loc[shared], other.loc[shared], finish)
        gains |= {(first, second, d): one.loc[d] - other.loc[d] for d in shared}
    pairs = pd.concat(gains, names=["first", "second", "dataset"]) if gains else pd.DataFrame()
    pairs = pairs.dropna(axis=1, how="all")
    if pairs.empty:
        return pd.DataFrame()
    compared = differences(pairs)
    of_averages = pd.DataFrame(sets, pairs.columns).T.reindex(compared.index).fillna(1)
    compared = compared.join(statistics(sets=of_averages))
    return compared[compared["n"].any(axis=1)]


def differences(gains: pd.DataFrame) -> pd.DataFrame:
    """Mean of n paired differences, the margin of its 95% interval, their median, a sign test.

    The interval is Student's: mean ± t(0.975, n - 1) * s / sqrt(n), s the sample standard deviation
    of the differences; a single pair has none. p is that of the two-sided exact sign test, which
    asks for no distribution: runs that collapse make the differences far from normal.

    Args:
        gains: in points; the last level of the index is the seed.
    """
    pair = gains.index.names[:-1]
    groups = gains.groupby(pair, sort=False)
    quantiles = student.ppf((1 + CONFIDENCE) / 2, groups.count() - 1)
    up, down = ((side > 0).groupby(pair, sort=False).sum() for side in (gains, -gains))
    p = (2 * up.where(up < down, down).combine(up + down, _cdf)).clip(upper=1)
    return statistics(
        mean=groups.mean(),
        margin=quantiles * groups.sem(),
        median=groups.median(),
        p=p,
        n=groups.count(),
    )


def _cdf(successes: pd.Series, trials: pd.Series) -> pd.Series:
    return pd.Series(binom.cdf(successes, trials, 0.5), successes.index)


def holm(p: pd.Series) -> pd.Series:
    """Correct p-values for their number (Holm, 1979); gaps count not."""
    ascending = p.dropna().sort_values()
    left = np.arange(len(ascending), 0, -1)
    return (ascending * left).cummax().clip(upper=1).reindex(p.index)


def zero_shot_scores(scores: pd.DataFrame, headline: str) -> pd.Series:
    """Accuracy, or H, of zero-shot CLIP on each data set; few-shot tables have it at 0 shots."""
    zero_shot = scores[[method.zero_shot for method in scores.index.get_level_values("method")]]
    measures = [headline] if zero_shot[headline].notna().any() else list(scores)
    return zero_shot[measures].max(axis=1).groupby("dataset").mean()


def collapsed_runs(scores: pd.DataFrame, headline: str) -> pd.DataFrame:
    """Count the runs that end more than ``COLLAPSE`` points below zero-shot CLIP on the same data.

    Returns:
        Index (method, dataset), columns collapsed, runs, and low and high of the 95% interval of
        their share (Wilson, 1927).
    """
    trained = scores[[not method.zero_shot for method in scores.index.get_level_values("method")]]
    limits = zero_shot_scores(scores, headline) - COLLAPSE
    score = trained[headline].dropna()
    limit = limits.reindex(score.index.get_level_values("dataset")).set_axis(score.index)
    groups = (score < limit)[limit.notna()].groupby(["method", "dataset"])
    counts = pd.DataFrame({"collapsed": groups.sum(), "runs": groups.count()})
    intervals = [
        binomtest(int(k), int(n)).proportion_ci(CONFIDENCE, method="wilson")
        for k, n in counts.itertuples(index=False)
    ]
    return counts.assign(low=[i.low for i in intervals], high=[i.high for i in intervals])


def _gains_on_average(
    first: pd.DataFrame, second: pd.DataFrame, finish: Finish
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Differences seed by seed, each measure over the data sets that both have it of.

    Returns:
        The differences, and the number of data sets by measure.
    """
    gains, sets = {}, {}
    for measure in first:
        both = _datasets_with(first[measure]).intersection(_datasets_with(second[measure]))
        if len(both):
            one, other = (finish(_average_seeds(side.loc[both])) for side in (first, second))
            gains[measure], sets[measure] = one[measure] - other[measure], len(both)
    return pd.DataFrame(gains).reindex(columns=first.columns), sets


def _datasets_with(scores: pd.Series) -> pd.Index:
    return scores.dropna().index.unique("dataset")


def _average_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over data sets, seed by seed: for the seeds that have all data sets of a measure."""
    sets = scores.groupby("dataset").count().gt(0).sum()
    seeds = scores.groupby("seed")
    return seeds.mean().where(seeds.count() == sets)


def statistics(**frames: pd.DataFrame) -> pd.DataFrame:
    """Put frames of the same shape side by side, below their names."""
    return pd.concat(frames, axis=1, names=["statistic", "measure"])
