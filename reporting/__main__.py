"""``python -m reporting FOLDER``: tables and plots from every run below a folder.

Writes report.html, report.md, report.tex, a CSV file for each protocol, paired.csv and plots/*.svg.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from reporting.latex import latex
from reporting.markdown import markdown, markdown_table
from reporting.page import page
from reporting.plots import section_plots
from reporting.report import Report, make_report
from reporting.results import UnreadableResultError
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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reporting",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the runs are")
    parser.add_argument("--output", type=Path, help="where to write; default: the same folder")
    args = parser.parse_args()
    output = args.output or args.folder
    try:
        report = write_report(args.folder, output)
    except (OSError, UnreadableResultError, ValueError) as error:
        sys.exit(f"error: {error}")
    for section in report.sections:
        print(
            f"{section.title}. {section.tables[0].title}\n\n{markdown_table(section.tables[0])}\n"
        )
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"Written to {output / 'report.html'}, report.md, report.tex and CSV files beside them")


if __name__ == "__main__":
    main()
