"""Protocols and grids of runs: one implementation behind the scripts and ``train.py --sweep``.

Grids (:mod:`sweeps.grid`) become jobs (:mod:`sweeps.jobs`) by a protocol (:mod:`sweeps.protocols`):
a training run each, and the evaluations of its weights. Jobs are done in one process
(:mod:`sweeps.work`), by several side by side (:mod:`sweeps.slots`), or as a Slurm job array
(:mod:`sweeps.slurm`). What is finished stands in the runs' folders alone (:mod:`sweeps.records`).
"""

PROTOCOLS = ("base2new", "few_shot", "cross_dataset", "domain_generalization")
TRANSFER = ("cross_dataset", "domain_generalization")  # trained on one data set, tested on others


class SweepError(ValueError):
    """A sweep that cannot be expanded into runs."""
