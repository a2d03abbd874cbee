"""Tables of means, whose rows are methods, and the sections of a report that they stand in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from reporting.methods import Method
from reporting.scores import collapsed_runs, statistics, zero_shot_scores


@dataclass(frozen=True, eq=False)
class Table:
    """``cells`` have the methods as index, and columns (mean, std, seeds, sets or of; column).

    ``dataset`` is what all cells are about; empty where the columns are data sets.
    """

    title: str
    cells: pd.DataFrame
    dataset: str = ""

    @property
    def columns(self) -> list[str]:
        return list(self.cells["mean"])

    @property
    def measured(self) -> Table:
        """The rows of methods measured here."""
        here = [not method.source for method in self.cells.index]
        return Table(self.title, self.cells[here], self.dataset)

    @cached_property
    def best(self) -> pd.DataFrame:
        """Which have the highest mean as it is printed; averages with gaps do not compete."""
        whole = self.cells["sets"] == self.cells["of"]
        means = self.cells["mean"].round(2).where(whole)
        return means == means.max()


def make_table(
    title: str, columns: Sequence[str], parts: Sequence[pd.DataFrame], dataset: str = ""
) -> Table:
    """Put the rows of all parts into the order of the methods, and gaps where there is nothing."""
    statistics = ["mean", "std", "seeds", "sets", "of"]
    wanted = pd.MultiIndex.from_product([statistics, columns], names=["statistic", "column"])
    return Table(title, pd.concat(parts).reindex(columns=wanted).sort_index(), dataset)


def of_means(means: pd.DataFrame) -> pd.DataFrame:
    """Cells of which nothing but the means is known."""
    ones = means.notna().astype(int)
    return statistics(mean=means, sets=ones, of=ones)


@dataclass(frozen=True)
class Setting:
    """What all runs of a section have in common."""

    family: str
    backbone: str
    split: str
    shots: int | None = None  # None: several
    source: str = ""

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
    """``tables`` begins with the average over data sets, if there are several.

    ``scores`` and ``comparisons`` are as :func:`reporting.scores.collect` and ``compare`` return
    them.
    """

    protocol: str
    setting: Setting
    tables: Sequence[Table]
    scores: pd.DataFrame
    comparisons: pd.DataFrame
    runs: pd.DataFrame
    notes: Sequence[str]

    @property
    def title(self) -> str:
        return f"{self.protocol}: {self.setting.title}"

    @property
    def stored_bytes(self) -> pd.Series:
        """The size of each method's stored prompt, the largest where class names change it."""
        return self.runs.groupby("method").stored_bytes.max()

    @cached_property
    def zero_shot(self) -> pd.Series:
        """Zero-shot CLIP's score on each data set that it was tested on."""
        return zero_shot_scores(self.scores, self.measure)

    @cached_property
    def collapsed(self) -> pd.DataFrame:
        """As :func:`reporting.scores.collapsed_runs` returns it; empty if no run collapsed."""
        counts = collapsed_runs(self.scores, self.measure)
        return counts if counts.collapsed.any() else counts[:0]

    @property
    def headline(self) -> str:
        """The column that methods are ranked by."""
        return self.tables[0].columns[-1]

    @property
    def measure(self) -> str:
        """That of the headline column."""
        return self.headline if self.headline in self.scores else self.scores.columns[-1]

    @property
    def best_methods(self) -> list[Method]:
        """Those measured here with the highest mean in the headline column."""
        best = self.tables[0].measured.best[self.headline]
        return list(best.index[best])

    @property
    def smallest_method(self) -> Method | None:
        """That of the smallest stored prompt, of several the one with the highest headline mean."""
        sizes = self.stored_bytes
        sizes = sizes[sizes > 0].to_frame().join(self.tables[0].cells["mean"], how="inner")
        ordered = sizes.sort_values(["stored_bytes", self.headline], ascending=[True, False])
        return next(iter(ordered.index), None)

    @property
    def leading_comparisons(self) -> pd.DataFrame:
        """One of each two methods: on the average, or on the only data set that both ran on."""
        return self.comparisons[~self._of_a_pair_before]

    @property
    def other_comparisons(self) -> pd.DataFrame:
        """Those on a single data set of several."""
        return self.comparisons[self._of_a_pair_before]

    @property
    def _of_a_pair_before(self) -> pd.Series:
        return self.comparisons.index.droplevel("dataset").duplicated()


def shots_title(shots: int) -> str:
    return "all images" if shots < 0 else f"{shots} shot{'' if shots == 1 else 's'}"
