"""Plots of a section: of its tables, and of what its runs recorded of single classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import ceil

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from reporting.figures import Plot, draw, style
from reporting.methods import Method
from reporting.protocols import BASE, COLUMNS, FEW_SHOT, NEW, H
from reporting.scores import AVERAGE
from reporting.stability import stability_plots
from reporting.tables import Section, Table
from reporting.weights import weight_plots

GREY = "#8a8f98"
PANELS = 4  # side by side
MOST_NAMES = 40  # that are readable on an axis
CONFUSION_PANELS = 3
_SHADES = LinearSegmentedColormap.from_list("shades", [(0.18, 0.5, 0.82, 0), (0.18, 0.5, 0.82, 1)])

Subject = tuple[str, str, tuple[str, ...]]  # data set, subset, class names
Counts = Mapping[Method, np.ndarray]


def section_plots(section: Section) -> list[Plot]:
    """Trade-off, curves, bits, single runs, weights and classes, where there are any."""
    plots = list(curve_plots(section))
    for table in section.tables:
        plots += [*_trade_off_plots(section, table), *_bits_plots(section, table)]
    plots += [*stability_plots(section), *weight_plots(section)]
    return [*plots, *class_plots(section)]


def comparable(table: Table, columns: Sequence[str]) -> pd.DataFrame:
    """The means of some columns that are over the most data sets measured; gaps elsewhere."""
    columns = [column for column in columns if column in table.columns]
    share = (table.cells["sets"] / table.cells["of"])[columns]
    most = share[[not method.source for method in share.index]].max().max()
    return table.cells["mean"][columns].where(share == most).dropna(how="all")


def _trade_off_plots(section: Section, table: Table) -> Iterator[Plot]:
    means = comparable(table, COLUMNS)
    if H not in means or means[H].isna().all():
        return
    means = means[means[H].notna()]

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        errors = table.cells["std"]
        for method, mean in means.iterrows():
            look = {
                **style(method),
                "linestyle": "none",
                "label": f"{method.label} (H {mean[H]:.1f})",
            }
            error = errors.loc[method]
            _point(axes, mean[BASE], mean[NEW], error[NEW], xerr=_drawn(error[BASE]), **look)
        axes.margins(0.12)
        _equal_harmonic_means(axes)
        axes.set(xlabel="base classes, %", ylabel="new classes, %")
        figure.legend(loc="outside right upper")

    yield draw(
        f"{section.title} {table.title} trade-off",
        table.dataset,
        f"New against base accuracy; along a grey line H is the same.{_left_out(table, means)}",
        plot,
        (6.0, 3.6),
    )


def _bits_plots(section: Section, table: Table) -> Iterator[Plot]:
    columns = _columns_against_bits(section, table)
    means = comparable(table, columns)
    errors = table.cells["std"]
    quantized: dict[str, list[Method]] = defaultdict(list)
    for method in means.index:
        if method.bits:
            quantized[method.name].append(method)
    learners = {m[0].plain for m in quantized.values() if not m[0].source}
    if not learners:
        return
    plain = [method for method in means.index if method.trainer in learners and not method.source]
    bits = sorted({method.bits for methods in quantized.values() for method in methods})

    def plot(figure: Figure) -> None:
        for axes, column in zip(_panels(figure, len(columns)), columns, strict=True):
            for method, mean in means.loc[plain, column].dropna().items():
                axes.axhline(mean, color=style(method)["color"], linestyle=":", linewidth=1)
                _point(axes, len(bits), mean, errors.at[method, column], **style(method))
            for name, methods in quantized.items():
                points = means.loc[methods, column].dropna()
                look = {**style(methods[0]), "linestyle": "-", "marker": "s", "label": name}
                places = [bits.index(method.bits) for method in points.index]
                error = errors.loc[points.index, column].fillna(0)
                axes.errorbar(places, points, error, capsize=2, **look)
            axes.set_xticks(range(len(bits) + 1), [*bits, "plain"])
            axes.set(title=column, xlabel="bits", ylabel="accuracy, %")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")

    yield draw(
        f"{section.title} {table.title} bits",
        table.dataset,
        f"Accuracy against bits; dotted: the plain trainer.{_left_out(table, means)}",
        plot,
        (1.1 + 1.8 * len(columns), 2.8),
    )


def curve_plots(section: Section) -> Iterator[Plot]:
    if section.protocol != FEW_SHOT:
        return
    shots = section.tables[0].columns
    if len([column for column in shots if not column.startswith("0")]) < 2:
        return
    rows = ceil(len(section.tables) / PANELS)

    def plot(figure: Figure) -> None:
        handles = {}
        for axes, table in zip(_panels(figure, len(section.tables)), section.tables, strict=False):
            for method, mean in comparable(table, shots).iterrows():
                points = mean.dropna()
                places = [shots.index(column) for column in points.index]
                error = table.cells["std"].loc[method, points.index].fillna(0)
                line = axes.errorbar(places, points, error, capsize=2, **style(method))
                handles.setdefault(method.label, line)
            axes.set_xticks(range(len(shots)), [column.split()[0] for column in shots])
            title = AVERAGE.capitalize() if table.dataset == AVERAGE else table.dataset
            axes.set(title=title, xlabel="shots", ylabel="accuracy, %")
        figure.legend(handles.values(), handles.keys(), loc="outside right upper")

    yield draw(
        f"{section.title} curves",
        section.tables[0].dataset,
        "Accuracy against the number of training images of each class.",
        plot,
        (1.8 + 2.4 * min(PANELS, len(section.tables)), 2.8 * rows),
    )


def _left_out(table: Table, means: pd.DataFrame) -> str:
    if table.dataset != AVERAGE or len(means) == len(table.cells):
        return ""
    return " Averages over fewer data sets, and published ones over more, are left out."


def _columns_against_bits(section: Section, table: Table) -> Sequence[str]:
    if section.protocol == FEW_SHOT:
        return table.columns[-1:]
    return table.columns if table.dataset else table.columns[-1:]


def _panels(figure: Figure, count: int, most: int = PANELS) -> list[Axes]:
    """As many axes as asked for, at most ``most`` in a row."""
    width = min(most, count)
    axes = figure.subplots(ceil(count / width), width, squeeze=False).flatten()
    for unused in axes[count:]:
        unused.remove()
    return list(axes[:count])


def _point(axes: Axes, x: float, mean: float, std: float, **look: object) -> None:
    axes.errorbar(x, mean, yerr=_drawn(std), capsize=2, elinewidth=0.8, **look)


def _drawn(std: float) -> float | None:
    return None if np.isnan(std) else std


def _equal_harmonic_means(axes: Axes) -> None:
    limits = axes.get_xlim(), axes.get_ylim()
    base, new = np.meshgrid(*(np.linspace(max(low, 0.1), high) for low, high in limits))
    lines = axes.contour(base, new, 2 * base * new / (base + new), 6, colors=GREY)
    lines.set(alpha=0.5, linewidth=0.7)
    axes.clabel(lines, fmt="H %g", fontsize=7)


def class_plots(section: Section) -> Iterator[Plot]:
    """Two plots for each data set and half, of what its runs recorded of single classes."""
    yield from _accuracy_plots(section)
    yield from _confusion_plots(section)


def _accuracy_plots(section: Section) -> Iterator[Plot]:
    correct, total = (_sums_of_counts(section, field) for field in ("correct", "total"))
    for (dataset, subset, names), images in total.items():
        hits = correct[dataset, subset, names]
        rates = {method: 100 * hits[method] / images[method].clip(min=1) for method in images}
        there = np.flatnonzero(sum(images.values()))
        hardness = np.argsort(np.mean(list(rates.values()), axis=0)[there], kind="stable")
        shown = np.sort(there[hardness[:MOST_NAMES]])
        few = f" (the {len(shown)} hardest of {len(there)})" if len(shown) < len(there) else ""
        yield draw(
            f"{section.title} {dataset} {subset} classes",
            dataset,
            f"Accuracy on {_each_class(subset)}{few}, all seeds together.",
            partial(_draw_accuracies, rates=rates, shown=shown, names=names),
            (6.2, 1.0 + 0.22 * max(len(shown), len(rates))),
        )


def _confusion_plots(section: Section) -> Iterator[Plot]:
    counts = _sums_of_counts(section, "confusion")
    for (dataset, subset, names), by_method in counts.items():
        shares = {
            m: 100 * c / c.sum(axis=1, keepdims=True).clip(min=1) for m, c in by_method.items()
        }
        yield draw(
            f"{section.title} {dataset} {subset} confusion",
            dataset,
            f"Share of {_each_class(subset)} (row) that is taken for each class (column), "
            "all seeds together.",
            partial(_draw_confusions, shares=shares, names=names),
            (
                2.7 * min(CONFUSION_PANELS, len(shares)) + 0.8,
                2.9 * ceil(len(shares) / CONFUSION_PANELS),
            ),
        )


def _sums_of_counts(section: Section, field: str) -> dict[Subject, Counts]:
    """Sum over seeds; of several numbers of shots the largest, and no source of a transfer."""
    runs = section.runs[section.runs.dataset != section.setting.source]
    most = -1 if (runs.shots == -1).any() else runs.shots.max()
    there = (runs[field].map(len) > 0) & (runs.zero_shot | (runs.shots == most))
    sums: dict[Subject, dict[Method, np.ndarray]] = defaultdict(dict)
    for (*subject, method), alike in runs[there].groupby(
        ["dataset", "subset", "classnames", "method"], sort=False
    ):
        sums[tuple(subject)][method] = np.sum(alike[field].tolist(), axis=0)
    return {subject: dict(sorted(counts.items())) for subject, counts in sums.items()}


def _each_class(subset: str) -> str:
    return "each class" if subset == "all" else f"each {subset} class"


def _draw_accuracies(
    figure: Figure, rates: Counts, shown: Sequence[int], names: Sequence[str]
) -> None:
    axes = figure.subplots()
    for method, accuracies in rates.items():
        look = {**style(method), "linestyle": "none", "alpha": 0.8, "label": method.label}
        axes.plot(accuracies[shown], range(len(shown)), **look)
    axes.set_yticks(range(len(shown)), [names[label] for label in shown])
    axes.set(xlabel="accuracy, %")
    axes.invert_yaxis()
    figure.legend(loc="outside right upper")


def _draw_confusions(figure: Figure, shares: Counts, names: Sequence[str]) -> None:
    panels = _panels(figure, len(shares), CONFUSION_PANELS)
    for axes, (method, matrix) in zip(panels, shares.items(), strict=True):
        image = axes.imshow(matrix, cmap=_SHADES, vmin=0, vmax=100)
        axes.set_title(method.label)
        axes.grid(False)
        axes.spines[:].set_visible(True)
        ticks = range(len(names)) if len(names) <= MOST_NAMES / 2 else []
        axes.set_xticks(ticks, [names[label] for label in ticks], rotation=90, fontsize=7)
        axes.set_yticks(ticks, [names[label] for label in ticks], fontsize=7)
    figure.colorbar(image, ax=panels, label="%", shrink=0.8)
