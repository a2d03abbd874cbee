"""Twelve runs in one process against twelve processes without anything kept."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Row
from benchmarks.runs import train
from sweeps.grid import Grid
from sweeps.jobs import expand

SECTION = "Sweep"
EPOCHS = 2
NOTHING_KEPT = ("TEST.FEATURE_CACHE", "", "DATALOADER.PIXEL_CACHE_MB", "0")


def measure(weights: str, dataset: str, root: Path, folder: Path) -> Iterator[Row]:
    """Yield one row: QCoOp, four bit-widths, three seeds.

    Args:
        weights: file of a backbone, or "tiny".
        dataset: "digits" or "eurosat".
        root: folder that holds the data set.
        folder: for outputs.
    """
    config = "tiny" if weights == "tiny" else "vit_b32"
    grid: dict[str, Any] = {
        "protocol": "few_shot",
        "trainers": ["QCoOp"],
        "datasets": [dataset],
        "bits": [1, 2, 4, 8],
        "config": config,
        "opts": {"MODEL.BACKBONE.NAME": weights, "OPTIM.MAX_EPOCH": EPOCHS},
    }
    apart, together = folder / "apart", folder / "together"
    for output in (apart, together):
        shutil.rmtree(output, ignore_errors=True)
    cache = folder / "cache"
    runs = [run for job in expand([Grid(**grid)], str(root), str(apart)) for run in job.runs]
    processes = Measurement([_timed([[*run.argv, *NOTHING_KEPT] for run in runs], cache)])
    arguments = ["--root", str(root), "--output-dir", str(together), "--sweep", json.dumps(grid)]
    sweep = Measurement([_timed([arguments], cache)])
    same = sum(
        json.loads((run.folder / "results.json").read_text())["metrics"]
        == json.loads((together / run.folder.relative_to(apart) / "results.json").read_text())[
            "metrics"
        ]
        for run in runs
    )
    note = f"16 shots, {EPOCHS} epochs each; equal metrics in {same} of {len(runs)} runs; one round"
    sides = {"12 processes": processes, "one sweep": sweep}
    yield Row(SECTION, f"12 runs of QCoOp on {dataset}", sides, note)


def _timed(commands: Sequence[Sequence[str]], cache: Path) -> float:
    begin = time.perf_counter()
    for command in commands:
        train(command, cache)
    return time.perf_counter() - begin
