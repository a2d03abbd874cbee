"""Tables of means, whose rows are methods, and the sections of a report that they stand in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from reporting.catalogue import BENCHMARK, REAL, family, in_order, is_shifted
from reporting.methods import Method
from reporting.results import Run
from reporting.scores import AVERAGE, Cell, Comparison, Measures, Scores, datasets_of

Cells = Mapping[str, Cell]  # by column; what was not run is not there


@dataclass(frozen=True)
class Row:
    method: Method
    cells: Cells
    stored_bytes: int | None = None


@dataclass(frozen=True)
class Table:
    """``dataset`` is what all cells are about; empty where the columns are data sets."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    dataset: str = ""

    def best(self, column: str) -> set[Method]:
        """Those with the highest mean as it is printed; averages with gaps do not compete."""
        means = {
            row.method: round(row.cells[column].mean, 2)
            for row in self.rows
            if column in row.cells and row.cells[column].complete
        }
        return {method for method, mean in means.items() if mean == max(means.values())}


def make_table(
    title: str,
    columns: Sequence[str],
    cells: Mapping[Method, Cells],
    sizes: Mapping[Method, int],
    dataset: str = "",
) -> Table:
    """Put the rows into the order of the methods; ``sizes`` are their stored bytes."""
    ordered = sorted(cells, key=lambda method: method.order)
    rows = [Row(method, cells[method], sizes.get(method)) for method in ordered]
    return Table(title, columns, rows, dataset)


def averaged(scores: Scores) -> list[str]:
    """The data sets that averages are over: no shifted versions of another."""
    return in_order({dataset for dataset in datasets_of(scores) if not is_shifted(dataset)})


def tables_by_dataset(
    scores: Scores,
    columns: Sequence[str],
    sizes: Mapping[Method, int],
    summarise: Callable[[Sequence[Measures], int], Cells],
    beside: Callable[[str], Mapping[Method, Cells]] = lambda dataset: {},
) -> list[Table]:
    """A table for each data set, and before them that of their average.

    The benchmark's average is over its eleven data sets; elsewhere it is over those that were run.

    Args:
        scores: of data sets of one family.
        columns: measures.
        sizes: stored bytes of the methods.
        summarise: makes the cells of one method from its scores on some data sets, and from the
            number of data sets that a whole average is over.
        beside: published cells for a data set, or for "average".
    """
    present, among = in_order(datasets_of(scores)), averaged(scores)
    whole = len(BENCHMARK) if family(present[0]) == REAL else len(among)
    subjects = [(dataset, dataset, [dataset], 1) for dataset in present]
    if len(among) > 1 or (among and beside(AVERAGE)):
        subjects.insert(0, (f"Average over {whole} data sets", AVERAGE, among, whole))
    tables = []
    for title, subject, datasets, of in subjects:
        cells = {
            method: summarise([by_dataset[d] for d in datasets if d in by_dataset], of)
            for method, by_dataset in scores.items()
            if any(d in by_dataset for d in datasets)
        }
        tables.append(make_table(title, columns, {**cells, **beside(subject)}, sizes, subject))
    return tables


@dataclass(frozen=True)
class Setting:
    """What all runs of a section have in common."""

    family: str
    backbone: str
    split: str
    shots: int | None = None  # None: several
    source: str = ""

    @classmethod
    def of(cls, run: Run, shots: int | None = None, source: str = "") -> Setting:
        return cls(family(run.dataset), run.backbone, run.split, shots, source)

    @property
    def title(self) -> str:
        parts = [f"from {self.source}" if self.source else "", self.family, self.backbone]
        if self.shots:
            parts.append(shots_title(self.shots))
        if self.split != "test":
            parts.append(f"{self.split} images")
        return ", ".join(filter(None, parts))


@dataclass(frozen=True, eq=False)
class Section:
    """``tables`` begins with the average over data sets, if there are several."""

    protocol: str
    setting: Setting
    tables: Sequence[Table]
    comparisons: Sequence[Comparison]
    methods: Mapping[Run, Method]
    notes: Sequence[str]

    @property
    def title(self) -> str:
        return f"{self.protocol}: {self.setting.title}"

    @property
    def headline(self) -> str:
        """The last column of the first table: H, the most shots, or the average over targets."""
        return self.tables[0].columns[-1]

    @property
    def best_rows(self) -> list[Row]:
        """Those of methods measured here with the highest mean in the headline column."""
        measured = [row for row in self.tables[0].rows if not row.method.source]
        best = replace(self.tables[0], rows=measured).best(self.headline)
        return [row for row in measured if row.method in best]

    @property
    def smallest_row(self) -> Row | None:
        """That of the smallest stored prompt, of several the one with the highest headline mean."""

        def size_and_rank(row: Row) -> tuple[int, float]:
            cell = row.cells.get(self.headline)
            return row.stored_bytes, -cell.mean if cell else 0.0

        return min(
            (row for row in self.tables[0].rows if row.stored_bytes),
            key=size_and_rank,
            default=None,
        )

    @property
    def measures(self) -> list[str]:
        """What comparisons are of."""
        measures = {key for comparison in self.comparisons for key in comparison.differences}
        columns = list(self.tables[0].columns)
        return sorted(measures, key=lambda key: columns.index(key) if key in columns else 0)

    @property
    def leading_comparisons(self) -> list[Comparison]:
        """One of each two methods: on the average, or on the only data set that both ran on."""
        pairs = {(c.first, c.second): c for c in reversed(self.comparisons)}
        return list(pairs.values())[::-1]

    @property
    def other_comparisons(self) -> list[Comparison]:
        """Those on a single data set of several."""
        leading = set(map(id, self.leading_comparisons))
        return [c for c in self.comparisons if id(c) not in leading]


def shots_title(shots: int) -> str:
    return "all images" if shots < 0 else f"{shots} shot{'' if shots == 1 else 's'}"


def group(runs: Sequence[Run], setting: Callable[[Run], Setting]) -> dict[Setting, list[Run]]:
    """Sort runs by setting; zero-shot CLIP, which has no shots, joins all others that fit."""
    groups: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
        if not run.zero_shot:
            groups[setting(run)].append(run)
    trained = list(groups)
    for run in runs:
        if run.zero_shot:
            of_run = setting(run)
            fitting = [other for other in trained if replace(other, shots=of_run.shots) == of_run]
            for other in fitting or [of_run]:
                groups[other].append(run)
    return dict(groups)


def stored_bytes(methods: Mapping[Run, Method]) -> dict[Method, int]:
    """The size of each method's stored prompt, the largest where class names change it."""
    sizes: dict[Method, list[int]] = defaultdict(list)
    for run, method in methods.items():
        if run.stored_bytes is not None:
            sizes[method].append(run.stored_bytes)
    return {method: max(counts) for method, counts in sizes.items()}
