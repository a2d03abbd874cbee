"""Measure what makes training fast, side by side, and write a table.

``python -m benchmarks --output FOLDER`` writes FOLDER/benchmarks.md and FOLDER/benchmarks.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES

from benchmarks import evaluation, kmeans, steps, sweep, text
from benchmarks.measure import Row
from benchmarks.models import PATCH_SIZES, write_weights
from benchmarks.table import to_json, to_markdown
from dassl.utils import atomic_write, write_json

SECTIONS = ("kmeans", "step", "evaluation", "sweep", "text")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("output/benchmarks"))
    add("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections")
    add("--architecture", choices=PATCH_SIZES, default="ViT-B/32", help="with random weights")
    add("--names", type=Path, help="class names, one a line (default: ImageNet's)")
    add("--classes", type=int, default=100, help="classes of the training steps")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--precision", default="fp32", help="PREC of training steps, on a GPU")
    add("--dataset", default="digits", help="of the sweep")
    add("--root", type=Path, help="folder of that data set, unless it is digits")
    return parser.parse_args()


def measure(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Yield the rows of the sections that are asked for."""
    names = args.names.read_text().split("\n") if args.names else IMAGENET_CLASSNAMES
    names = [name for name in names if name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "kmeans" in args.only:
        yield from kmeans.measure()
    if {"step", "evaluation", "sweep"} & set(args.only):
        weights = write_weights(args.architecture, folder)
        if "step" in args.only:
            yield from steps.measure(weights, names[: args.classes], folder, args.precision)
        if "evaluation" in args.only:
            yield from evaluation.measure(weights, folder, args.precision)
        if "sweep" in args.only:
            root = args.root or folder / "data"
            yield from sweep.measure(weights, args.dataset, root, folder / "sweep")
    if "text" in args.only:
        yield from text.measure(args.architecture, names, device)


def machine(args: argparse.Namespace) -> Mapping[str, str]:
    """Return what the numbers depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "architecture": f"{args.architecture}, random weights",
        "processor": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "threads": str(args.threads),
        "GPU": gpu if gpu == "none" else f"{gpu}, {args.precision}",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    rows: list[Row] = []
    described = machine(args)
    with tempfile.TemporaryDirectory() as folder:
        report = sys.stdout
        with contextlib.redirect_stdout(io.StringIO()):  # trainers talk
            for row in measure(args, Path(folder)):
                rows.append(row)
                print(f"{row.section}, {row.name}: {row.ratio:.3g}", file=report, flush=True)
                write_json(to_json(rows, described), args.output / "benchmarks.json")
                with atomic_write(args.output / "benchmarks.md", "w") as file:
                    file.write(to_markdown(rows, described))
    print(f"Written to {args.output}")


if __name__ == "__main__":
    main()
