"""Sort runs into the sections of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reporting import protocols
from reporting.results import Run, read_runs
from reporting.tables import Section


@dataclass(frozen=True)
class Report:
    """``notes`` say what is in no table, and why."""

    sections: Sequence[Section]
    notes: Sequence[str]


def make_report(folder: Path) -> Report:
    """Read the runs below a folder and sort them by protocol.

    Raises:
        FileNotFoundError: there are none.
        UnreadableResultError: one cannot be read.
        ConflictingResultsError: two different results for one run.
        ValueError: no run belongs to a protocol.
    """
    runs, notes = read_runs(folder)
    known = [run for run in runs if run.training]
    notes += [
        f"{run.path} is in no table: where its weights were trained is not known. Keep the run "
        "that they come from, with its config.json or log.txt, where it was"
        for run in runs
        if not run.training
    ]
    sections = protocols.sections(known)
    placed = {run for section in sections for run in section.methods}
    notes += [
        f"{run.path} is in no table: {_account(run)} is none of the protocols"
        for run in known
        if run not in placed
    ]
    if not sections:
        raise ValueError("; ".join(notes))
    return Report(sections, notes)


def _account(run: Run) -> str:
    training = run.training
    return (
        f"{run.trainer}, trained on {training.subset} classes of {training.dataset} and tested on "
        f"{run.subset} classes of {run.dataset},"
    )
