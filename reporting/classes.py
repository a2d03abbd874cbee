"""Plots of single classes: accuracy, and which is taken for which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from reporting.figures import Plot, draw, style
from reporting.methods import Method
from reporting.run import Run
from reporting.section import Section

MOST_NAMES = 40  # that are readable on an axis
PANELS = 3  # side by side
_SHADES = LinearSegmentedColormap.from_list("shades", [(0.18, 0.5, 0.82, 0), (0.18, 0.5, 0.82, 1)])

Subject = tuple[str, str, tuple[str, ...]]  # data set, subset, class names
Counts = Mapping[Method, np.ndarray]


def class_plots(section: Section) -> Iterator[Plot]:
    """Two plots for each data set and half, of what its runs recorded of single classes."""
    yield from _accuracy_plots(section)
    yield from _confusion_plots(section)


def _accuracy_plots(section: Section) -> Iterator[Plot]:
    counts = _sums(section, lambda run: [run.correct, run.total] if run.total else None)
    for (dataset, subset, names), by_method in counts.items():
        rates = {m: 100 * hits / images.clip(min=1) for m, (hits, images) in by_method.items()}
        there = np.flatnonzero(sum(images for _, images in by_method.values()))
        hardness = np.argsort(np.mean(list(rates.values()), axis=0)[there], kind="stable")
        shown = np.sort(there[hardness[:MOST_NAMES]])
        few = f" (the {len(shown)} hardest of {len(there)})" if len(shown) < len(there) else ""
        yield draw(
            f"{section.title} {dataset} {subset} classes",
            dataset,
            f"Accuracy on {_classes(subset)}{few}, all seeds together.",
            partial(_draw_accuracies, rates=rates, shown=shown, names=names),
            (6.2, 1.0 + 0.22 * max(len(shown), len(rates))),
        )


def _confusion_plots(section: Section) -> Iterator[Plot]:
    counts = _sums(section, lambda run: run.confusion or None)
    for (dataset, subset, names), by_method in counts.items():
        shares = {
            m: 100 * c / c.sum(axis=1, keepdims=True).clip(min=1) for m, c in by_method.items()
        }
        yield draw(
            f"{section.title} {dataset} {subset} confusion",
            dataset,
            f"Share of {_classes(subset)} (row) that is taken for each class (column), all seeds "
            "together.",
            partial(_draw_confusions, shares=shares, names=names),
            (2.7 * min(PANELS, len(shares)) + 0.8, 2.9 * ceil(len(shares) / PANELS)),
        )


def _sums(
    section: Section, counts: Callable[[Run], Sequence[Sequence[int]] | None]
) -> dict[Subject, Counts]:
    """Sum over seeds; of several numbers of shots the largest, and no source of a transfer."""
    runs = [run for run in section.methods if run.dataset != section.setting.source]
    shots = [run.training.shots for run in runs]
    most = -1 if -1 in shots else max(shots, default=0)
    sums: dict[Subject, dict[Method, np.ndarray]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: section.methods[run].order):
        found = counts(run)
        if found and (run.zero_shot or run.training.shots == most):
            by_method = sums[run.dataset, run.subset, run.classnames]
            method = section.methods[run]
            by_method[method] = by_method.get(method, 0) + np.array(found)
    return sums


def _classes(subset: str) -> str:
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
    width = min(PANELS, len(shares))
    panels = figure.subplots(ceil(len(shares) / width), width, squeeze=False).flatten()
    for axes, (method, matrix) in zip(panels, shares.items(), strict=False):
        image = axes.imshow(matrix, cmap=_SHADES, vmin=0, vmax=100)
        axes.set_title(method.label)
        axes.grid(False)
        axes.spines[:].set_visible(True)
        ticks = range(len(names)) if len(names) <= MOST_NAMES / 2 else []
        axes.set_xticks(ticks, [names[label] for label in ticks], rotation=90, fontsize=7)
        axes.set_yticks(ticks, [names[label] for label in ticks], fontsize=7)
    for unused in panels[len(shares) :]:
        unused.remove()
    figure.colorbar(image, ax=panels[: len(shares)].tolist(), label="%", shrink=0.8)
