"""Plots of a section's tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.base_to_new import BASE, COLUMNS, NEW, H
from reporting.classes import class_plots
from reporting.few_shot import PROTOCOL as FEW_SHOT
from reporting.figures import Plot, draw, style
from reporting.scores import AVERAGE, Cell
from reporting.section import Section
from reporting.tables import Row, Table

GREY = "#8a8f98"
PANELS = 4  # side by side


def section_plots(section: Section) -> list[Plot]:
    """Trade-off, curves, accuracy against bits, and results of each class, where there are any."""
    plots = list(_curves(section))
    for table in section.tables:
        plots += [*_trade_off(section, table), *_bits(section, table)]
    return plots + list(class_plots(section))


def comparable(table: Table, columns: Sequence[str]) -> list[Row]:
    """The rows with those cells of some columns that are over the most data sets measured."""

    def cells(row: Row) -> dict[str, Cell]:
        return {column: row.cells[column] for column in columns if column in row.cells}

    measured = [row for row in table.rows if not row.method.source]
    most = max((cell.sets / cell.of for row in measured for cell in cells(row).values()), default=1)
    alike = [
        replace(row, cells={k: c for k, c in cells(row).items() if c.sets / c.of == most})
        for row in table.rows
    ]
    return [row for row in alike if row.cells]


def _trade_off(section: Section, table: Table) -> Iterator[Plot]:
    rows = [row for row in comparable(table, COLUMNS) if H in row.cells]
    if not rows:
        return

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        for row in rows:
            label = f"{row.method.label} (H {row.cells[H].mean:.1f})"
            look = {**style(row.method), "linestyle": "none", "label": label}
            _point(axes, row.cells[BASE].mean, row.cells[NEW], xerr=row.cells[BASE].std, **look)
        axes.margins(0.12)
        _equal_harmonic_means(axes)
        axes.set(xlabel="base classes, %", ylabel="new classes, %")
        figure.legend(loc="outside right upper")

    yield draw(
        f"{section.title} {table.title} trade-off",
        table.dataset,
        f"New against base accuracy; along a grey line H is the same.{_left_out(table, rows)}",
        plot,
        (6.0, 3.6),
    )


def _bits(section: Section, table: Table) -> Iterator[Plot]:
    columns = _columns_against_bits(section, table)
    rows = comparable(table, columns)
    quantized: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.method.bits:
            quantized[row.method.name].append(row)
    measured = [found for found in quantized.values() if not found[0].method.source]
    if not measured:
        return
    learners = {found[0].method.plain for found in measured}
    plain = [row for row in rows if row.method.trainer in learners and not row.method.source]
    bits = sorted({row.method.bits for found in quantized.values() for row in found})

    def plot(figure: Figure) -> None:
        for axes, column in zip(_panels(figure, len(columns)), columns, strict=True):
            for row in plain:
                if column in row.cells:
                    colour = style(row.method)["color"]
                    axes.axhline(row.cells[column].mean, color=colour, linestyle=":", linewidth=1)
                    _point(axes, len(bits), row.cells[column], **style(row.method))
            for name, found in quantized.items():
                points = [row for row in found if column in row.cells]
                look = {**style(found[0].method), "linestyle": "-", "marker": "s", "label": name}
                axes.errorbar(
                    [bits.index(row.method.bits) for row in points],
                    [row.cells[column].mean for row in points],
                    [row.cells[column].std or 0 for row in points],
                    capsize=2,
                    **look,
                )
            axes.set_xticks(range(len(bits) + 1), [*bits, "plain"])
            axes.set(title=column, xlabel="bits", ylabel="accuracy, %")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")

    yield draw(
        f"{section.title} {table.title} bits",
        table.dataset,
        f"Accuracy against bits; dotted: the plain trainer.{_left_out(table, rows)}",
        plot,
        (1.1 + 1.8 * len(columns), 2.8),
    )


def _curves(section: Section) -> Iterator[Plot]:
    if section.protocol != FEW_SHOT:
        return
    shots = section.tables[0].columns
    if len([column for column in shots if not column.startswith("0")]) < 2:
        return
    rows = ceil(len(section.tables) / PANELS)

    def plot(figure: Figure) -> None:
        handles = {}
        for axes, table in zip(_panels(figure, len(section.tables)), section.tables, strict=False):
            for row in comparable(table, shots):
                points = [column for column in shots if column in row.cells]
                line = axes.errorbar(
                    [shots.index(column) for column in points],
                    [row.cells[column].mean for column in points],
                    [row.cells[column].std or 0 for column in points],
                    capsize=2,
                    **style(row.method),
                )
                handles.setdefault(row.method.label, line)
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


def _left_out(table: Table, rows: Sequence[Row]) -> str:
    if table.dataset != AVERAGE or len(rows) == len(table.rows):
        return ""
    return " Averages over fewer data sets, and published ones over more, are left out."


def _columns_against_bits(section: Section, table: Table) -> Sequence[str]:
    if section.protocol == FEW_SHOT:
        return table.columns[-1:]
    return table.columns if table.dataset else table.columns[-1:]


def _panels(figure: Figure, count: int) -> list[Axes]:
    """As many axes as asked for, at most four in a row."""
    width = min(PANELS, count)
    axes = figure.subplots(ceil(count / width), width, squeeze=False).flatten()
    for unused in axes[count:]:
        unused.remove()
    return list(axes[:count])


def _point(axes: Axes, x: float, cell: Cell, **look: object) -> None:
    axes.errorbar(x, cell.mean, yerr=cell.std, capsize=2, elinewidth=0.8, **look)


def _equal_harmonic_means(axes: Axes) -> None:
    limits = axes.get_xlim(), axes.get_ylim()
    base, new = np.meshgrid(*(np.linspace(max(low, 0.1), high) for low, high in limits))
    lines = axes.contour(base, new, 2 * base * new / (base + new), 6, colors=GREY)
    lines.set(alpha=0.5, linewidth=0.7)
    axes.clabel(lines, fmt="H %g", fontsize=7)
