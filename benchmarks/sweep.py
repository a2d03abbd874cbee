"""Twelve runs in one process against twelve processes without anything kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Row
from benchmarks.runs import config, train
from dassl.utils import read_json
from sweeps.grid import Grid
from sweeps.jobs import expand

SECTION = "Sweep"
EPOCHS = 2
NOTHING_KEPT = ("TEST.FEATURE_CACHE", "", "DATALOADER.PIXEL_CACHE_MB", "0")


def measure(backbone: str, dataset: str, root: Path, folder: Path, precision: str) -> Iterator[Row]:
    """Yield one row: QCoOp, four bit-widths, three seeds.

    Args:
        backbone: what ``--backbone`` takes.
        dataset: name of a file in ``configs/datasets``.
        root: folder that holds the data set.
        folder: for outputs.
        precision: PREC of the trainers.
    """
    grid: dict[str, Any] = {
        "protocol": "few_shot",
        "trainers": ["QCoOp"],
        "datasets": [dataset],
        "bits": [1, 2, 4, 8],
        "config": config("QCoOp", backbone),
        "opts": {
            "MODEL.BACKBONE.NAME": backbone,
            "OPTIM.MAX_EPOCH": EPOCHS,
            "TRAINER.COOP.PREC": precision,
        },
    }
    apart, together = folder / "apart", folder / "together"
    cache = folder / "cache"
    runs = [run for job in expand([Grid(**grid)], str(root), str(apart)) for run in job.runs]
    commands = [[*run.argv, *NOTHING_KEPT] for run in runs]
    sweep = ["--root", str(root), "--output-dir", str(together), "--sweep", json.dumps(grid)]
    sides = {"12 processes": Measurement(), "one sweep": Measurement()}
    sides["12 processes"].time(lambda: [train(command, cache) for command in commands])
    sides["one sweep"].time(lambda: train(sweep, cache))
    same = sum(
        _metrics(run.folder) == _metrics(together / run.folder.relative_to(apart)) for run in runs
    )
    note = f"16 shots, {EPOCHS} epochs each; equal metrics in {same} of {len(runs)} runs; one round"
    numbers = {"runs": len(runs), "equal_metrics": same}
    yield Row(SECTION, f"12 runs of QCoOp on {dataset}", sides, note, numbers)


def _metrics(folder: Path) -> Any:
    return read_json(folder / "results.json")["metrics"]
