"""Run one protocol, a grid of runs, or a sweep file: the program behind the scripts.

Defaults come from the environment: DATA (folder of the data sets), OUTPUT (of the results), CFG
(name of the trainers' configuration file), SHOTS, SOURCE (what the transfer protocols train on),
and NCTX, CSC and CTP (number of context vectors, whether each class has its own, and where the
class name stands).
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps import PROTOCOLS, TRANSFER, SweepError

# What else there is in sweeps imports torch, for seconds: it waits until there is a sweep.
if TYPE_CHECKING:
    from sweeps.grid import Grid

TRAIN = Path(__file__).parents[1] / "train.py"
CONFIGS = Path(__file__).parents[1] / "configs"
MAX_BITS = 8  # as qprompt has it


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sweeps", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for protocol in PROTOCOLS:
        command = commands.add_parser(protocol, help="one trainer, with CoOp's arguments")
        _add_grid(command, positional=_positional(protocol))
        if protocol != "base2new":
            _add_context(command)
    command = commands.add_parser("grid", help="all combinations of lists")
    command.add_argument("--protocol", choices=PROTOCOLS, required=True)
    _add_grid(command)
    command = commands.add_parser("file", help="what a sweep file says (docs/sweeps.md)")
    command.add_argument("file")
    _add_replacements(command)
    for command in commands.choices.values():
        _add_launcher(command)
    args = parser.parse_args(argv)
    if len(getattr(args, "opts", None) or ()) % 2:
        parser.error(f"argument --opts: takes KEY VALUE pairs, and {args.opts[-1]} has no value")
    if getattr(args, "shots", None):  # texts, where SHOTS says them
        try:
            args.shots = [_from(1)(str(number)) for number in args.shots]
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --shots, or SHOTS: {error}")
    for trainer in getattr(args, "trainers", None) or ():
        if args.config:
            try:
                _known(args.config, _configs(trainer))
            except argparse.ArgumentTypeError as error:
                parser.error(f"argument --config, or CFG: for {trainer} {error}")
    return args


def _positional(protocol: str) -> tuple[str, ...]:
    """The arguments of a protocol's script, in the order of CoOp's and MaPLe's scripts."""
    named = {"base2new": ("datasets",), "few_shot": ("datasets", "shots")}.get(protocol, ())
    return ("trainers", *named, "seeds", "bits")


def _add_grid(command: argparse.ArgumentParser, positional: Sequence[str] = ()) -> None:
    env = os.environ.get
    singular = {"trainers": "TRAINER", "datasets": "DATASET", "seeds": "SEED"}
    lists: dict[str, dict[str, Any]] = {
        "trainers": {"type": _trainer},
        "datasets": {"type": _dataset},
        "shots": {"type": _from(1), "default": env("SHOTS", "").split()},
        "seeds": {"type": _from(0)},
        "bits": {"type": _from(1, MAX_BITS)},
    }
    for name in positional:
        nargs = "*" if name == "bits" else 1
        kind = lists.pop(name)["type"]
        command.add_argument(name, nargs=nargs, type=kind, metavar=singular.get(name, name.upper()))
    for name, options in lists.items():
        metavar = singular.get(name, name.upper())
        command.add_argument(f"--{name}", nargs="*", metavar=metavar, **options)
    command.add_argument("--config", default=env("CFG"), help="file in configs/trainers/TRAINER")
    transfer = f"for {' and '.join(TRANSFER)}"
    command.add_argument("--source", type=_dataset, default=env("SOURCE"), help=transfer)
    command.add_argument("--opts", nargs="+", help="KEY VALUE ...: a variant of the configuration")


def _add_context(command: argparse.ArgumentParser) -> None:
    """What CoOp's scripts have, and its folders are named after."""
    env, add = os.environ.get, command.add_argument
    add("--nctx", type=_from(1), default=env("NCTX") or None, help="context vectors")
    csc, ctp = ("False", "True"), ("end", "middle", "front")
    add("--csc", type=lambda v: _known(v, csc), default=env("CSC") or None, help=" or ".join(csc))
    add("--ctp", type=lambda v: _known(v, ctp), default=env("CTP") or None, help=" or ".join(ctp))


def _add_replacements(command: argparse.ArgumentParser) -> None:
    """What stands in place of a sweep file's own, in each of its grids."""
    add = command.add_argument
    add("--datasets", nargs="+", type=_dataset, metavar="DATASET", help="other data sets")
    add("--config", help="another file in configs/trainers/TRAINER, which names the backbone")
    for name in ("seeds", "shots", "bits"):
        add(f"--{name}", nargs="+", type=int, metavar=name.upper(), help=f"other {name}")


def _trainer(name: str) -> str:
    names = sorted(path.name for path in CONFIGS.glob("trainers/*") if path.is_dir())
    # a quantized trainer may take the files of its plain counterpart
    return _known(name, [*names, *(f"Q{plain}" for plain in names if plain[0] != "Q")])


