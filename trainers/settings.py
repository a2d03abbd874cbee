"""Evaluation takes the settings that shape a prompt from where the prompt was trained."""

from __future__ import annotations

import functools
import json
import operator
import os
import warnings
from collections.abc import Container, Sequence
from contextlib import suppress
from typing import Any

from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY, results
from dassl.utils import UserError, load_checkpoint, read_json
from dassl.utils.checkpoint import find_checkpoint
from qprompt import PackedFileError
from qprompt.dassl import own_nodes, plain_class
from qprompt.dassl_config import TRAINING_KEYS
from qprompt.packed_file import PackedFile
from qprompt.parametrization import recorded_options

Settings = dict[str, Any]  # a part of a configuration, as nested dicts of JSON values


def assign(cfg: CfgNode, key: str, value: Any) -> None:
    """Set a dotted key to a value as it is; a list becomes a tuple where there is one."""
    *parents, name = key.split(".")
    node = functools.reduce(operator.getitem, parents, cfg)
    node[name] = tuple(value) if isinstance(node[name], tuple) else value


def take_settings(
    cfg: CfgNode, default: CfgNode, given: Container[str], weights: str, epoch: int | None = None
) -> None:
    """Set in ``cfg``, as they were when some weights were trained, the settings that shape them.

    These are the trainer, its nodes but for PREC and what else matters in training alone, the
    backbone, and INPUT, of which a packed prompt knows what evaluation reads. A checkpoint that no
    config.json lies above shows what its quantizers do.

    Args:
        cfg: what the user gave, on top of the defaults.
        default: the defaults.
        given: the keys that stood on the command line.
        weights: the folder of a run, a checkpoint or a packed prompt; if it is not there, nothing
            is set.
        epoch: which checkpoint of a folder; None: the best, or else the last.

    Raises:
        UserError: the command line gives something else; the message names keys, both values and
            the file. A line says so where a configuration file did, and is not followed.
            Or neither the user nor the file says which trainer it is.
        CheckpointError, PackedFileError: a file is damaged.
    """
    origin, recorded = _recorded(weights, epoch, cfg)
    trained_by = recorded.get("TRAINER", {}).pop("NAME", None) or cfg.TRAINER.NAME
    if weights and not trained_by:
        lack = (
            "does not say whose it is: give --trainer" if os.path.exists(origin) else "is missing"
        )
        raise UserError(f'"{origin}" {lack}')
    if not recorded:
        return
    cfg.TRAINER.NAME = cfg.TRAINER.NAME or trained_by
    differing = []
    trainer = source = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if trained_by in TRAINER_REGISTRY.registered_names():
        source = TRAINER_REGISTRY.get(trained_by)
    unpacks = origin.endswith(".safetensors") and plain_class(source) is trainer
    quantizes = plain_class(trainer) is source
    if trained_by != cfg.TRAINER.NAME and not (unpacks or quantizes):
        differing.append(("TRAINER.NAME", cfg.TRAINER.NAME, trained_by))
    own = own_nodes(trainer, cfg.TRAINER).keys() & own_nodes(source, cfg.TRAINER).keys()
    shaping = ("MODEL.BACKBONE.NAME", "INPUT.", *(f"TRAINER.{name}." for name in own))
    here, defaults = (dict(results.flatten(results.config_dict(c))) for c in (cfg, default))
    for key, value in results.flatten(recorded):
        shapes = key.startswith(shaping) and key.rpartition(".")[2] not in TRAINING_KEYS
        if not shapes or here.get(key, value) == value:
            continue
        if key in given:
            differing.append((key, here[key], value))
            continue
        if here[key] != defaults[key]:
            print(f'{key} is {json.dumps(value)}, as "{origin}" says, not {json.dumps(here[key])}')
        assign(cfg, key, value)
    if "INPUT" not in recorded and cfg.INPUT == default.INPUT:
        warnings.warn(
            f'nothing says how images are prepared for "{origin}": INPUT keeps the defaults of '
            "Dassl, not CLIP's; give the --config-file that it was trained with",
            stacklevel=3,
        )
    if differing:
        details = "; ".join(
            f"{key} is {json.dumps(mine)}, and was {json.dumps(theirs)}"
            for key, mine, theirs in differing
        )
        raise UserError(
            f'"{origin}" says that these weights were trained otherwise: {details}. Leave that '
            "out, or add --use-given-settings to evaluate with it all the same"
        )


