"""What the protocols consist of: which runs, on which classes, in which folders.

The folders are those that users of CoOp and MaPLe know.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import trainers  # noqa: F401 (registers the trainers)
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import check_choice
from qprompt.dassl import plain_class
from sweeps import TRANSFER, SweepError
from sweeps.grid import Grid

CONFIGS = Path(__file__).parents[1] / "configs"
CONTEXT = {"N_CTX": "nctx", "CSC": "csc", "CLASS_TOKEN_POSITION": "ctp"}  # as CoOp's folders say it


class Setting(NamedTuple):
    """One point of a grid; bits are None where the configuration file says them.

    ``variant`` is the name of one of the grid's variants; empty: none. ``context`` says what the
    keys of CONTEXT are, as in nctx16_cscFalse_ctpend; empty: the trainer has not all of them.
    """

    trainer: str
    config: str
    bits: int | None
    shots: int
    seed: int
    variant: str = ""
    context: str = ""

    @property
    def name(self) -> str:
        """Names of configuration and variant, with the bit-width where the grid sets it."""
        bits = f"{self.bits}bit" if self.bits else ""
        return "_".join(filter(None, [self.config, bits, self.variant]))


class Part(NamedTuple):
    """One run of a protocol: its folder, data set, and classes (all, base or new)."""

    folder: str
    dataset: str
    classes: str


def base2new(setting: Setting, dataset: str) -> list[Part]:
    """Train and test on the first half of the classes, then test on the second."""
    method = f"{setting.trainer}/{setting.name}/seed{setting.seed}"
    common = f"{_called(dataset)}/shots_{setting.shots}/{method}"
    return [
        Part(f"base2new/train_base/{common}", dataset, "base"),
        Part(f"base2new/test_new/{common}", dataset, "new"),
    ]


def few_shot(setting: Setting, dataset: str) -> list[Part]:
    """Train and test on all classes."""
    folder = f"{_called(dataset)}/{_method_with_shots(setting)}/seed{setting.seed}"
    return [Part(folder, dataset, "all")]


def transfer(setting: Setting, source: str, targets: Iterable[str]) -> list[Part]:
    """Train on a source as :func:`few_shot` does, then test on each target."""
    folder = "evaluation" if source == "imagenet" else f"evaluation/{_called(source)}"
    folder = f"{folder}/{_method_with_shots(setting)}"
    return few_shot(setting, source) + [
        Part(f"{folder}/{_called(target)}/seed{setting.seed}", target, "all") for target in targets
    ]


def plain_counterpart(trainer: str) -> str | None:
    """Return the name of the trainer that a registered one quantizes, None if it is plain itself.

    Raises:
        UnknownNameError: no such trainer is registered.
    """
    plain = plain_class(TRAINER_REGISTRY.get(trainer))
    return plain.__name__ if plain else None


def config_files(trainer: str) -> dict[str, str]:
    """Return the paths of a trainer's configuration files, by their names.

    A quantized trainer has those of the plain one as well.
    """
    names = filter(None, [plain_counterpart(trainer), trainer])
    paths = (
        path for name in names for path in sorted((CONFIGS / "trainers" / name).glob("*.yaml"))
    )
    return {path.stem: os.path.relpath(path) for path in paths}


def context_node(trainer: str) -> str:
    """Return the name of a trainer's node if it has all keys of CONTEXT, else nothing."""
    node = getattr(TRAINER_REGISTRY.get(trainer), "node", "")
    return node if CONTEXT.keys() <= get_cfg_default().TRAINER.get(node, {}).keys() else ""


def plan(grid: Grid) -> Iterator[tuple[Setting, list[Part]]]:
    """Yield each point of a grid with its runs: first the training, then what tests its weights.

    Raises:
        SweepError: there is no default for something that the grid leaves open.
        UnknownNameError: a trainer is not registered, or has no such configuration.
    """
    datasets = grid.datasets or _default_datasets(grid)
    trained_on = [grid.source] if grid.protocol in TRANSFER else datasets
    for dataset, shots, seed, trainer, variant in product(
        trained_on, grid.shots, grid.seeds, grid.trainers, grid.variants or [""]
    ):
        is_quantized = plain_counterpart(trainer) is not None
        config = grid.config or _default_config(trainer, dataset, grid.protocol, shots)
        context = _context(trainer, config, {**grid.opts, **grid.variants.get(variant, {})})
        for bits in grid.bits if grid.bits and is_quantized else [None]:
            setting = Setting(trainer, config, bits, shots, seed, variant, context)
            if grid.protocol in TRANSFER:
                yield setting, transfer(setting, dataset, datasets)
            elif grid.protocol == "base2new":
                yield setting, base2new(setting, dataset)
            else:
                yield setting, few_shot(setting, dataset)


def _called(dataset: str) -> str:
    """Return the name of a data set, which may be the path of a folder of images."""
    return os.path.basename(os.path.abspath(dataset))


def _method_with_shots(setting: Setting) -> str:
    method = f"{setting.trainer}/{setting.name}_{setting.shots}shots"
    return f"{method}/{setting.context}" if setting.context else method


def _context(trainer: str, config: str, opts: Mapping[str, Any]) -> str:
    files = config_files(trainer)
    check_choice(f"configuration of {trainer}", config, files)
    node = context_node(trainer)
    values = _values(files[config], node) if node else {}
    said = {key: opts.get(f"TRAINER.{node}.{key}", value) for key, value in values.items()}
    return "_".join(f"{CONTEXT[key]}{value}" for key, value in said.items())


@functools.cache
def _values(file: str, node: str) -> dict[str, Any]:
    """What a configuration file says for the keys of CONTEXT."""
    cfg = get_cfg_default()
    cfg.merge_from_file(file)
    return {key: cfg.TRAINER[node][key] for key in CONTEXT}


@functools.cache
def _defaults() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("defaults.yaml").read_text(encoding="utf-8"))


def _default_config(trainer: str, dataset: str, protocol: str, shots: int) -> str:
    configs = _defaults()["configs"]
    choices = configs.get(trainer) or configs.get(plain_counterpart(trainer), {})
    for key in (dataset, protocol, "default"):
        choice = choices.get(key)
        if isinstance(choice, dict):
            choice = choice.get(dataset) or choice.get(shots) or choice.get("default")
        if choice:
            return choice
    raise SweepError(
        f"there is no published setting of {trainer}: name a file of configs/trainers/{trainer} "
        "as config"
    )


def _default_datasets(grid: Grid) -> list[str]:
    choices = _defaults()["datasets"][grid.protocol]
    if grid.protocol not in TRANSFER:
        return choices
    if grid.source not in choices:
        raise SweepError(
            f"{grid.protocol} has targets of its own from {', '.join(choices)} only: name those "
            f"from {grid.source} as datasets"
        )
    return choices[grid.source]
