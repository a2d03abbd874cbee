"""Find the runs below a folder: results.json files, and logs where there is nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reporting.folder_names import config_of_names
from reporting.log_file import read_log
from reporting.origin import training_config
from reporting.run import (
    IRRELEVANT_SETTINGS,
    Config,
    Run,
    Training,
    dataset_name,
    flatten,
    is_zero_shot,
)

FORMAT_VERSION = 1


class UnreadableResultError(ValueError):
    """A results.json is damaged or of a format this version does not know."""


def read_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Read every run below ``folder``.

    Returns:
        The runs, and a sentence for each log that is of no use.

    Raises:
        FileNotFoundError: there is no run.
        UnreadableResultError: a results.json cannot be read.
    """
    runs = [read_result(path, folder) for path in sorted(folder.rglob("results.json"))]
    notes = []
    for logged in sorted({path.parent for path in folder.rglob("log.txt*")}):
        if not (logged / "results.json").exists():
            run = _run_of_log(logged, folder)
            if isinstance(run, Run):
                runs.append(run)
            else:
                notes.append(run)
    if not runs:
        raise FileNotFoundError(
            "; ".join([f"no results.json or finished log.txt below {folder}", *notes])
        )
    return runs, notes


def read_result(path: Path, folder: Path) -> Run:
    """Read one results.json; ``Run.path`` is relative to ``folder``.

    Raises:
        UnreadableResultError: no JSON, a missing or malformed field, or another format version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        version = result["format_version"]
        if version != FORMAT_VERSION:
            raise UnreadableResultError(
                f"{path} has format version {version}, this program reads {FORMAT_VERSION}"
            )
        config = {
            **dict(flatten(result.get("config") or {})),
            "DATASET.NAME": result["dataset"],
            "DATASET.SUBSAMPLE_CLASSES": result["subsample_classes"],
            "DATASET.NUM_SHOTS": result["num_shots"],
            "SEED": result["seed"],
        }
        return Run(
            trainer=result["trainer"],
            bits=result.get("bits"),
            backbone=result["backbone"],
            dataset=dataset_name(config),
            subset=result["subsample_classes"],
            split=result.get("split", "test"),
            accuracy=float(result["metrics"]["accuracy"]),
            stored_bytes=result.get("stored_bytes"),
            config=config,
            training=_training_of_result(result, config, path.parent),
            path=str(path.relative_to(folder)),
            irrelevant_settings=frozenset(result.get("irrelevant_settings", IRRELEVANT_SETTINGS)),
            **_classes(result),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UnreadableResultError):
            raise
        raise UnreadableResultError(
            f"{path} is no complete result ({type(error).__name__}: {error}): repeat that run"
        ) from error


def _training_of_result(
    result: dict[str, Any], config: Config, evaluation: Path
) -> Training | None:
    if is_zero_shot(result["trainer"]):
        return Training.from_config(config, zero_shot=True)
    if result.get("trained_with"):
        return Training.from_config(dict(flatten(result["trained_with"])))
    weights = result.get("weights")
    if not weights and result.get("epoch") is None:  # nothing loaded, nothing trained
        weights = config.get("MODEL.INIT_WEIGHTS")
    if not weights:
        return Training.from_config(config)
    origin = training_config(weights, evaluation)
    return Training.from_config(origin) if origin else None


def _classes(result: dict[str, Any]) -> dict[str, Any]:
    """The optional fields ``classnames``, ``per_class`` and ``confusion``."""
    names, counts = result.get("classnames") or [], result.get("per_class") or {}
    found = {
        "total": counts.get("total") or [],
        "correct": counts.get("correct") or [],
        "confusion": result.get("confusion") or [],
    }
    for key, values in found.items():
        lengths = {len(values)} | ({len(row) for row in values} if key == "confusion" else set())
        if values and lengths != {len(names)}:
            raise ValueError(f"{key} does not fit {len(names)} classnames")
    return {"classnames": tuple(names), **found}


def _run_of_log(logged: Path, folder: Path) -> Run | str:
    log = read_log(logged)
    path = f"{logged.relative_to(folder) / 'log.txt'}"
    if log is None or log.accuracy is None:
        return f"{path} has no result: that run did not end"
    config = {**(config_of_names(logged) or {}), **log.config}
    try:
        trainer, zero_shot = config["TRAINER.NAME"], is_zero_shot(config["TRAINER.NAME"])
        origin = config
        if log.weights and not zero_shot:
            origin = training_config(log.weights, logged)
        return Run(
            trainer=trainer,
            bits=_bits(config),
            backbone=config["MODEL.BACKBONE.NAME"],
            dataset=dataset_name(config),
            subset=config.get("DATASET.SUBSAMPLE_CLASSES", "all"),
            split=config.get("TEST.SPLIT", "test"),
            accuracy=log.accuracy,
            stored_bytes=None,
            config=config,
            training=Training.from_config(origin, zero_shot) if origin else None,
            path=path,
            from_log=True,
        )
    except KeyError as error:
        return f"{path} tells nothing of {error.args[0]}, nor does its folder's name"


def _bits(config: Config) -> int | None:
    quantized = config["TRAINER.NAME"].startswith("Q")
    mode = config.get("TRAINER.QPROMPT.MODE", "none")
    return config.get("TRAINER.QPROMPT.BITS") if quantized and mode != "none" else None