def _recorded(weights: str, epoch: int | None, cfg: CfgNode) -> tuple[str, Settings]:
    """Return a file that says how weights were trained, and which settings it names."""
    if not os.path.exists(weights):
        return weights, {}
    if weights.endswith(".safetensors"):
        return weights, _of_packed_prompt(weights, cfg.INPUT.TRANSFORMS)
    run = weights if os.path.isdir(weights) else os.path.dirname(os.path.dirname(weights))
    record = os.path.join(run, "config.json")
    if os.path.isfile(record):
        try:
            config = read_json(record)["config"]
            return record, {key: dict(config[key]) for key in ("TRAINER", "MODEL", "INPUT")}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'"{record}" is not the record of a run: restore it, or move it away'
            ) from error
    trainer = cfg.TRAINER.NAME
    if trainer and plain_class(TRAINER_REGISTRY.get(trainer)):
        return _of_checkpoint(weights, epoch)
    return weights, {}


def _of_packed_prompt(path: str, transforms: Sequence[str]) -> Settings:
    packed = PackedFile.read(path)
    origin, run = packed.metadata, results.trained_with(path) or {}
    try:
        nodes = dict(json.loads(origin.get("settings", "{}")))
        image = _read_input(json.loads(origin.get("input", "null")), transforms)
    except (ValueError, TypeError, KeyError) as error:
        raise PackedFileError(
            f"'{path}' names settings that cannot be read ({error}); copy or pack it again"
        ) from error
    if not nodes:  # as version 0.1.0 packed it
        nodes = dict(run.get("TRAINER", {}))
        if not run:
            warnings.warn(
                f'"{path}" does not say which settings it was trained with, as files of version '
                "0.1.0, and lies outside its run: give its --config-file and keys",
                stacklevel=4,
            )
        for tensor in packed.quantized.values():
            nodes["QPROMPT"] = {**nodes.get("QPROMPT", {}), "BITS": tensor.bits}
    settings: Settings = {"TRAINER": {**nodes, "NAME": origin.get("trainer")}}
    if "backbone" in origin:
        settings["MODEL"] = {"BACKBONE": {"NAME": origin["backbone"]}}
    if image or "INPUT" in run:  # files of version 0.1.0 do not say it
        settings["INPUT"] = image or run["INPUT"]
    return settings


def _read_input(recorded: Any, transforms: Sequence[str]) -> Settings:
    """Return the node INPUT of what ``qprompt.dassl_config.describe_data`` wrote.

    Args:
        recorded: how images were prepared; None: not known.
        transforms: the given ones, which differ from those of training without harm, as long as
            images are normalised.
    """
    if recorded is None:
        return {}
    keys = {"SIZE": "size", "INTERPOLATION": "interpolation"}
    keys |= {"PIXEL_MEAN": "mean", "PIXEL_STD": "std"}
    node = {key: recorded[name] for key, name in keys.items()}
    if "normalize" not in transforms and (any(node["PIXEL_MEAN"]) or set(node["PIXEL_STD"]) != {1}):
        node["TRANSFORMS"] = [*transforms, "normalize"]
    return node


def _of_checkpoint(weights: str, epoch: int | None) -> tuple[str, Settings]:
    if os.path.isdir(weights):
        for model in sorted(os.listdir(weights)):
            with suppress(FileNotFoundError):
                return _of_checkpoint(find_checkpoint(os.path.join(weights, model), epoch), epoch)
        return weights, {}
    checkpoint = load_checkpoint(weights)
    state = checkpoint.get("state_dict", checkpoint)
    options = recorded_options({name.removeprefix("module."): t for name, t in state.items()})
    node = {name.upper(): value for name, value in options.items()}
    return weights, {"TRAINER": {"QPROMPT": node}} if node else {}
