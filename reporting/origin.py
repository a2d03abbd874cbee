"""Where the weights of an evaluation were trained."""

from __future__ import annotations

import json
from pathlib import Path

from reporting.folder_names import config_of_names
from reporting.log_file import read_log
from reporting.run import Config, flatten


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
                found = json.loads(record.read_text(encoding="utf-8")).get("config", {})
                if "DATASET" in found:  # models of other kinds have a config.json, too
                    return dict(flatten(found))
            log = read_log(start / folder)
            if log and log.config:
                return log.config
    return config_of_names(path)
