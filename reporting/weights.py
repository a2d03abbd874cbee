"""Plots of how weights, their codebooks and the fits of these developed in training."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.figures import Plot, draw
from reporting.tables import Section

BLUE, ORANGE = "#2f7fd1", "#e0752d"
MOST_TENSORS = 4
BANDS = [("q01", "q99", 0.15), ("q05", "q95", 0.2), ("q25", "q75", 0.3)]


def weight_plots(section: Section) -> Iterator[Plot]:
    """One for each data set and method whose runs recorded it, of the first seed that did."""
    recorded = section.runs[section.runs.weights.map(len) > 0].sort_values("seed")
    for run in recorded.drop_duplicates(["dataset", "method"]).itertuples():
        tables = [pd.read_csv(path) for path in run.weights]
        tensors = [t for table in tables for t in table.groupby("parameter", sort=False)]
        shown = tensors[:MOST_TENSORS]
        left = f"; {len(shown)} of {len(tensors)} tensors" if len(shown) < len(tensors) else ""
        yield draw(
            f"{section.title} {run.dataset} {run.method.label} weights",
            run.dataset,
            f"{run.method.label}, seed {run.seed}{left}: latent weights (98, 90 and 50% of them, "
            "and their median) with the centroids, and their standard deviation, after each epoch. "
            "Dots: the codebook was fitted again.",
            partial(_draw, tensors=shown),
            (7.6, 0.4 + 2.4 * len(shown)),
        )


def _draw(figure: Figure, tensors: list[tuple[str, pd.DataFrame]]) -> None:
    grid = figure.subplots(len(tensors), 2, squeeze=False, sharex=True)
    for (left, right), (name, rows) in zip(grid, tensors, strict=True):
        _draw_distribution(left, rows)
        left.set(title=name, ylabel="weight")
        right.plot(rows.epoch, rows["std"], color=BLUE)
        if "fits" in rows:
            again = rows[rows.fits.diff() > 0]
            right.plot(again.epoch, again["std"], "o", color=ORANGE, markersize=3)
        right.set(ylabel="standard deviation")
    for axes in grid[-1]:
        axes.set(xlabel="epochs")


def _draw_distribution(axes: Axes, rows: pd.DataFrame) -> None:
    for low, high, alpha in BANDS:
        axes.fill_between(rows.epoch, rows[low], rows[high], color=BLUE, alpha=alpha, linewidth=0)
    axes.plot(rows.epoch, rows.q50, color=BLUE, linewidth=0.8)
    if "codebook" in rows:
        centroids = np.array([book.split() for book in rows.codebook], float)
        axes.plot(rows.epoch, centroids, color=ORANGE, linewidth=0.8)
