"""What the measurements of trainers share: a small data set, weights, and command lines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from qprompt.clip.weights import TINY_NAME

REPOSITORY = Path(__file__).parents[1]


def make_images(root: Path, names: Sequence[str], size: int = 96) -> None:
    """Write class folders of four noisy images each, for ``configs/datasets/folder.yaml``."""
    rng = np.random.default_rng(0)
    for name in names:
        folder = root / name.replace("/", " ")
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")


def config(trainer: str, backbone: str) -> str:
    """Return the name of a trainer's configuration: the published setting, or the tiny model's."""
    if backbone == TINY_NAME:
        return TINY_NAME
    return "vit_b16_c2_ep5_batch4_2ctx" if "MaPLe" in trainer else "vit_b16"


def arguments(
    trainer: str, dataset: str, root: Path, backbone: str, output: Path, *opts: object
) -> list[str]:
    """Return the arguments of train.py for a run with seed 1."""
    return [
        *("--root", str(root), "--seed", "1", "--trainer", trainer, "--backbone", backbone),
        *("--dataset-config-file", f"configs/datasets/{dataset}.yaml"),
        *("--config-file", f"configs/trainers/{trainer}/{config(trainer, backbone)}.yaml"),
        *("--output-dir", str(output)),
        *map(str, opts),
    ]


def train(arguments: Sequence[str], cache: Path) -> None:
    """Run train.py as a process of its own; raise RuntimeError with its last lines if it fails."""
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"train.py failed: {done.stderr[-2000:]}")
