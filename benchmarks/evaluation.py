"""Evaluation of a frozen image tower, with its features kept from an earlier run or not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import train
from benchmarks.measure import Row, compare
from benchmarks.runs import arguments
from dassl.engine import build_trainer

SECTION = "Evaluation"


def measure(backbone: str, folder: Path, precision: str) -> Iterator[Row]:
    """Yield one row: CoOp's prompts, untrained, on the new half of digits.

    Args:
        backbone: what ``--backbone`` takes.
        folder: for images, features and outputs.
        precision: PREC of the trainer.
    """
    cache = folder / "features"

    def evaluate(features: str) -> int:
        output = folder / "evaluated"
        shutil.rmtree(output, ignore_errors=True)
        opts = ("DATASET.NUM_SHOTS", 16, "DATASET.SUBSAMPLE_CLASSES", "new")
        opts += ("TEST.FEATURE_CACHE", features, "TRAINER.COOP.PREC", precision)
        given = arguments("CoOp", "digits", folder / "data", backbone, output, *opts)
        trainer = build_trainer(train.setup_cfg(train.parse_args(given)))
        trainer.test()
        return len(trainer.dm.dataset.test)

    sides = {"not kept": lambda: evaluate(""), "kept": lambda: evaluate(str(cache))}
    measured, images = compare(sides, repeats=3)
    note = "building the trainer and reading the weights included"
    yield Row(SECTION, f"CoOp, {images['kept']} images", measured, note)
