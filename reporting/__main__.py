"""``python -m reporting FOLDER``: tables and plots from every run below a folder.

Writes report.html, report.md, report.tex, a CSV file for each protocol, paired.csv and plots/*.svg.
"""

from __future__ import annotations

import argparse
import sys
from io import TextIOWrapper
from pathlib import Path

PACKAGES = {"jinja2", "matplotlib", "pandas", "scipy", "tabulate"}  # of the extra "report"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reporting",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=_folder, help="where the runs are")
    add("--output", type=_folder, help="where to write; default: the same folder")
    args = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # names may have letters that a terminal lacks
    output = args.output or args.folder
    try:
        # imported here, where a missing package becomes one line
        from reporting.writers import markdown_table, write_report

        report = write_report(args.folder, output)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in PACKAGES:
            raise
        sys.exit(f'error: {package} is not installed: pip install "clip-qprompt[report]"')
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    for section in report.sections:
        table = section.tables[0]
        print(f"{section.title}. {table.title}\n\n{markdown_table(section, table)}\n")
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"Written to {output / 'report.html'}, report.md, report.tex and CSV files beside them")


def _folder(name: str) -> Path:
    if not name:
        raise argparse.ArgumentTypeError("the folder's name is empty")
    return Path(name).expanduser()


if __name__ == "__main__":
    main()
