"""What is known of runs from their folders alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from sweeps.jobs import Job, Run

RESULTS = "results.json"
ERROR = "error.txt"  # first line: the message; then the traceback


def is_finished(run: Run) -> bool:
    """Whether there are results; only train.py can tell whether they are of this very run."""
    return os.path.isfile(run.folder / RESULTS)  # False also where the folder cannot be read


def score(run: Run) -> str:
    """The first metric of a finished run, e.g. ``accuracy 93.41``.

    Raises:
        FileNotFoundError: it left no results.
    """
    path = run.folder / RESULTS
    if not path.exists():
        raise FileNotFoundError(
            f'The run left no "{path}": a sweep needs the test that TEST.NO_TEST leaves out'
        )
    metrics = json.loads(path.read_text(encoding="utf-8-sig"))["metrics"]
    name, value = next(iter(metrics.items()))
    return f"{name} {value:.2f}"


def summarize(jobs: Iterable[Job], failures: Mapping[Run, str] = {}) -> tuple[str, bool]:
    """Say how many runs are finished, and why the others are not.

    Args:
        jobs: the jobs.
        failures: messages of runs that failed, beside what stands in their folders.

    Returns:
        The text, and whether all are finished.
    """
    runs = [run for job in jobs for run in job.runs]
    reasons: dict[str, list[Path]] = {}
    for run in runs:
        if run in failures or not is_finished(run):
            reasons.setdefault(_reason(run, failures), []).append(run.folder)
    unfinished = sum(map(len, reasons.values()))
    lines = [f"{len(runs) - unfinished} of {len(runs)} runs finished"]
    for reason, folders in reasons.items():
        more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        lines.append(f"{folders[0]}{more}: {reason}")
    return "\n".join(lines), not unfinished


def _reason(run: Run, failures: Mapping[Run, str]) -> str:
    try:
        with open(run.folder / ERROR, encoding="utf-8") as file:
            recorded = file.readline().strip()
    except OSError:
        recorded = ""
    message = failures.get(run, recorded)
    if not message:
        return "not run: what it needs failed, it was interrupted, or another process is on it"
    return f"{message} (traceback: {ERROR} there)" if message == recorded else message
