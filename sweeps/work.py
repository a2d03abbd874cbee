"""Jobs one after the other in this process, with everything that they share loaded once."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from dassl.utils import atomic_write, mkdir_if_missing, sharing
from sweeps import records
from sweeps.grid import read_grids
from sweeps.jobs import Job, Run, expand

LOCK = ".lock"

Start = Callable[[Sequence[str]], None]


def sweep(grids: str, root: str, output: str, start: Start, job: int | None = None) -> bool:
    """Run all of a sweep that is not finished and that no other process is on.

    Args:
        grids: a YAML file, or YAML, as for :func:`sweeps.grid.read_grids`.
        root: folder that holds the data sets.
        output: folder that the runs' folders go into.
        start: runs train.py with some arguments; does nothing where that run is finished.
        job: number of the only job to do, from 0.

    Returns:
        Whether all runs are finished.

    Raises:
        SweepError: the sweep cannot be expanded.
    """
    jobs = expand(read_grids(grids), root, output)
    if job is not None:
        jobs = jobs[job : job + 1]
    work(jobs, start)
    text, complete = records.summarize(jobs)
    print(text, file=sys.stderr)
    return complete


def work(jobs: Sequence[Job], start: Start) -> None:
    """Run jobs in their order; neighbours on one data set share it, its features and the backbone.

    Each run leaves in its folder what it would leave as a process of its own; the terminal gets a
    line when it starts and one when it ends. A run that fails is recorded in its folder's
    ``error.txt``; the runs that do not need its weights go on.
    """
    runs = [run for job in jobs for run in job.runs]
    names = {run: f"[{i}/{len(runs)}] {run.folder}" for i, run in enumerate(runs, start=1)}
    for _, group in groupby(jobs, key=lambda job: job.dataset):
        with sharing():
            for job in group:
                with _locked(job.training.folder) as mine:
                    if mine and _attempt(job.training, start, names):
                        for run in job.evaluations:
                            _attempt(run, start, names)


def _attempt(run: Run, start: Start, names: dict[Run, str]) -> bool:
    """Return whether the run is finished."""
    fresh = not records.is_finished(run)
    if fresh:
        print(names[run], flush=True)
    try:
        with _like_a_new_process():
            start(run.argv)
        score = records.score(run)
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        with atomic_write(run.folder / records.ERROR, "w") as file:
            file.write(f"{message}\n\n{traceback.format_exc()}")
        print(f"{names[run]}: failed: {message}", flush=True)
        return False
    (run.folder / records.ERROR).unlink(missing_ok=True)
    if fresh:
        print(f"{names[run]}: {score}", flush=True)
    return True


@contextlib.contextmanager
def _like_a_new_process() -> Iterator[None]:
    """Let go of the last run, show warnings again, and keep what a run prints to its log.

    Random generators need nothing, because every run of a sweep seeds them.
    """
    gc.collect()  # trainers stand in reference cycles, and hold the workers of their loaders
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Yield whether no other process works on ``folder``; a process that dies lets go of it."""
    mkdir_if_missing(folder)
    with open(folder / LOCK, "w") as file:
        try:
            # not flock: the loader workers of a killed process would keep it for some seconds
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except (BlockingIOError, PermissionError):
            free = False
        yield free
