"""Write down which images are the shots of a seed: ``python -m datasets.shots NAME --root DATA``.

The list, a line for each image, goes to ``split_fewshot/shot_<shots>-seed_<seed>.csv`` in the
folder of the data set. Where there is one, runs take the shots that it names and draw none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError

from .check import NAMES
from .lists import write_shots


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasets.shots", description=__doc__)
    parser.add_argument("name", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--root", required=True, help="the folder that holds the data sets")
    parser.add_argument("--shots", type=int, required=True, help="training images of each class")
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args(argv)
    if args.shots < 1 or args.seed < 0:
        parser.error("--shots must be 1 or more, and --seed 0 or more")
    dataset = DATASET_REGISTRY.get(args.name).at(args.root)
    if dataset.evaluation_only:
        parser.error(f"{args.name} has no training images")
    try:
        splits = dataset.load()
        shots = dataset.few_shot(splits, args.shots, args.seed)
        path = dataset.shots_path(args.shots, args.seed)
        write_shots(path, shots, splits, dataset.image_dir)
    except (UserError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(shots.train)} training images are listed in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
