"""Scores by method, data set, measure and seed; their means, and differences of two methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student

from reporting.methods import Method
from reporting.results import Run

AVERAGE = "average"
Seeds = dict[int, float]  # seed -> percent
Measures = dict[str, Seeds]  # e.g. of "base", or of each number of shots
Scores = dict[Method, dict[str, Measures]]  # by data set
CONFIDENCE = 0.95


class ConflictingResultsError(ValueError):
    """Two different results claim to be the same run."""


@dataclass(frozen=True)
class Cell:
    """A mean in percent, and its standard deviation over seeds where there are two or more.

    ``sets`` of ``of`` data sets entered an average.
    """

    mean: float
    std: float | None = None
    seeds: int | None = None  # None: published, not said
    sets: int = 1
    of: int = 1

    @property
    def complete(self) -> bool:
        return self.sets == self.of


def collect(methods: Mapping[Run, Method], measure: Callable[[Run], str]) -> Scores:
    """Sort the runs' accuracies; a run that was evaluated again, to the same end, counts once.

    Raises:
        ConflictingResultsError: two different results for one run.
    """
    scores: Scores = {}
    first: dict[tuple[Method, str, str, int], Run] = {}
    for run, method in methods.items():
        dataset, column, seed = run.dataset, measure(run), run.training.seed
        seeds = scores.setdefault(method, {}).setdefault(dataset, {}).setdefault(column, {})
        other = first.setdefault((method, dataset, column, seed), run)
        if seeds.setdefault(seed, run.accuracy) != run.accuracy:
            raise ConflictingResultsError(
                f"two different results for one run: {other.path} and {run.path}; move one away"
            )
    return scores


def datasets_of(scores: Scores) -> set[str]:
    return {dataset for by_dataset in scores.values() for dataset in by_dataset}


def shared_seeds(parts: Iterable[Seeds]) -> list[int]:
    return sorted(set.intersection(*map(set, parts)))


def deviation(seeds: Seeds) -> float | None:
    """The sample standard deviation; None for less than two seeds."""
    return stdev(seeds.values()) if len(seeds) > 1 else None


def combine(datasets: Iterable[Measures]) -> Measures:
    """Average over data sets, seed by seed: the measures and seeds that all of them have."""
    datasets = list(datasets)
    combined = {}
    for measure in datasets[0]:
        if all(measure in measures for measures in datasets):
            parts = [measures[measure] for measures in datasets]
            combined[measure] = {s: fmean(part[s] for part in parts) for s in shared_seeds(parts)}
    return combined


def summarise(datasets: Sequence[Measures], of: int = 1) -> dict[str, Cell]:
    """Average the data sets' means of each measure, over those that have it.

    The deviation is that of the seeds' own averages; seeds that did not run on all count not.

    Args:
        datasets: the scores on one data set or on several.
        of: the number of data sets that a whole average is over.
    """
    cells = {}
    for measure in dict.fromkeys(key for measures in datasets for key in measures):
        parts = [measures[measure] for measures in datasets if measure in measures]
        cells[measure] = Cell(
            mean=fmean(fmean(part.values()) for part in parts),
            std=deviation(combine({measure: part} for part in parts)[measure]),
            seeds=min(map(len, parts)),
            sets=len(parts),
            of=of,
        )
    return cells


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
            gain = difference(first[measure], second[measure], len(whole))
            if gain:
                yield measure, gain
