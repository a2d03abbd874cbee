"""Base-to-new generalization: accuracies on seen and unseen classes, and their harmonic mean.

The harmonic mean is taken of the mean accuracies, as in the papers (Zhou et al., 2022, CVPR;
arXiv:2407.10704); its deviation is that of the seeds' own harmonic means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from reporting import published
from reporting.methods import Method, assign, differences
from reporting.paired import compare
from reporting.run import Run
from reporting.scores import (
    Cell,
    Measures,
    collect,
    combine,
    deviation,
    shared_seeds,
    summarise,
)
from reporting.section import Section, Setting, group, stored_bytes
from reporting.tables import averaged, tables_by_dataset

PROTOCOL = "Base-to-new"
COLUMNS = BASE, NEW, H = "base", "new", "H"


def belongs(run: Run) -> bool:
    """Trained on the base classes of a data set (or not at all), tested on one half of it."""
    origin = (run.training.dataset, run.training.subset)
    return run.subset in (BASE, NEW) and (run.zero_shot or origin == (run.dataset, BASE))


def sections(runs: Iterable[Run]) -> list[Section]:
    """One for each family of data sets, backbone and number of shots."""
    groups = group(list(filter(belongs, runs)), lambda r: Setting.of(r, shots=r.training.shots))
    return [_section(setting, members) for setting, members in groups.items()]


def harmonic_mean(base: float, new: float) -> float:
    """2 / (1 / base + 1 / new), in the unit of its arguments."""
    return 2 * base * new / (base + new) if base and new else 0.0


def with_harmonic_mean(measures: Measures) -> Measures:
    """Add H, seed by seed.

    Halves without their counterpart are left out, so that both means are over the same seeds; where
    no seed has both halves, they stay and there is no H.
    """
    base, new = measures.get(BASE, {}), measures.get(NEW, {})
    seeds = shared_seeds([base, new])
    if not seeds:
        return measures
    return {
        BASE: {seed: base[seed] for seed in seeds},
        NEW: {seed: new[seed] for seed in seeds},
        H: {seed: harmonic_mean(base[seed], new[seed]) for seed in seeds},
    }


def summarise_halves(datasets: Sequence[Measures], of: int = 1) -> dict[str, Cell]:
    """Base, new and the harmonic mean of both means; data sets with both halves go before others.

    Args:
        datasets: what :func:`with_harmonic_mean` returned for one data set or several.
        of: the number of data sets that a whole average is over.
    """
    whole = [measures for measures in datasets if H in measures] or datasets
    cells = summarise(whole, of)
    if H in cells:
        seeds = with_harmonic_mean(combine(whole))[H]
        mean = harmonic_mean(cells[BASE].mean, cells[NEW].mean)
        cells[H] = replace(cells[H], mean=mean, std=deviation(seeds))
    return cells


def published_halves(dataset: str) -> dict[Method, dict[str, Cell]]:
    """What the papers say of a data set, or of the "average"."""
    found = published.read("base_to_new").get(dataset, {})
    return {
        method: {**cells, H: Cell(harmonic_mean(cells[BASE].mean, cells[NEW].mean))}
        for method, cells in found.items()
    }


def _section(setting: Setting, runs: Sequence[Run]) -> Section:
    methods = assign(runs)
    scores = {
        method: {dataset: with_harmonic_mean(found) for dataset, found in by_dataset.items()}
        for method, by_dataset in collect(methods, lambda run: run.subset).items()
    }
    tables = tables_by_dataset(
        scores,
        COLUMNS,
        stored_bytes(methods),
        summarise_halves,
        published_halves if published.comparable(setting) else lambda dataset: {},
    )
    comparisons = list(compare(scores, averaged(scores), with_harmonic_mean))
    return Section(PROTOCOL, setting, tables, comparisons, methods, differences(methods))
