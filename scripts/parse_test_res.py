"""Means over seeds of the runs in a folder, in the words of upstream's script of this name.

    python scripts/parse_test_res.py output/my_experiment              # seed1, seed2, ...
    python scripts/parse_test_res.py output/my_experiment --multi-exp  # folders with seeds

The spread is upstream's: the standard deviation divided by n, or 1.96 of it over sqrt(n) with
--ci95. python -m reporting makes tables of whole output folders, with n - 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from reporting.results import read_runs  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--ci95", action="store_true", help="95%% interval in place of deviation")
    parser.add_argument("--test-log", action="store_true", help="not needed: both kinds are read")
    parser.add_argument("--multi-exp", action="store_true", help="several experiments below it")
    args = parser.parse_args()
    try:
        runs, notes = read_runs(args.directory)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    runs["error"] = 100 - runs.accuracy
    # an experiment is the folder around those of the seeds
    experiment = runs.path.map(lambda path: str((args.directory / path).parents[1]))
    means = [summarize(name, own, args) for name, own in runs.groupby(experiment)]
    if args.multi_exp:
        print("Average performance")
        for measure, mean in pd.DataFrame(means).mean().items():
            print(f"* {measure}: {mean:.2f}%")


def summarize(name: str, runs: pd.DataFrame, args: argparse.Namespace) -> pd.Series:
    """Print the runs of one experiment, their means and spreads, and return the means."""
    print(f"Parsing files in {name}")
    for run in runs.itertuples():
        path = args.directory / run.path
        print(f"file: {path}. accuracy: {run.accuracy:.2f}%. error: {run.error:.2f}%. ")
    values = runs[["accuracy", "error"]]
    spread = values.std(ddof=0) * (1.96 / len(values) ** 0.5 if args.ci95 else 1)
    print(f"===\nSummary of directory: {name}")
    for measure, mean in values.mean().items():
        print(f"* {measure}: {mean:.2f}% +- {spread[measure]:.2f}%")
    print("===")
    return values.mean()


if __name__ == "__main__":
    main()
