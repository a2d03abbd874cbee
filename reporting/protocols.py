"""Base-to-new generalization, few-shot learning, cross-dataset transfer, domain generalization.

The harmonic mean of base and new is taken of the mean accuracies, as in the papers (Zhou et al.,
2022, CVPR; arXiv:2407.10704); its deviation is that of the seeds' own harmonic means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from scipy.stats import hmean

from reporting.catalogue import BENCHMARK, DOMAINS, REAL, family, in_order, is_shifted
from reporting.methods import Method, assign, differing_settings
from reporting.scores import AVERAGE, Finish, average, collect, compare, summarise
from reporting.tables import Section, Setting, Table, make_table, of_means, shots_title

BASE_TO_NEW, FEW_SHOT = "Base-to-new", "Few-shot"
CROSS_DATASET, DOMAIN_GENERALIZATION = "Cross-dataset", "Domain generalization"
COLUMNS = BASE, NEW, H = "base", "new", "H"
ACCURACY = "accuracy"

# numbers from the papers, and the setting that they were measured in
PUBLISHED = Path(__file__).parent / "published"
PUBLISHED_BACKBONE, PUBLISHED_SHOTS, PUBLISHED_SOURCE = "ViT-B/16", 16, "ImageNet"


ALIKE = ["family", "backbone", "split"]  # of all runs of a section


def sections(runs: pd.DataFrame) -> list[Section]:
    """The sections of all protocols, from runs that tell where their weights were trained."""
    runs = runs.assign(family=runs.dataset.map(family))
    runs = runs.sort_values("zero_shot", kind="stable")  # what was trained names the sections first
    at_home = runs.dataset == runs.source
    halves = runs.subset.isin([BASE, NEW]) & (runs.zero_shot | (runs.source_subset == BASE))
    whole = (runs.subset == "all") & (runs.source_subset == "all")
    return [
        *base_to_new_sections(runs[at_home & halves]),
        *few_shot_sections(runs[at_home & whole]),
        *transfer_sections(runs[~at_home & whole], runs[at_home & whole]),
    ]


def base_to_new_sections(runs: pd.DataFrame) -> Iterator[Section]:
    """One for each family of data sets, backbone and number of shots.

    Zero-shot CLIP, which has no shots, joins all others that fit.
    """
    groups = runs.groupby(ALIKE, sort=False)
    for *alike, shots in runs[[*ALIKE, "shots"]].drop_duplicates().itertuples(index=False):
        members = groups.get_group(tuple(alike))
        if shots or members.zero_shot.all():
            members = members[members.zero_shot | (members.shots == shots)]
            yield _base_to_new_section(Setting(*alike, shots), members)


def with_harmonic_mean(frame: pd.DataFrame) -> pd.DataFrame:
    """Add H, 2 / (1 / base + 1 / new), 0 where one of them is."""
    halves = frame.reindex(columns=[BASE, NEW])
    return halves.assign(**{H: hmean(halves, axis=1)})


def harmonic_mean_of_means(means: pd.DataFrame) -> pd.DataFrame:
    """Replace each mean of H by the harmonic mean of both means."""
    return with_harmonic_mean(means).where(means.notna())


def without_single_halves(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Leave out halves without their counterpart, so that both means are over the same seeds.

    Where none of those that are alike in ``by`` has both, they stay.
    """
    whole = scores[H].notna()
    return scores[whole | ~whole.groupby(by).transform("any")]


def published_halves() -> pd.DataFrame:
    """What the papers say, by data set (or "average") and method."""
    return with_harmonic_mean(published_numbers("base_to_new"))


def _base_to_new_section(setting: Setting, runs: pd.DataFrame) -> Section:
    runs = assign(runs.assign(measure=runs.subset))
    scores = without_single_halves(with_harmonic_mean(collect(runs)), ["method", "dataset"])
    published = published_halves() if has_published_numbers(setting) else None
    tables = _tables_by_dataset(scores, COLUMNS, harmonic_mean_of_means, published)
    comparisons = compare(scores, _averaged(scores), harmonic_mean_of_means)
    return Section(
        BASE_TO_NEW, setting, tables, scores, comparisons, runs, differing_settings(runs)
    )


def few_shot_sections(runs: pd.DataFrame) -> Iterator[Section]:
    """One for each family of data sets and backbone.

    Zero-shot CLIP, at 0 shots, is shown on those data sets that something was trained on.
    """
    for alike, members in runs.groupby(ALIKE, sort=False):
        trained = members.dataset[~members.zero_shot]
        beside = members[members.dataset.isin(trained)] if len(trained) else members
        yield _few_shot_section(Setting(*alike), beside)


def _few_shot_section(setting: Setting, runs: pd.DataFrame) -> Section:
    runs = assign(runs.assign(measure=runs.shots.map(shots_title)))
    columns = [shots_title(n) for n in sorted(runs.shots.unique(), key=lambda n: (n < 0, n))]
    scores = collect(runs)[columns]
    published = published_shots(columns) if has_published_numbers(setting) else None
    tables = _tables_by_dataset(scores, columns, published=published)
    comparisons = compare(scores, _averaged(scores))
    return Section(FEW_SHOT, setting, tables, scores, comparisons, runs, differing_settings(runs))


def published_shots(columns: Sequence[str]) -> pd.DataFrame:
    """What is published for some numbers of shots, by data set (or "average") and method."""
    numbers = published_numbers("few_shot").rename(columns=lambda shots: shots_title(int(shots)))
    return numbers.reindex(columns=columns).dropna(how="all")


