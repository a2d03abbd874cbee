"""What a sweep file says: protocols, trainers, bit-widths, data sets, shots and seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from dassl.utils import UnknownNameError, UserError, check_choice, parse_yaml
from qprompt.quantizer import MAX_BITS
from sweeps import PROTOCOLS, SweepError

# keys that opts may not set, and why
_RESERVED = {
    **dict.fromkeys(
        (
            "DATASET.ROOT",
            "DATASET.NAME",
            "DATASET.NUM_SHOTS",
            "DATASET.SUBSAMPLE_CLASSES",
            "OUTPUT_DIR",
            "SEED",
            "TRAINER.NAME",
            "TRAINER.QPROMPT.BITS",
            "VARIANT",
        ),
        "which the grid itself sets for each run",
    ),
    "RESUME": "but each run resumes from its own checkpoints",
    "TEST.NO_TEST": "but a sweep needs the results of the tests",
}


_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.,=+-]{0,99}")


@dataclass(frozen=True)
class Grid:
    """Every combination of its lists, run by one protocol.

    Args:
        protocol: base2new, few_shot, cross_dataset or domain_generalization.
        trainers: registered names, e.g. CoOp, QCoOp.
        datasets: names of files in ``configs/datasets``, or paths, with a slash, of folders of own
            images; for the transfer protocols those that are tested on (empty: the papers').
        bits: bit-widths of the quantized trainers, 1 to 8 (empty: what their configuration says).
        shots: training images of each class.
        seeds: seeds, 0 or more.
        config: name of a file in ``configs/trainers/<trainer>`` (empty: the published setting).
        source: data set that the transfer protocols train on.
        opts: further configuration keys and values, for every run.
        variants: sets of further keys and values by name, each of them with every run; the name
            becomes part of the folders' names and of the reports' rows (empty: none).

    Raises:
        SweepError: a value is of the wrong type, out of range, or missing.
        UnknownNameError: there is no such protocol.
    """

    protocol: str
    trainers: tuple[str, ...]
    datasets: tuple[str, ...] = ()
    bits: tuple[int, ...] = ()
    shots: tuple[int, ...] = (16,)
    seeds: tuple[int, ...] = (1, 2, 3)
    config: str = ""
    source: str = "imagenet"
    opts: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("protocol", self.protocol, PROTOCOLS)
        for name, kind, least in (
            ("trainers", str, 1),
            ("datasets", str, 0),
            ("bits", int, 0),
            ("shots", int, 1),
            ("seeds", int, 1),
        ):
            object.__setattr__(self, name, _list_of(name, getattr(self, name), kind, least))
        for name in ("config", "source"):
            if not isinstance(getattr(self, name), str):
                raise SweepError(f"{name} must be a name, got {getattr(self, name)!r}")
        for name, least in (("bits", 1), ("shots", 1), ("seeds", 0)):
            if wrong := [value for value in getattr(self, name) if value < least]:
                raise SweepError(f"{name} must be {least} or more, got {wrong[0]}")
        if self.bits and max(self.bits) > MAX_BITS:
            raise SweepError(f"bits must be {MAX_BITS} or less, got {max(self.bits)}")
        if not isinstance(self.variants, Mapping):
            raise SweepError(f"variants must map names to keys and values, got {self.variants!r}")
        for name in self.variants:
            if not isinstance(name, str) or not _VARIANT.fullmatch(name):
                raise SweepError(
                    f"the name of a variant becomes part of a folder's name and has 1 to 100 "
                    f"letters, digits and . , = + -, got {name!r}"
                )
        variants = {f"variant {name}": opts for name, opts in self.variants.items()}
        for origin, opts in {"opts": self.opts, **variants}.items():
            if not isinstance(opts, Mapping):
                raise SweepError(f"{origin} must map configuration keys to values, got {opts!r}")
            for key, why in _RESERVED.items():
                if key in opts:
                    raise SweepError(f"{origin} sets {key}, {why}: leave it out")


def read_grids(sweep: str) -> list[Grid]:
    """Read one grid or a list of grids.

    Args:
        sweep: a YAML file; or the YAML itself, when it starts with ``{`` or ``[``.

    Raises:
        FileNotFoundError: there is no such file.
        SweepError: it is not YAML, or not of this form; the message names the place.
    """
    inline = sweep.startswith(("{", "["))
    origin = "the sweep" if inline else f'the sweep file "{sweep}"'
    try:
        text = sweep if inline else Path(sweep).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SweepError(f"{origin} is not UTF-8 ({error}): save it as that") from error
    try:
        content = parse_yaml(text, origin)
    except UserError as error:
        raise SweepError(str(error)) from error
    nodes = content if isinstance(content, list) else [content]
    if not nodes:
        raise SweepError(f"{origin} names no grid: give one, or a list of them")
    try:
        return [_grid(node) for node in nodes]
    except (SweepError, UnknownNameError) as error:
        raise SweepError(f"{origin}: {error}") from error


def write_grids(grids: Iterable[Grid]) -> str:
    """Return grids as inline YAML, from which :func:`read_grids` reads the same ones."""
    nodes = [asdict(grid) for grid in grids]
    return yaml.safe_dump(nodes, default_flow_style=True, sort_keys=False, width=float("inf"))


def _grid(node: object) -> Grid:
    if not isinstance(node, Mapping):
        raise SweepError(f"expected keys and values, or a list of such grids, got {node!r}")
    for key in node:
        check_choice("key", key, [f.name for f in fields(Grid)])
    for key in ("protocol", "trainers"):
        if key not in node:
            raise SweepError(f"the key {key} is missing")
    return Grid(**node)


def _list_of(name: str, values: object, kind: type, least: int) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or any(type(value) is not kind for value in values):
        noun = "names" if kind is str else "whole numbers"
        raise SweepError(f"{name} must be a list of {noun}, got {values!r}")
    if len(values) < least:
        raise SweepError(f"{name} is empty: name at least one")
    return tuple(dict.fromkeys(values))
