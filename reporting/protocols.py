"""Base-to-new generalization, few-shot learning, cross-dataset transfer, domain generalization.

The harmonic mean of base and new is taken of the mean accuracies, as in the papers (Zhou et al.,
2022, CVPR; arXiv:2407.10704); its deviation is that of the seeds' own harmonic means.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reporting.catalogue import BENCHMARK, DOMAINS, REAL, family, in_order
from reporting.methods import Method, assign, differing_settings, settings
from reporting.results import Run
from reporting.scores import (
    AVERAGE,
    Cell,
    Measures,
    collect,
    combine,
    compare,
    datasets_of,
    deviation,
    shared_seeds,
    summarise,
)
from reporting.tables import (
    Section,
    Setting,
    averaged,
    group,
    make_table,
    shots_title,
    stored_bytes,
    tables_by_dataset,
)

BASE_TO_NEW, FEW_SHOT = "Base-to-new", "Few-shot"
CROSS_DATASET, DOMAIN_GENERALIZATION = "Cross-dataset", "Domain generalization"
COLUMNS = BASE, NEW, H = "base", "new", "H"
ACCURACY = "accuracy"

# numbers from the papers, and the setting that they were measured in
PUBLISHED = Path(__file__).parent / "published"
PUBLISHED_BACKBONE, PUBLISHED_SHOTS, PUBLISHED_SOURCE = "ViT-B/16", 16, "ImageNet"
_NOT_SCORES = {"dataset", "method", "bits", "source"}


def sections(runs: Sequence[Run]) -> list[Section]:
    """The sections of all protocols."""
    return [*base_to_new_sections(runs), *few_shot_sections(runs), *transfer_sections(runs)]


def is_base_to_new(run: Run) -> bool:
    """Trained on the base classes of a data set (or not at all), tested on one half of it."""
    origin = (run.training.dataset, run.training.subset)
    return run.subset in (BASE, NEW) and (run.zero_shot or origin == (run.dataset, BASE))


def base_to_new_sections(runs: Iterable[Run]) -> list[Section]:
    """One for each family of data sets, backbone and number of shots."""
    groups = group(
        list(filter(is_base_to_new, runs)), lambda r: Setting.of(r, shots=r.training.shots)
    )
    return [_base_to_new_section(setting, members) for setting, members in groups.items()]


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
    numbers = published_numbers("base_to_new").get(dataset, {})
    return {
        method: {**cells, H: Cell(harmonic_mean(cells[BASE].mean, cells[NEW].mean))}
        for method, cells in numbers.items()
    }


def _base_to_new_section(setting: Setting, runs: Sequence[Run]) -> Section:
    methods = assign(runs)
    scores = {
        method: {dataset: with_harmonic_mean(measures) for dataset, measures in by_dataset.items()}
        for method, by_dataset in collect(methods, lambda run: run.subset).items()
    }
    tables = tables_by_dataset(
        scores,
        COLUMNS,
        stored_bytes(methods),
        summarise_halves,
        published_halves if has_published_numbers(setting) else lambda dataset: {},
    )
    comparisons = list(compare(scores, averaged(scores), with_harmonic_mean))
    return Section(BASE_TO_NEW, setting, tables, comparisons, methods, differing_settings(methods))


def is_few_shot(run: Run) -> bool:
    """Trained on all classes of the data set that it is tested on, or not trained at all."""
    training = run.training
    return run.subset == training.subset == "all" and training.dataset == run.dataset


def few_shot_sections(runs: Iterable[Run]) -> list[Section]:
    """One for each family of data sets and backbone.

    Zero-shot CLIP, at 0 shots, is shown on those data sets that something was trained on.
    """
    groups = group(list(filter(is_few_shot, runs)), Setting.of)
    return [
        _few_shot_section(setting, _beside_trained(members)) for setting, members in groups.items()
    ]


def _beside_trained(runs: Sequence[Run]) -> list[Run]:
    trained = {run.dataset for run in runs if not run.zero_shot}
    return [run for run in runs if run.dataset in trained or not trained]


def _few_shot_section(setting: Setting, runs: Sequence[Run]) -> Section:
    methods = assign(runs)
    scores = collect(methods, lambda run: shots_title(run.training.shots))
    shots = sorted({run.training.shots for run in runs}, key=lambda n: (n < 0, n))
    tables = tables_by_dataset(
        scores, list(map(shots_title, shots)), stored_bytes(methods), summarise
    )
    return Section(
        FEW_SHOT,
        setting,
        tables,
        list(compare(scores, averaged(scores))),
        methods,
        differing_settings(methods),
    )


def is_transfer(run: Run) -> bool:
    """Trained on all classes of one data set, tested on all classes of another."""
    training = run.training
    return run.subset == training.subset == "all" and training.dataset != run.dataset


def transfer_sections(runs: Sequence[Run]) -> list[Section]:
    """One for each protocol, source, family of the targets, backbone and number of shots."""
    transfers = list(filter(is_transfer, runs))
    at_home = list(filter(is_few_shot, runs))
    sections = []
    for protocol in (CROSS_DATASET, DOMAIN_GENERALIZATION):
        members = [run for run in transfers if protocol_of(run) == protocol]
        groups = group(
            members, lambda r: Setting.of(r, shots=r.training.shots, source=r.training.dataset)
        )
        for setting, moved in groups.items():
            beside = [run for run in at_home if _stands_beside(run, moved, setting)]
            sections.append(_transfer_section(protocol, setting, [*moved, *beside]))
    return sections


def protocol_of(run: Run) -> str:
    """Domain generalization if the target shows the source's classes under a shift."""
    shifted = run.dataset in DOMAINS.get(run.training.dataset, ())
    return DOMAIN_GENERALIZATION if shifted else CROSS_DATASET


