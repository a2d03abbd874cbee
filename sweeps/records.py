"""What is known of runs from their folders alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from sweeps.jobs import Job, Run

RESULTS = "results.json"
ERROR = "error.txt"  # first line: the message; then the traceback


def is_finished(run: Run) -> bool:
    """Whether there are results, and the last start did not find them to be another run's."""
    return (run.folder / RESULTS).is_file() and not (run.folder / ERROR).exists()


def score(run: Run) -> str:
    """The first metric of a finished run, e.g. ``accuracy 93.41``."""
    metrics = json.loads((run.folder / RESULTS).read_text(encoding="utf-8"))["metrics"]
    name, value = next(iter(metrics.items()))
    return f"{name} {value:.2f}"


def summarize(jobs: Iterable[Job]) -> tuple[str, bool]:
    """Say how many runs are finished, and why the others are not.

    Returns:
        The text, and whether all are finished.
    """
    runs = [run for job in jobs for run in job.runs]
    reasons: dict[str, list[Path]] = {}
    for run in runs:
        if not is_finished(run):
            reasons.setdefault(_reason(run), []).append(run.folder)
    unfinished = sum(map(len, reasons.values()))
    lines = [f"{len(runs) - unfinished} of {len(runs)} runs finished"]
    for reason, folders in reasons.items():
        more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        lines.append(f"{folders[0]}{more}: {reason}")
    return "\n".join(lines), not unfinished


def _reason(run: Run) -> str:
    try:
        with open(run.folder / ERROR, encoding="utf-8") as file:
            return f"{file.readline().strip()} (traceback: {ERROR} there)"
    except FileNotFoundError:
        return "not run: what it needs failed, it was interrupted, or another process is on it"
