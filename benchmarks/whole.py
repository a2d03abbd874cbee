"""A whole run and a whole table of one data set, from runs of few epochs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import train
from benchmarks import runs
from benchmarks.measure import Measurement, Row
from sweeps.grid import Grid
from sweeps.jobs import expand

SECTION = "Whole runs"
EPOCHS = (1, 11)
DATASETS = 11  # of the papers

WORK: dict[str, dict[str, Any]] = {
    "few-shot run": {"protocol": "few_shot", "trainers": ["QCoOp"], "bits": [1], "seeds": [1]},
    "base-to-new table": {"protocol": "base2new", "trainers": ["CoOp", "QCoOp"], "bits": [1, 2, 4]},
}


def measure(backbone: str, dataset: str, root: Path, folder: Path, precision: str) -> Iterator[Row]:
    """Yield a row for a run and one for a table of 12 runs with their tests.

    What an epoch takes and what all else takes follow from the seconds of two numbers of epochs.

    Args:
        backbone, dataset, root, folder, precision: as for :func:`benchmarks.sweep.measure`.
    """
    opts = {"MODEL.BACKBONE.NAME": backbone, "TRAINER.COOP.PREC": precision}
    common = {"datasets": [dataset], "config": runs.config("CoOp", backbone), "opts": opts}
    train_sweep = partial(_sweep, root, folder)
    train_sweep("first", {**common, **WORK["few-shot run"]}, 1)  # makes images and their features
    for name, work in WORK.items():
        grid = {**common, **work}
        sides = {f"MAX_EPOCH {n}": Measurement() for n in EPOCHS}
        for side, n in zip(sides.values(), EPOCHS, strict=True):
            side.time(partial(train_sweep, name, grid, n))
        few, more = (side.median for side in sides.values())
        epoch = (more - few) / (EPOCHS[1] - EPOCHS[0])
        [first, *_] = expand([Grid(**grid)], str(root), str(folder))
        epochs = train.setup_cfg(train.parse_args(first.training.argv)).OPTIM.MAX_EPOCH
        minutes = (few + (epochs - EPOCHS[0]) * epoch) / 60
        note = (
            f"extrapolated to the {epochs} epochs of the setting {minutes:.3g} minutes, "
            f"and to {DATASETS} data sets of this size {DATASETS * minutes:.3g}"
        )
        yield Row(SECTION, f"{name} of {dataset}, {precision}", sides, note, {"minutes": minutes})


def _sweep(root: Path, folder: Path, name: str, grid: dict[str, Any], epochs: int) -> None:
    grid = {**grid, "opts": {**grid["opts"], "OPTIM.MAX_EPOCH": epochs}}
    output = folder / f"{name}-{epochs}"
    arguments = ["--root", str(root), "--output-dir", str(output), "--sweep", json.dumps(grid)]
    runs.train(arguments, folder / "cache")