def transfer_sections(moved: pd.DataFrame, at_home: pd.DataFrame) -> Iterator[Section]:
    """One for each protocol, source, family of the targets, backbone and number of shots.

    Beside them stand zero-shot CLIP on the same data sets, and the methods' own results on the
    source.
    """
    shifted = pd.Series(
        [run.dataset in DOMAINS.get(run.source, ()) for run in moved.itertuples()],
        moved.index,
        bool,
    )
    for protocol, runs in (CROSS_DATASET, moved[~shifted]), (DOMAIN_GENERALIZATION, moved[shifted]):
        for key, members in runs.groupby([*ALIKE, "shots", "source"], sort=False):
            setting = Setting(*key)
            near = at_home[(at_home[ALIKE] == list(key[: len(ALIKE)])).all(axis=1)]
            on_source = near.dataset == setting.source
            same = (near.shots == setting.shots) & _identities(near).isin(_identities(members))
            there = near.zero_shot & (on_source | near.dataset.isin(members.dataset))
            beside = near[(on_source & same) | there]
            yield _transfer_section(protocol, setting, pd.concat([members, beside]))


def _identities(runs: pd.DataFrame) -> pd.Series:
    """What tells whether two runs are of one method."""
    identities = [
        (run.trainer, str(run.bits), run.variant, run.from_log, frozenset(run.settings.items()))
        for run in runs.itertuples()
    ]
    return pd.Series(identities, runs.index, dtype=object)


def _transfer_section(protocol: str, setting: Setting, runs: pd.DataFrame) -> Section:
    runs = assign(runs.assign(measure=ACCURACY))
    scores = collect(runs)
    targets = in_order({*runs.dataset} - {setting.source})
    if protocol == DOMAIN_GENERALIZATION:
        of = len(DOMAINS[setting.source])
    elif (setting.source, setting.family) == (PUBLISHED_SOURCE, REAL):
        of = len(BENCHMARK) - 1
    else:
        of = len(targets)
    cells = summarise(scores).xs(ACCURACY, axis=1, level="measure").unstack("dataset")
    if of > 1:
        means = average(scores.loc[(slice(None), targets), :], of)
        cells = cells.join(means.rename(columns={ACCURACY: AVERAGE}))
    published = [published_transfer(protocol)] if has_published_numbers(setting) else []
    home = [setting.source] if family(setting.source) == setting.family else []
    columns = [*home, *targets, *([AVERAGE] if of > 1 else [])]
    table = make_table(f"Trained on {setting.source}", columns, [cells, *published])
    comparisons = compare(scores, targets)
    return Section(protocol, setting, [table], scores, comparisons, runs, differing_settings(runs))


def published_transfer(protocol: str) -> pd.DataFrame:
    """Cells of what the papers say of a transfer from ImageNet, by method."""
    means = published_numbers("cross_dataset")
    means[AVERAGE] = means.pop("cross_dataset_mean")
    if protocol == DOMAIN_GENERALIZATION:
        means[AVERAGE] = means[list(DOMAINS[PUBLISHED_SOURCE])].mean(axis=1)
    return of_means(means)


def _tables_by_dataset(
    scores: pd.DataFrame,
    columns: Sequence[str],
    finish: Finish = pd.DataFrame,
    published: pd.DataFrame | None = None,
) -> list[Table]:
    """A table for each data set, and before them that of their average.

    The benchmark's average is over its eleven data sets; elsewhere it is over those that were run.

    Args:
        scores: of data sets of one family.
        columns: measures.
        finish: as in :mod:`reporting.scores`.
        published: means by data set (or "average") and method.
    """
    present, among = in_order({*scores.index.unique("dataset")}), _averaged(scores)
    on_each = summarise(scores, finish)
    parts = {dataset: [on_each.xs(dataset, level="dataset")] for dataset in present}
    titles = {dataset: dataset for dataset in present}
    if len(among) > 1 or (among and published is not None):
        of = len(BENCHMARK) if family(present[0]) == REAL else len(among)
        on_all = scores.loc[(slice(None), among), :]
        if H in scores:
            on_all = without_single_halves(on_all, ["method"])
        parts = {AVERAGE: [average(on_all, of, finish)], **parts}
        titles[AVERAGE] = f"Average over {of} data sets"
    if published is not None:
        for subject in parts.keys() & set(published.index.unique("dataset")):
            parts[subject].append(of_means(published.loc[subject]))
    return [make_table(titles[key], columns, cells, key) for key, cells in parts.items()]


def _averaged(scores: pd.DataFrame) -> list[str]:
    """The data sets that averages are over: no shifted versions of another."""
    return in_order({d for d in scores.index.unique("dataset") if not is_shifted(d)})


def has_published_numbers(setting: Setting) -> bool:
    """Whether the published numbers were measured in this setting."""
    return (
        setting.family == REAL
        and setting.backbone == PUBLISHED_BACKBONE
        and setting.split == "test"
        and setting.shots in (PUBLISHED_SHOTS, None)
        and setting.source in ("", PUBLISHED_SOURCE)
    )


def published_numbers(name: str) -> pd.DataFrame:
    """Read ``published/<name>.csv``: means by data set (where there is one) and method."""
    numbers = pd.read_csv(PUBLISHED / f"{name}.csv", dtype={"bits": "Int64"})
    numbers["method"] = [
        Method(
            line.method,
            None if pd.isna(line.bits) else int(line.bits),
            zero_shot=line.method == "CLIP",
            source=line.source,
        )
        for line in numbers.itertuples()
    ]
    index = [name for name in ("dataset", "method") if name in numbers]
    return numbers.set_index(index).drop(columns=["bits", "source"])
