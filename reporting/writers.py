"""The files of a report."""

from __future__ import annotations

import os
from pathlib import Path

from reporting.latex import latex
from reporting.markdown import markdown
from reporting.page import page
from reporting.plots import section_plots
from reporting.report import Report, make_report
from reporting.spreadsheet import spreadsheets

PLOTS = "plots"


def write_report(folder: Path, output: Path) -> Report:
    """Read the runs below ``folder`` and write all files into ``output``; errors: make_report."""
    report = make_report(folder)
    plots = {section: section_plots(section) for section in report.sections}
    files = {
        "report.html": page(report, plots),
        "report.md": markdown(report, plots, PLOTS),
        "report.tex": latex(report),
        **spreadsheets(report),
        **{f"{PLOTS}/{plot.slug}.svg": plot.file for found in plots.values() for plot in found},
    }
    for name, text in files.items():
        _write(output / name, text)
    return report


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
