"""Accuracy against shots of the few-shot runs in a folder, as upstream's script of this name draws.

    python scripts/draw_curves.py output --save-dir main_curves

One SVG file for each backbone; python -m reporting makes these plots, too, among others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from reporting.plots import curve_plots  # noqa: E402
from reporting.report import make_report  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the runs are")
    parser.add_argument("--save-dir", type=Path, default=Path("main_curves"))
    args = parser.parse_args()
    try:
        report = make_report(args.folder)
        plots = [plot for section in report.sections for plot in curve_plots(section)]
        if not plots:
            raise ValueError(f"{args.folder} holds no few-shot runs with two numbers of shots")
        args.save_dir.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            path = args.save_dir / f"{plot.slug}.svg"
            path.write_text(plot.file, encoding="utf-8")
            print(f"Written to {path}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
