"""Figures as SVG that takes its text colour from the page around it."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from reporting.methods import Method

_INK = "#010203"  # stands for the page's text colour
_STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,  # class names may hold a dollar sign
}
_COLOURS = {
    "ZeroshotCLIP": "#8a8f98",
    "ZeroshotCLIP2": "#b0a58f",
    "CLIP": "#8a8f98",
    "CoOp": "#2f7fd1",
    "QCoOp": "#14a3b8",
    "DePT": "#3c4f8f",
    "QDePT": "#4fa0c9",
    "CoCoOp": "#2f9e6e",
    "QCoCoOp": "#86a32b",
    "ProGrad": "#8b6fd1",
    "QProGrad": "#5f55c9",
    "KgCoOp": "#b8902a",
    "QKgCoOp": "#d9743f",
    "CLIPAdapter": "#7d8f2e",
    "QCLIPAdapter": "#a9b84a",
    "TipAdapter": "#c98fa8",
    "TipAdapterF": "#9e5b78",
    "QTipAdapterF": "#d06d97",
    "VPT": "#5a6b2f",
    "IVLP": "#7a4b3a",
    "MaPLe": "#e0752d",
    "QMaPLe": "#cf4a5a",
    "PromptSRC": "#c4559a",
    "QPromptSRC": "#8c2f6b",
}
_OTHERS = ("#b8902a", "#a3684f", "#6c7fd8", "#4f9fa0", "#b565d0")
_MARKERS = {None: "o", 1: "v", 2: "s", 3: "p", 4: "D"}
_VARIANTS = "X*h<>"
_LINES = {None: "-", 1: ":", 2: "--", 4: "-."}


@dataclass(frozen=True)
class Plot:
    """``svg`` is an element to put into a page; ``slug`` names a file.

    ``dataset`` is what it is about, "average", or empty as in a table.
    """

    slug: str
    dataset: str
    caption: str
    svg: str

    @property
    def file(self) -> str:
        """The plot as a file of its own: dark text on white."""
        standalone = self.svg.replace("currentColor", "#1b1f24")
        return standalone.replace("<svg ", '<svg style="background: white" ', 1)


def draw(
    name: str,
    dataset: str,
    caption: str,
    plot: Callable[[Figure], None],
    size: tuple[float, float],
) -> Plot:
    """Make a figure and write it out.

    Args:
        name: unique in a report.
        dataset: what the figure is about.
        caption: what it shows; also its description for screen readers.
        plot: draws on the empty figure.
        size: width and height in inches.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": slug}):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return Plot(slug, dataset, caption, _inline(file.getvalue(), caption))


def style(method: Method) -> dict[str, Any]:
    """Colour by trainer, line and marker by bits; published numbers are hollow."""
    colour = _COLOURS.get(method.trainer) or _pick(method.trainer, _OTHERS)
    variant = method.variant + method.settings + "log" * method.from_log
    return {
        "color": colour,
        "marker": _pick(variant, _VARIANTS) if variant else _MARKERS.get(method.bits, "P"),
        "markerfacecolor": "none" if method.source else colour,
        "linestyle": _LINES.get(method.bits, "--"),
    }


def _pick(name: str, choices: Sequence[str]) -> str:
    """The same for the same name in every report."""
    return choices[zlib.crc32(name.encode()) % len(choices)]


def _inline(svg: str, caption: str) -> str:
    """Drop prolog and unused ids, which several figures in one page would share."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    description = caption.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
    return svg.replace(_INK, "currentColor")
