"""Differences between two methods, seed by seed: seeds share their few-shot subsets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student

from reporting.methods import Method
from reporting.scores import AVERAGE, Measures, Scores, Seeds, combine, shared_seeds

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of ``n`` paired differences in points; its 95% interval is mean ± ``margin``."""

    mean: float
    margin: float | None  # None: a single pair tells nothing of the spread
    n: int
    sets: int = 1  # data sets that the seeds' averages are over

    @property
    def excludes_zero(self) -> bool:
        """Whether the seeds tell the two apart."""
        return self.margin is not None and abs(self.mean) > self.margin


@dataclass(frozen=True)
class Comparison:
    """``first`` minus ``second`` on one data set, or on the average over several."""

    first: Method
    second: Method
    dataset: str
    differences: dict[str, Difference]  # by measure

    @property
    def of_counterparts(self) -> bool:
        """Whether a quantized method meets the plain trainer that it quantizes."""
        plain = (self.first.plain, None, self.first.from_log)
        return (
            self.first.bits is not None
            and (self.second.trainer, self.second.bits, self.second.from_log) == plain
        )


def difference(first: Seeds, second: Seeds, sets: int = 1) -> Difference | None:
    """Compare two methods over the seeds that both have; None without any.

    The interval is Student's: mean ± t(0.975, n - 1) * s / sqrt(n), s the sample standard deviation
    of the differences.
    """
    gains = [first[seed] - second[seed] for seed in shared_seeds([first, second])]
    if not gains:
        return None
    n = len(gains)
    if n < 2:
        return Difference(gains[0], None, n, sets)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Difference(fmean(gains), quantile * stdev(gains) / sqrt(n), n, sets)


def compare(
    scores: Scores, datasets: Sequence[str], finish: Callable[[Measures], Measures] = dict
) -> Iterator[Comparison]:
    """Compare each two methods on each data set, and on the average over those that both ran on.

    The unit is the seed, also for the average: its differences are taken between the seeds'
    averages, so that the interval speaks of these data sets trained again, not of others.

    Args:
        scores: of all methods.
        datasets: those to compare on, and to average over.
        finish: adds measures that follow from the others, such as the harmonic mean.
    """
    trained = [method for method in scores if not method.zero_shot]  # the rest has no seeds
    for second, first in combinations(sorted(trained, key=lambda method: method.order), 2):
        both = [(scores[first], scores[second], d) for d in datasets]
        shared = {d: (one[d], other[d]) for one, other, d in both if d in one and d in other}
        subjects = {AVERAGE: list(shared.values())} if len(shared) > 1 else {}
        for dataset, pairs in {**subjects, **{d: [pair] for d, pair in shared.items()}}.items():
            differences = dict(_differences(pairs, finish))
            if differences:
                yield Comparison(first, second, dataset, differences)


def _differences(
    datasets: Sequence[tuple[Measures, Measures]], finish: Callable[[Measures], Measures]
) -> Iterator[tuple[str, Difference]]:
    """Each measure over the data sets that both have it of."""
    for measure in dict.fromkeys(key for first, _ in datasets for key in first):
        whole = [pair for pair in datasets if all(measure in measures for measures in pair)]
        if whole:
            first, second = (finish(combine(side)) for side in zip(*whole, strict=True))
            found = difference(first[measure], second[measure], len(whole))
            if found:
                yield measure, found
