"""What a run was trained with, by its record, its log or the name of its folder."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reporting.catalogue import FILE_NAMES

Config = Mapping[str, Any]  # {"OPTIM.LR": 0.002, ...}

_ACCURACY = re.compile(r"^\* accuracy: ([\d.eE+-]+)%", re.MULTILINE)
_ENTRY = re.compile(r"( *)(\w+):(?: (.*))?$")
_EPOCH = re.compile(r"^epoch \[", re.MULTILINE)
_LOADED = re.compile(r'^Load(?:ing|ed) weights .*?from "?([^"\s]+)"?', re.MULTILINE)
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


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested configuration as (dotted key, value); lists become tuples."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tuple(value) if isinstance(value, list) else value


def training_config(weights: str, evaluation: Path) -> Config | None:
    """Find the configuration that a checkpoint or a packed prompt was trained with.

    It stands in config.json, or else in the log, of the run's folder; else the folder's name tells.
    A relative path is looked up in the working directory, then in the folders above the
    evaluation, so that a tree that was moved as a whole is still read.

    Args:
        weights: the run's folder, or a file in it or in a folder of it.
        evaluation: the folder of the evaluation.
    """
    path = Path(weights)
    named = [folder for folder in (path, *path.parents[:2]) if folder.name]
    for start in (Path(), *evaluation.resolve().parents):
        for folder in named:
            record = start / folder / "config.json"
            if record.is_file():
                config = json.loads(record.read_text(encoding="utf-8-sig")).get("config", {})
                if "DATASET" in config:  # models of other kinds have a config.json, too
                    return dict(flatten(config))
            log = read_log(start / folder)
            if log and log.config:
                return log.config
    return config_of_names(path)


@dataclass(frozen=True)
class LogFile:
    """What a log says: of the weights that were evaluated, empty where it trained them itself."""

    config: Config
    accuracy: float | None  # percent; None where the run did not get that far
    weights: str


def read_log(folder: Path) -> LogFile | None:
    """Read the logs of a run's folder; of several starts, the last that came to a result counts."""
    logs = [
        _parse_log(path.read_text(encoding="utf-8-sig")) for path in sorted(folder.glob("log.txt*"))
    ]
    finished = [log for log in logs if log.accuracy is not None]
    return (finished or logs or [None])[-1]


def _parse_log(text: str) -> LogFile:
    arguments, config = _log_block(text, "** Arguments **"), _log_block(text, "** Config **")
    trained = _EPOCH.search(text)
    if trained:
        weights, (_, mark, result) = "", text.partition("Finish training")
    else:
        loaded = _LOADED.search(text)
        weights = str(arguments.get("model_dir") or (loaded[1] if loaded else ""))
        _, mark, result = text.partition("=> result")
    accuracies = _ACCURACY.findall(result) if mark else []
    return LogFile(config, float(accuracies[-1]) if accuracies else None, weights)


def _log_block(text: str, heading: str) -> Config:
    """The flattened entries below a heading, up to the first line that is none."""
    _, _, rest = text.partition(f"{heading}\n")
    return dict(_log_entries(rest))


def _log_entries(text: str) -> Iterator[tuple[str, object]]:
    sections: list[str] = []
    for line in filter(None, text.splitlines()):
        if set(line) <= {"*", "-", "="}:  # a rule under the heading
            continue
        match = _ENTRY.match(line)
        if not match:
            return
        indent, key, value = match.groups()
        sections = [*sections[: len(indent) // 2], key]
        if value is not None:
            yield ".".join(sections), _literal(value)


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


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
