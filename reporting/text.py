"""How numbers are printed, the same in every format."""

from __future__ import annotations

from reporting.paired import Comparison, Difference
from reporting.scores import AVERAGE, Cell
from reporting.tables import Row

GAP = "-"


def cell_text(cell: Cell | None) -> str:
    """Mean ± deviation in percent, and how many data sets an average with gaps is over."""
    if cell is None:
        return GAP
    spread = "" if cell.std is None else f" ± {cell.std:.2f}"
    return f"{cell.mean:.2f}{spread}" + ("" if cell.complete else f" ({cell.sets} of {cell.of})")


def difference_text(difference: Difference | None) -> str:
    """Mean difference in points and its interval."""
    if difference is None:
        return GAP
    if difference.margin is None:
        return f"{difference.mean:+.2f} (no interval)"
    low, high = difference.mean - difference.margin, difference.mean + difference.margin
    return f"{difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def seeds_text(row: Row) -> str:
    """The number of seeds, or the least and the greatest."""
    return _span(cell.seeds for cell in row.cells.values() if cell.seeds)


def pairs_text(comparison: Comparison) -> str:
    """The number of pairs, or the least and the greatest."""
    return _span(difference.n for difference in comparison.differences.values())


def subject_text(comparison: Comparison) -> str:
    """The data set, or how many the average is over."""
    if comparison.dataset != AVERAGE:
        return comparison.dataset
    return f"{AVERAGE} of {_span(d.sets for d in comparison.differences.values())}"


def optional(value: object) -> str:
    return GAP if value is None else str(value)


def _span(counts: object) -> str:
    found = sorted(set(counts))
    return "–".join(map(str, dict.fromkeys([found[0], found[-1]]))) if found else GAP
