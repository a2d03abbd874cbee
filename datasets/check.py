"""Say of each data set whether it is there and whole: ``python -m datasets.check --root DATA``.

The exit status is 1 if a data set that is there, or that was named, has a problem. Nothing is
written: neither splits nor the data sets that are made at their first use.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import datasets
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import ImageReadError, UserError, check_images, print_anything, read_image

from .base import GeneratedDataset
from .splits import MissingImagesError, Splits

NAMES = sorted(set(datasets.__all__) - {"Folder"})  # Folder is the root itself


@dataclass
class Report:
    """What was found of one data set.

    Args:
        name: its registered name.
        found: whether its folder exists.
        splits: the full split, as far as it could be made out.
        missing: number of images of the split that do not exist.
        problem: why it cannot be used, "" if it can.
        note: what is worth knowing besides.
    """

    name: str
    found: bool
    splits: Splits | None = None
    missing: int = 0
    problem: str = ""
    note: str = ""

    def row(self) -> list[str]:
        """Return the cells of a table: name, state, classes, train, val, test, missing, remark."""
        state = "broken" if self.found and self.problem else "yes" if self.found else "no"
        counts = [""] * 5
        if self.splits:
            labels = {item.label for item in chain(*self.splits)}
            counts = [f"{n:,}" for n in (len(labels), *map(len, self.splits), self.missing)]
        return [self.name, state, *counts, self.problem or self.note]


def check(name: str, root: str, decode: bool = False) -> Report:
    """Look a data set over.

    Args:
        name: a registered name.
        root: the folder that holds the data sets.
        decode: whether to decode every image, which is slow.
    """
    dataset = DATASET_REGISTRY.get(name).at(root)
    generated = isinstance(dataset, GeneratedDataset)
    if not os.path.isdir(dataset.image_dir if generated else dataset.dataset_dir):
        return Report(name, found=False, note="made at its first use" if generated else "")
    try:
        splits = dataset.find()
    except MissingImagesError as error:
        return Report(name, True, error.splits, len(error.missing), problem=str(error))
    except UserError as error:
        return Report(name, True, problem=str(error))
    problem = _corrupt(splits) if decode else ""
    note = "; ".join(dataset.differences(splits))
    return Report(name, True, splits, problem=problem, note=note)


def _corrupt(splits: Splits) -> str:
    """Return the error of the images that cannot be decoded, "" if there are none."""
    try:
        check_images(list(dict.fromkeys(item.impath for item in chain(*splits))), read_image)
    except ImageReadError as error:
        return str(error)
    return ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of eight cells, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if 1 < i < 7 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasets.check", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets; default: all")
    parser.add_argument("--root", required=True, help="the folder that holds the data sets")
    parser.add_argument("--images", action="store_true", help="decode every image, too (slow)")
    args = parser.parse_args(argv)
    print_anything()
    if unknown := sorted(set(args.names) - {*NAMES, "Folder"}):
        parser.error(f"unknown data set {unknown[0]!r}; choose from {', '.join(NAMES)}, Folder")
    header = ["data set", "found", "classes", "train", "val", "test", "missing", ""]
    reports = [check(name, args.root, args.images) for name in args.names or NAMES]
    print(table([header, *(report.row() for report in reports)]))
    return int(any(r.problem or (args.names and not r.found) for r in reports))


if __name__ == "__main__":
    sys.exit(main())
