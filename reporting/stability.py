"""A plot of how far the runs of each method lie apart, and which of them collapsed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from reporting.figures import Plot, draw, style
from reporting.methods import Method
from reporting.scores import COLLAPSE
from reporting.tables import Section

FEWEST_SEEDS = 5  # of some method, to be drawn
GREY = "#8a8f98"


def stability_plots(section: Section) -> Iterator[Plot]:
    """One for each data set: every run is a point, above its variant."""
    scores = section.scores[section.measure].dropna()
    for dataset, on_it in scores.groupby("dataset", sort=False):
        of_method = {
            method: values.to_numpy()
            for method, values in on_it.groupby("method")
            if not method.zero_shot
        }
        if max(map(len, of_method.values()), default=0) < FEWEST_SEEDS:
            continue
        yield draw(
            f"{section.title} {dataset} stability",
            dataset,
            f"{section.measure} of each run, and their median (bar); grey: zero-shot CLIP, and "
            f"dotted {COLLAPSE} points below, where a run counts as collapsed.",
            partial(
                _draw,
                of_method=of_method,
                zero_shot=section.zero_shot.get(dataset),
                measure=section.measure,
            ),
            (min(2.2 + 0.5 * len(of_method), 9.0), 3.2),
        )


def _variant(method: Method) -> str:
    return ", ".join(filter(None, [method.variant, method.settings])) or "default"


def _draw(
    figure: Figure,
    of_method: dict[Method, np.ndarray],
    zero_shot: float | None,
    measure: str,
) -> None:
    axes = figure.subplots()
    variants = list(dict.fromkeys(map(_variant, of_method)))
    learners = list(dict.fromkeys((m.trainer, m.bits) for m in of_method))
    step = 0.8 / len(learners)
    labelled = set()
    for method, values in of_method.items():
        learner = method.trainer, method.bits
        centre = variants.index(_variant(method)) + step * (
            learners.index(learner) - (len(learners) - 1) / 2
        )
        look = style(Method(method.trainer, method.bits))
        places = centre + step * 0.6 * (np.arange(len(values)) / max(len(values) - 1, 1) - 0.5)
        label = Method(method.trainer, method.bits).label
        axes.plot(
            places,
            values,
            **{**look, "linestyle": "none", "alpha": 0.7, "markersize": 4},
            label=None if label in labelled else label,
        )
        labelled.add(label)
        axes.hlines(np.median(values), centre - step / 2.5, centre + step / 2.5, look["color"])
    if zero_shot is not None:
        axes.axhline(zero_shot, color=GREY, linewidth=1)
        axes.axhline(zero_shot - COLLAPSE, color=GREY, linewidth=1, linestyle=":")
    axes.set_xticks(range(len(variants)), variants)
    axes.set(ylabel=f"{measure}, %")
    axes.grid(False, axis="x")
    figure.legend(loc="outside right upper")
