"""Tables of means: rows are methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reporting.catalogue import BENCHMARK, REAL, family, in_order, is_shifted
from reporting.methods import Method
from reporting.scores import AVERAGE, Cell, Measures, Scores, datasets_of

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
            method: summarise([found[d] for d in datasets if d in found], of)
            for method, found in scores.items()
            if any(d in found for d in datasets)
        }
        tables.append(make_table(title, columns, {**cells, **beside(subject)}, sizes, subject))
    return tables