def _configs(trainer: str) -> list[str]:
    folders = (trainer, trainer.removeprefix("Q"))
    files = (path for name in folders for path in CONFIGS.glob(f"trainers/{name}/*.yaml"))
    return sorted({path.stem for path in files})


def _dataset(name: str) -> str:
    if os.path.isdir(name):  # of one's own images
        return name
    return _known(name, sorted(path.stem for path in CONFIGS.glob("datasets/*.yaml")))


def _known(name: str, names: Sequence[str]) -> str:
    if name not in names:
        close = difflib.get_close_matches(name, names) or names
        raise argparse.ArgumentTypeError(f'there is no "{name}", but {", ".join(close)}')
    return name


def _from(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return what turns a text into a whole number of a range."""

    def number(text: str) -> int:
        allowed = f"{least} or more" if most == math.inf else f"from {least} to {most}"
        if not re.fullmatch("-?[0-9]+", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f'must be a whole number {allowed}, got "{text}"')
        return int(text)

    return number


def _add_launcher(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    env, home = os.environ.get, os.path.expanduser
    add("--root", type=home, default=env("DATA", "data"), help="folder of the data sets")
    add("--output", type=home, default=env("OUTPUT", "output"), help="folder of the results")
    add("--dry-run", action="store_true", help="print the commands and run nothing")
    add("--jobs", type=_from(1), metavar="N", help="how many go side by side (Slurm: at most)")
    add("--together", metavar="N", help="how many train together at most in a process")
    add("--launcher", choices=("process", "slurm"), default="process")
    add("--partition", help="Slurm: partition")
    add("--minutes", type=_from(1), default=240, help="Slurm: time limit of a job")
    add("--gpus", type=_from(0), default=1, help="Slurm: GPUs of a job")
    add("--cpus", type=_from(1), default=8, help="Slurm: cores of a job")


def _grids(args: argparse.Namespace) -> list[Grid]:
    """The grids that the command line asks for."""
    from sweeps.grid import Grid, read_grids

    given = {"protocol": args.command, **vars(args)}
    node = {f.name: given[f.name] for f in fields(Grid) if given.get(f.name)}
    if args.command == "file":
        del node["protocol"]
        return [replace(grid, **node) for grid in read_grids(args.file)]
    if words := node.pop("opts", []):
        opts = dict(zip(words[::2], words[1::2], strict=True))
        name = ",".join(f"{key}={value}" for key, value in opts.items())
        node["variants"] = {re.sub(r"[^A-Za-z0-9.,=+-]", "-", name): opts}
    return [Grid(**node, opts=_context(given))]


def _context(given: Mapping[str, Any]) -> dict[str, Any]:
    from sweeps.protocols import CONTEXT, context_node

    values = {key: given[flag] for key, flag in CONTEXT.items() if given.get(flag) is not None}
    if not values:
        return {}
    (trainer,) = given["trainers"]
    node = context_node(trainer)
    if not node:
        raise SweepError(
            f"{trainer} lacks one of the keys {', '.join(CONTEXT)}, which NCTX, CSC and CTP set: "
            "leave these out"
        )
    return {f"TRAINER.{node}.{key}": value for key, value in values.items()}


def launch(args: argparse.Namespace) -> bool:
    """Do what the command line says; return whether nothing is left to do.

    Raises:
        ValueError: the sweep cannot be expanded or launched.
    """
    from sweeps import records, slurm
    from sweeps.grid import write_grids
    from sweeps.jobs import expand

    grids = _grids(args)
    jobs = expand(grids, args.root, args.output)
    if args.dry_run:
        for run in (run for job in jobs for run in job.runs):
            print(f"python {os.path.relpath(TRAIN)} {shlex.join(run.argv)}")
        return True
    command = [sys.executable, str(TRAIN), "--root", args.root, "--output-dir", args.output]
    command += ["--sweep", write_grids(grids)]  # not the file, which may change before they start
    if args.launcher == "slurm":
        left = [i for i, job in enumerate(jobs) if not all(map(records.is_finished, job.runs))]
        logs = Path(args.output, "slurm")
        if left:
            slurm.submit(
                [*command, "--sweep-job"],
                left,
                logs,
                timeout_min=args.minutes,
                gpus_per_node=args.gpus or None,
                cpus_per_task=args.cpus,
                slurm_partition=args.partition,
                slurm_array_parallelism=args.jobs,
            )
        print(f"{len(left)} of {len(jobs)} jobs submitted; their logs: {logs}")
        return True
    how = {"--together": args.together or "auto", "--jobs": str(args.jobs or "auto")}
    sys.argv = [*command[1:], *(word for pair in how.items() for word in pair)]
    runpy.run_path(str(TRAIN), run_name="__main__")  # in this process, which has imported torch
    return True


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from dassl.utils import UserError, exit_on_signals, message, print_anything

    print_anything()
    try:
        with exit_on_signals():
            sys.exit(not launch(args))
    except (OSError, SweepError, UserError) as error:
        sys.exit(f"error: {message(error)}")


if __name__ == "__main__":
    main()
