"""Numbers from the papers, to stand beside measured ones."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from reporting.catalogue import REAL
from reporting.methods import Method
from reporting.scores import Cell
from reporting.section import Setting

FOLDER = Path(__file__).parent / "published"
BACKBONE, SHOTS, SOURCE = "ViT-B/16", 16, "ImageNet"
_NOT_SCORES = {"dataset", "method", "bits", "source"}


def comparable(setting: Setting) -> bool:
    """Whether the published numbers were measured in this setting."""
    return (
        setting.family == REAL
        and setting.backbone == BACKBONE
        and setting.split == "test"
        and setting.shots == SHOTS
        and setting.source in ("", SOURCE)
    )


def read(name: str) -> dict[str, dict[Method, dict[str, Cell]]]:
    """Read ``published/<name>.csv``: by data set ("" where columns are data sets) and method."""
    found: dict[str, dict[Method, dict[str, Cell]]] = defaultdict(dict)
    with open(FOLDER / f"{name}.csv", encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            bits = int(line["bits"]) if line["bits"] else None
            zero_shot = line["method"] == "CLIP"
            method = Method(line["method"], bits, zero_shot=zero_shot, source=line["source"])
            found[line.get("dataset", "")][method] = {
                column: Cell(float(value))
                for column, value in line.items()
                if column not in _NOT_SCORES and value
            }
    return dict(found)
