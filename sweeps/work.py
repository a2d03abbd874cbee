"""Jobs in this process or several, some together, with everything that they share loaded once."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from dassl.utils import Cache, FolderInUseError, atomic_write, hold
from sweeps import records
from sweeps.grid import SweepError, read_grids
from sweeps.jobs import Job, Run, expand
from sweeps.slots import default_slots, run_side_by_side
from sweeps.turns import Turns
from trainers.base import MEETING
from trainers.together import gradients_together

Check = Callable[[Sequence[str]], None]
Start = Callable[[Sequence[str], Cache], None]

TOGETHER = 36  # jobs: more make a step no cheaper


def sweep(
    grids: str,
    root: str,
    output: str,
    start: Start,
    check: Check,
    job: int | None = None,
    together: int | None = None,
    processes: int | None = 1,
) -> bool:
    """Run all of a sweep that is not finished and that no other process is on.

    Args:
        grids: a YAML file, or YAML, as for :func:`sweeps.grid.read_grids`.
        root: folder that holds the data sets.
        output: folder that the runs' folders go into.
        start: runs train.py with some arguments and what earlier runs on the same data set share
            with it; does nothing where that run is finished.
        check: raises what is wrong with some arguments; called with those of all runs before the
            first one starts.
        job: number of the only job to do, from 0.
        together: how many jobs train together at most; None: as many as pay.
        processes: how many work side by side; None: as many as pay.

    Returns:
        Whether all runs are finished.

    Raises:
        SweepError: the sweep cannot be expanded, or has no such job; and what ``check`` raises.
    """
    jobs = expand(read_grids(grids), root, output)
    if job is not None:
        if not 0 <= job < len(jobs):
            raise SweepError(f"--sweep-job must be from 0 to {len(jobs) - 1}, got {job}")
        jobs = [jobs[job]]
    for run in (run for job in jobs for run in job.runs):
        check(run.argv)
    gc.freeze()  # what is loaded by now stays: collections need not look through it
    left = [job for job in jobs if not all(map(records.is_finished, job.runs))]
    # what one process encodes once: the images of a data set and seed
    shares = len({(job.dataset, job.seed) for job in left})
    processes = min(processes or default_slots(shares), len(left))
    together = together or TOGETHER
    complete = True
    if processes > 1:
        parts = split(left, processes)
        logs = Path(output, "slots")
        run_side_by_side(
            [partial(work, part, start, together, among=jobs) for part in parts], processes, logs
        )
        text, complete = records.summarize(jobs)
        text += f"\nwarnings and errors: {logs}"
    if complete:  # the folders do not tell results of another configuration; this looks at each
        text, complete = records.summarize(jobs, work(jobs, start, together))
    print(text, file=sys.stderr)
    return complete


def split(jobs: Sequence[Job], processes: int) -> Iterator[Sequence[Job]]:
    """Split the jobs on each data set into a part for each process, of neighbours."""
    for _, group in groupby(jobs, key=lambda job: job.dataset):
        left = list(group)
        size = -(-len(left) // processes)
        yield from (left[i : i + size] for i in range(0, len(left), size))


def work(
    jobs: Sequence[Job], start: Start, together: int = 1, among: Sequence[Job] | None = None
) -> dict[Run, str]:
    """Run jobs in their order; neighbours on one data set share it, its features and the backbone.

    Each run leaves in its folder what it would leave as a process of its own; the terminal gets a
    line when it starts and one when it ends. A run that fails is recorded in its folder's
    ``error.txt``, unless the folder holds results or cannot be written to; the runs that do not
    need its weights go on.

    Args:
        jobs: the jobs.
        start: as for :func:`sweep`.
        together: how many jobs on one data set take turns, and train together if they can.
        among: those that they are numbered among; None: these alone.

    Returns:
        For each run that failed, its message.
    """
    runs = [run for job in among or jobs for run in job.runs]
    names = {run: f"[{i}/{len(runs)}] {run.folder}" for i, run in enumerate(runs, start=1)}
    failures: dict[Run, str] = {}
    for _, group in groupby(jobs, key=lambda job: job.dataset):
        cache: Cache = {}
        tasks = [partial(_do, job, start, cache, names, failures) for job in group]
        if min(together, len(tasks)) > 1:
            turns = Turns(gradients_together)
            cache[MEETING] = turns.meet
            for i in range(0, len(tasks), together):
                turns.run(tasks[i : i + together])
        else:
            for task in tasks:
                task()
    return failures


def _do(
    job: Job, start: Start, cache: Cache, names: Mapping[Run, str], failures: dict[Run, str]
) -> None:
    with _record_failure(job.training, names, failures), _lock_job(job) as mine:
        for run in job.runs if mine else ():
            # results that are there are looked at even if there are no weights
            if job.training not in failures or records.is_finished(run):
                with _record_failure(run, names, failures):
                    _run(run, start, cache, names[run])


def _run(run: Run, start: Start, cache: Cache, name: str) -> None:
    fresh = not records.is_finished(run)
    if fresh:
        print(name, flush=True)
        gc.collect()  # trainers stand in reference cycles, and hold the workers of their loaders
    with _imitate_new_process():
        start(run.argv, cache)
    score = records.score(run)
    (run.folder / records.ERROR).unlink(missing_ok=True)
    if fresh:
        print(f"{name}: {score}", flush=True)


@contextlib.contextmanager
def _record_failure(run: Run, names: Mapping[Run, str], failures: dict[Run, str]) -> Iterator[None]:
    """Let an exception end this run alone: tell it, and put it into its folder and ``failures``."""
    try:
        yield
    except Exception as error:
        failures[run] = " ".join(str(error).split()) or type(error).__name__
        print(f"{names[run]}: failed: {failures[run]}", flush=True)
        if not records.is_finished(run):  # else it is the sweep that is wrong, not these results
            with (
                contextlib.suppress(OSError),  # that may be why it failed
                atomic_write(run.folder / records.ERROR, "w") as file,
            ):
                file.write(f"{failures[run]}\n\n{traceback.format_exc()}")


@contextlib.contextmanager
def _imitate_new_process() -> Iterator[None]:
    """Show warnings again, and keep what a run prints to its log.

    Random generators need nothing, because every run of a sweep seeds them.
    """
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        yield


@contextlib.contextmanager
def _lock_job(job: Job) -> Iterator[bool]:
    """Yield whether no other process works on ``job``.

    Raises:
        OutputDirError: its folder cannot be held; the message says why.
    """
    if all(map(records.is_finished, job.runs)):
        yield True  # nothing is written
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(job.training.folder))
            free = True
        except FolderInUseError:
            free = False
        yield free
