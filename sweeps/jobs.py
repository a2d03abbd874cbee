"""From grids to what is started: arguments of train.py, and which run needs which."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dassl.utils import check_choice
from sweeps import SweepError
from sweeps.grid import Grid
from sweeps.protocols import CONFIGS, Part, Setting, config_files, plan


class Run(NamedTuple):
    """One start of train.py: the folder that it writes to, and its arguments."""

    folder: Path
    argv: tuple[str, ...]


class Job(NamedTuple):
    """A training run on a data set with a seed, and the evaluations of its weights."""

    dataset: str
    seed: int
    training: Run
    evaluations: tuple[Run, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return (self.training, *self.evaluations)


def expand(grids: Iterable[Grid], root: str, output: str) -> list[Job]:
    """Return the jobs of some grids, each once, next to those that share most with them.

    These are on the same data set, and of these the ones whose seed draws the same images.

    Args:
        grids: the grids.
        root: folder that holds the data sets.
        output: folder that the runs' folders go into.

    Raises:
        SweepError: two grids ask for different runs in one folder, or ``output`` is empty.
        UnknownNameError: a trainer is not registered, or a data set or a configuration has no file.
    """
    if not output:
        raise SweepError("the output folder's name is empty: give one")
    jobs: dict[Path, Job] = {}
    runs: dict[Path, Run] = {}
    for grid in grids:
        for setting, parts in plan(grid):
            opts = {**grid.opts, **grid.variants.get(setting.variant, {})}
            job = _job(setting, parts, opts, root, output)
            for run in job.runs:
                if runs.setdefault(run.folder, run) != run:
                    raise SweepError(
                        f"two grids ask for different runs in {run.folder}: give them configs "
                        "of different names, or make two sweeps with an output folder each"
                    )
            known = jobs.get(job.training.folder, job)
            evaluations = dict.fromkeys(known.evaluations + job.evaluations)
            jobs[job.training.folder] = known._replace(evaluations=tuple(evaluations))
    datasets = list(dict.fromkeys(job.dataset for job in jobs.values()))
    return sorted(jobs.values(), key=lambda job: (datasets.index(job.dataset), job.seed))


def _job(
    setting: Setting, parts: list[Part], opts: Mapping[str, Any], root: str, output: str
) -> Job:
    datasets = {
        path.stem: os.path.relpath(path) for path in sorted(CONFIGS.glob("datasets/*.yaml"))
    }
    weights = Path(output, parts[0].folder)

    def run(part: Part, *flags: str) -> Run:
        own = "/" in part.dataset or os.sep in part.dataset
        dataset = "folder" if own else part.dataset
        check_choice("data set", dataset, datasets)
        folder = Path(output, part.folder)
        pairs = {
            "DATASET.NUM_SHOTS": setting.shots,
            "DATASET.SUBSAMPLE_CLASSES": part.classes,
            **({"TRAINER.QPROMPT.BITS": setting.bits} if setting.bits else {}),
            **({"VARIANT": setting.variant} if setting.variant else {}),
            **opts,
        }
        argv = [
            *("--root", part.dataset if own else root, "--seed", str(setting.seed)),
            *("--trainer", setting.trainer, "--dataset-config-file", datasets[dataset]),
            *("--config-file", config_files(setting.trainer)[setting.config]),
            *("--output-dir", str(folder), *flags),
            *(str(word) for pair in pairs.items() for word in pair),
        ]
        return Run(folder, tuple(argv))

    evaluations = [run(part, "--eval-only", "--model-dir", str(weights)) for part in parts[1:]]
    return Job(parts[0].dataset, setting.seed, run(parts[0]), tuple(evaluations))
