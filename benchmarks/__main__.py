"""Measure what makes training fast, side by side, and write a table.

``python -m benchmarks --output FOLDER`` writes FOLDER/benchmarks.md and FOLDER/benchmarks.json.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES

import train
from benchmarks import evaluation, kmeans, machine, models, steps, sweep, text, together, whole
from benchmarks.measure import Row
from benchmarks.table import to_json, to_line, to_markdown
from dassl.utils import UserError, atomic_write, mkdir_if_missing, write_json
from trainers.base import PRECISIONS

SECTIONS = ("kmeans", "step", "together", "evaluation", "sweep", "text")
MORE = ("compiled", "whole")  # where they are asked for
GPU_PRECISIONS = ("fp16", "amp", "bf16")


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=Path("output/benchmarks"))
    add("--only", nargs="+", choices=(*SECTIONS, *MORE), default=SECTIONS, help="sections")
    add("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    add(
        "--architecture",
        choices=models.ARCHITECTURES,
        default="ViT-B/32",
        help="with random weights, or the embedded tiny model for a quick trial",
    )
    add("--names", type=Path, help="class names, one a line (default: ImageNet's)")
    add("--classes", type=_positive, help="of steps (100), text (10, 100, 1000)")
    add("--threads", type=_positive, default=torch.get_num_threads())
    add("--precision", choices=PRECISIONS, default="fp32", help="PREC of all but kmeans and text")
    add("--dataset", default="digits", help="of sweep and whole")
    add("--root", type=Path, help="folder of that data set, unless it is digits")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return int(text)


def read_names(path: Path | None, least: int) -> list[str]:
    """Return class names, by default ImageNet's.

    Raises:
        OSError, UserError: there is no such file, or there are fewer than ``least``.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines() if path else IMAGENET_CLASSNAMES
    names = [line for line in lines if line]
    if len(names) < least:
        raise UserError(f"{path or 'ImageNet'} has {len(names)} class names, not {least}")
    return names


def choose_device(name: str | None) -> None:
    """Hide the GPU if the CPU is asked for; UserError: a GPU is asked for, and there is none."""
    if name == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here")


def sizes(args: argparse.Namespace) -> tuple[list[int], Sequence[str]]:
    """Return numbers of classes and precisions of steps; with --device cuda all that there are."""
    every = args.device == "cuda"
    classes = [args.classes] if args.classes else [10, 100, 1000] if every else [100]
    return classes, GPU_PRECISIONS if every else [args.precision]


def measure(args: argparse.Namespace, names: Sequence[str], folder: Path) -> Iterator[Row]:
    """Yield the rows of the sections that are asked for."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "kmeans" in args.only:
        yield from kmeans.measure(device)
    if {"step", "compiled", "together", "evaluation", "sweep", "whole"} & set(args.only):
        backbone = models.backbone(args.architecture, folder)
        for n, precision in itertools.product(*sizes(args)):
            if "step" in args.only:
                yield from steps.measure(backbone, names[:n], folder, precision)
            if "compiled" in args.only:
                yield from steps.measure_compiled(backbone, names[:n], folder, precision)
            if "together" in args.only:
                yield from together.measure(backbone, names[:n], folder, precision)
        if "evaluation" in args.only:
            yield from evaluation.measure(backbone, folder, args.precision)
        data = backbone, args.dataset, args.root or folder / "data"
        if "sweep" in args.only:
            yield from sweep.measure(*data, folder / "sweep", args.precision)
        if "whole" in args.only:
            yield from whole.measure(*data, folder / "whole", args.precision)
    if "text" in args.only:
        classes = [args.classes] if args.classes else [10, 100, 1000]
        yield from text.measure(args.architecture, names, classes, device)


def run(argv: Sequence[str]) -> None:
    """Measure and write; after each row, since the next may take long."""
    args = parse_args(argv)
    choose_device(args.device)
    torch.set_num_threads(args.threads)
    names = read_names(args.names, args.classes or 1)
    mkdir_if_missing(args.output)
    described = machine.describe(argv, args.architecture, args.precision)
    rows: list[Row] = []
    gc.collect()
    gc.freeze()  # else collecting, before each repeat, would walk through all imported objects
    with tempfile.TemporaryDirectory() as folder:
        report = sys.stdout
        with contextlib.redirect_stdout(io.StringIO()):  # trainers talk
            for row in measure(args, names, Path(folder)):
                rows.append(row)
                print(to_line(row), file=report, flush=True)
                write_json(to_json(rows, described), args.output / "benchmarks.json")
                with atomic_write(args.output / "benchmarks.md", "w") as file:
                    file.write(to_markdown(rows, described))
    print(f"Written to {args.output}")


def main(argv: Sequence[str]) -> None:
    try:
        run(argv)
    except train.USER_ERRORS as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
