"""What the folder names of CoOp's and MaPLe's scripts say of a run.

base2new/train_base/<dataset>/shots_16/<trainer>/<config>/seed1
<dataset>/<trainer>/<config>_16shots/seed1
evaluation/<trainer>/<config>_16shots/<dataset>/seed1
"""

from __future__ import annotations

import re
from pathlib import Path

from reporting.catalogue import FILE_NAMES
from reporting.run import Config

_DATASETS = {file_name: name for name, file_name in FILE_NAMES.items()}
_BACKBONES = {
    "vit_b16": "ViT-B/16",
    "vit_b32": "ViT-B/32",
    "vit_l14": "ViT-L/14",
    "rn50": "RN50",
    "rn101": "RN101",
    "tiny": "tiny",
}
_CONFIG = re.compile(rf"({'|'.join(_BACKBONES)})(?![a-z0-9])")
_SHOTS = re.compile(r"shots_(\d+)$|.*_(\d+)shots$")
_SEED = re.compile(r"seed(\d+)$")


def config_of_names(folder: Path) -> Config | None:
    """Read data set, trainer, backbone, shots, seed and subset from a path, if it names them."""
    config: dict[str, object] = {}
    previous = ""
    for part in folder.parts:
        if part in _DATASETS:
            config["DATASET.NAME"] = _DATASETS[part]
        elif part in ("train_base", "test_base"):
            config["DATASET.SUBSAMPLE_CLASSES"] = "base"
        elif part == "test_new":
            config["DATASET.SUBSAMPLE_CLASSES"] = "new"
        elif match := _SEED.match(part):
            config["SEED"] = int(match[1])
        elif match := _CONFIG.match(part):
            config["MODEL.BACKBONE.NAME"] = _BACKBONES[match[1]]
            config["TRAINER.NAME"] = previous
        if match := _SHOTS.match(part):
            config["DATASET.NUM_SHOTS"] = int(match[1] or match[2])
        previous = part
    return config if {"DATASET.NAME", "SEED", "TRAINER.NAME"} <= config.keys() else None
