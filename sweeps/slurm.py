"""The jobs of a sweep as a Slurm job array, through submitit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sweeps import SweepError


def submit(
    command: Sequence[str],
    jobs: Iterable[int],
    folder: Path,
    cluster: str = "slurm",
    **parameters: Any,
) -> list[Any]:
    """Submit one array with an element for each job.

    An element that is preempted or reaches its time limit is queued again, and goes on from its
    last checkpoint.

    Args:
        command: does one job when the job's number is added to it.
        jobs: numbers of the jobs, at least one.
        folder: on a disk that all nodes see; takes submitit's files and the logs.
        cluster: ``slurm``, or ``local`` for processes on this machine.
        parameters: of ``submitit.AutoExecutor.update_parameters``; None means Slurm's default.

    Returns:
        A ``submitit.Job`` for each job.

    Raises:
        SweepError: submitit is not installed, there is no Slurm here, or it refuses the jobs.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise SweepError(
            '--launcher slurm needs submitit: pip install "clip-qprompt[slurm]"'
        ) from error
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(name="sweep", **parameters)
        with executor.batch():
            return [executor.submit(_requeued(command, job)) for job in jobs]
    except RuntimeError as error:
        raise SweepError(f"--launcher slurm: {error}") from error


def _requeued(command: Sequence[str], job: int) -> Any:
    from submitit.helpers import CommandFunction, FunctionSequence

    sequence = FunctionSequence()  # the callable that submitit queues again
    sequence.add(CommandFunction([*command, str(job)]))
    return sequence
