"""Scores by method, data set, measure and seed; their means, and averages over data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from reporting.methods import Method
from reporting.run import Run

AVERAGE = "average"
Seeds = dict[int, float]  # seed -> percent
Measures = dict[str, Seeds]  # e.g. of "base", or of each number of shots
Scores = dict[Method, dict[str, Measures]]  # by data set


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
