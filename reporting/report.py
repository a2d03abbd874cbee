"""Sort runs into the sections of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reporting import protocols
from reporting.results import read_runs
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
    known = runs[runs.source.notna()].astype({"shots": int, "seed": int})
    notes += [
        f"{path} is in no table: where its weights were trained is not known. Keep the run "
        "that they come from, with its config.json or log.txt, where it was"
        for path in runs.path[runs.source.isna()]
    ]
    sections = protocols.sections(known)
    placed = {index for section in sections for index in section.runs.index}
    notes += [
        f"{run.path} is in no table: {run.trainer}, trained on {run.source_subset} classes of "
        f"{run.source} and tested on {run.subset} classes of {run.dataset}, is none of the "
        "protocols"
        for run in known.itertuples()
        if run.Index not in placed
    ]
    if not sections:
        raise ValueError("; ".join(notes))
    return Report(sections, notes)