def _stands_beside(run: Run, moved: Sequence[Run], setting: Setting) -> bool:
    """Zero-shot CLIP on the same data sets, and the methods' own results on the source."""
    of_run = Setting.of(run, shots=run.training.shots, source=setting.source)
    if run.zero_shot:
        targets = {other.dataset for other in moved}
        return of_run == replace(setting, shots=0) and run.dataset in {setting.source, *targets}
    return (
        of_run == setting
        and run.dataset == setting.source
        and any(
            (run.trainer, run.bits, run.from_log, settings(run))
            == (other.trainer, other.bits, other.from_log, settings(other))
            for other in moved
        )
    )


def _transfer_section(protocol: str, setting: Setting, runs: Sequence[Run]) -> Section:
    methods = assign(runs)
    scores = collect(methods, lambda run: ACCURACY)
    targets = in_order(datasets_of(scores) - {setting.source})
    if protocol == DOMAIN_GENERALIZATION:
        of = len(DOMAINS[setting.source])
    elif (setting.source, setting.family) == (PUBLISHED_SOURCE, REAL):
        of = len(BENCHMARK) - 1
    else:
        of = len(targets)
    cells = {}
    for method, by_dataset in scores.items():
        row = {dataset: summarise([measures])[ACCURACY] for dataset, measures in by_dataset.items()}
        parts = [by_dataset[target] for target in targets if target in by_dataset]
        if parts and of > 1:
            row[AVERAGE] = summarise(parts, of)[ACCURACY]
        cells[method] = row
    if has_published_numbers(setting):
        cells |= _published_transfer(protocol)
    home = [setting.source] if family(setting.source) == setting.family else []
    columns = [*home, *targets, *([AVERAGE] if of > 1 else [])]
    table = make_table(f"Trained on {setting.source}", columns, cells, stored_bytes(methods))
    comparisons = list(compare(scores, targets))
    return Section(protocol, setting, [table], comparisons, methods, differing_settings(methods))


def _published_transfer(protocol: str) -> dict[Method, dict[str, Cell]]:
    rows = {}
    for method, cells in published_numbers("cross_dataset")[""].items():
        mean = cells.pop("cross_dataset_mean")
        if protocol == DOMAIN_GENERALIZATION:
            targets = [cells[target] for target in DOMAINS[PUBLISHED_SOURCE]]
            mean = Cell(sum(cell.mean for cell in targets) / len(targets))
        rows[method] = {**cells, AVERAGE: mean}
    return rows


def has_published_numbers(setting: Setting) -> bool:
    """Whether the published numbers were measured in this setting."""
    return (
        setting.family == REAL
        and setting.backbone == PUBLISHED_BACKBONE
        and setting.split == "test"
        and setting.shots == PUBLISHED_SHOTS
        and setting.source in ("", PUBLISHED_SOURCE)
    )


def published_numbers(name: str) -> dict[str, dict[Method, dict[str, Cell]]]:
    """Read ``published/<name>.csv``: by data set ("" where columns are data sets) and method."""
    numbers: dict[str, dict[Method, dict[str, Cell]]] = defaultdict(dict)
    with open(PUBLISHED / f"{name}.csv", encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            bits = int(line["bits"]) if line["bits"] else None
            zero_shot = line["method"] == "CLIP"
            method = Method(line["method"], bits, zero_shot=zero_shot, source=line["source"])
            numbers[line.get("dataset", "")][method] = {
                column: Cell(float(value))
                for column, value in line.items()
                if column not in _NOT_SCORES and value
            }
    return dict(numbers)
