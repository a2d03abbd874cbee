"""The runs below a folder: results.json files, and logs where there is nothing else."""

from __future__ import annotations

import json
from collections.abc import Hashable, Set
from pathlib import Path
from typing import Any

import pandas as pd

from reporting.logs import Config, config_of_names, flatten, read_log, training_config

FORMAT_VERSION = 1
ALL_IMAGES = -1
OWN_IMAGES = "Folder"
STATISTICS = "weights.csv"  # of a run that was asked for it

# keys that cannot change a result, for logs and for records that do not list theirs
IRRELEVANT_SETTINGS = frozenset(
    {
        "DATALOADER.NUM_WORKERS",
        "DATALOADER.PIXEL_CACHE_MB",
        "DATALOADER.TEST.BATCH_SIZE",
        "MODEL.TEXT_CHUNK",
        "RESUME",
        "TEST.COMPUTE_CMAT",
        "TEST.FEATURE_CACHE",
        "TEST.NO_TEST",
        "TEST.PER_CLASS_RESULT",
        "TRAIN.CHECKPOINT_FREQ",
        "TRAIN.PRINT_FREQ",
        "TRAINER.QPROMPT.STATISTICS",
        "VERBOSE",
    }
)
# what names the run, and on which device and by which version it was made
_NO_SETTINGS = {
    "MODEL.BACKBONE.NAME",
    "OUTPUT_DIR",
    "SEED",
    "TEST.SPLIT",
    "TRAINER.NAME",
    "TRAINER.QPROMPT.BITS",
    "USE_CUDA",
    "VARIANT",
    "VERSION",
}
_QUANTIZER = "TRAINER.QPROMPT."


def dataset_name(config: Config) -> str:
    """Folders of a user's own images have one registered name, but are not one data set."""
    name = config["DATASET.NAME"]
    return f"{name} {Path(config['DATASET.ROOT']).name}" if name == OWN_IMAGES else name


def is_zero_shot(trainer: str) -> bool:
    """Upstream has ZeroshotCLIP and ZeroshotCLIP2."""
    return trainer.startswith("Zeroshot")


class UnreadableResultError(ValueError):
    """A results.json is damaged or of a format this version does not know."""


def read_runs(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read every run below ``folder``.

    ``source`` is the data set that the weights were trained on and ``source_subset`` the classes
    (all, base or new); they, ``shots`` (0: none, ALL_IMAGES: no limit) and ``seed`` are missing
    where the origin of the weights is not known. ``settings`` are what may make a difference. What
    there is of single classes is in the order of ``classnames``: the number of images ("total"), of
    those classified correctly, and the confusion counts, rows true and columns predicted.
    ``weights`` are files on how the weights developed.

    Returns:
        One row a run, accuracy in percent; and a sentence for each folder without a result.

    Raises:
        FileNotFoundError: there is no run.
        UnreadableResultError: a results.json cannot be read.
    """
    runs = [read_result(path, folder) for path in sorted(folder.rglob("results.json"))]
    notes = []
    for logged in sorted({path.parent for path in folder.rglob("log.txt*")}):
        if not (logged / "results.json").exists():
            run = _run_without_results(logged, folder)
            if isinstance(run, str):
                notes.append(run)
            else:
                runs.append(run)
    if not runs:
        raise FileNotFoundError(
            "; ".join([f"no results.json or finished log.txt below {folder}", *notes])
        )
    return pd.DataFrame(runs).astype({"bits": "Int64", "stored_bytes": "Int64"}), notes


def read_result(path: Path, folder: Path) -> dict[str, Any]:
    """Read one results.json; the run's path is relative to ``folder``.

    Raises:
        UnreadableResultError: no JSON, a missing or malformed field, or another format version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8-sig"))
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
            "TRAINER.NAME": result["trainer"],
            "MODEL.BACKBONE.NAME": result["backbone"],
            "TEST.SPLIT": result.get("split", "test"),
        }
        return {
            **_run(
                config,
                _origin_of_result(result, config, path.parent),
                result.get("bits"),
                frozenset(result.get("irrelevant_settings", IRRELEVANT_SETTINGS)),
            ),
            "accuracy": float(result["metrics"]["accuracy"]),
            "stored_bytes": result.get("stored_bytes"),
            "path": str(path.relative_to(folder)),
            "from_log": False,
            "weights": sorted(path.parent.glob(f"*/{STATISTICS}")),
            **_classes(result),
        }
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UnreadableResultError):
            raise
        raise UnreadableResultError(
            f"{path} is no complete result ({type(error).__name__}: {error}): repeat that run"
        ) from error


def _run(
    config: Config, origin: Config | None, bits: int | None, irrelevant: Set[str]
) -> dict[str, Any]:
    """What configurations tell of a run.

    Raises KeyError where they lack the trainer, the backbone, the data set or the seed.
    """
    trainer = config["TRAINER.NAME"]
    run = {
        "trainer": trainer,
        "zero_shot": is_zero_shot(trainer),
        "bits": bits,
        "variant": (origin or config).get("VARIANT", ""),
        "backbone": config["MODEL.BACKBONE.NAME"],
        "dataset": dataset_name(config),
        "subset": config.get("DATASET.SUBSAMPLE_CLASSES", "all"),
        "split": config.get("TEST.SPLIT", "test"),
        "source": None,
        "source_subset": None,
        "shots": None,
        "seed": None,
        "settings": {},
    }
    if origin:
        shots = origin.get("DATASET.NUM_SHOTS", ALL_IMAGES)
        run |= {
            "source": dataset_name(origin),
            "source_subset": origin.get("DATASET.SUBSAMPLE_CLASSES", "all"),
            "shots": 0 if run["zero_shot"] else shots if shots > 0 else ALL_IMAGES,
            "seed": origin["SEED"],
            "settings": _settings(config, origin, bits, irrelevant),
        }
    return run


def _settings(
    config: Config, origin: Config, bits: int | None, irrelevant: Set[str]
) -> dict[str, Hashable]:
    """What may make a difference: the training configuration without what the run's record excepts.

    The quantizer's keys are the run's own, because it may be attached after training.
    """
    chosen = {k: v for k, v in origin.items() if not k.startswith(_QUANTIZER)}
    if bits is not None or config.get(f"{_QUANTIZER}MODE") == "noise":
        chosen |= {k: v for k, v in config.items() if k.startswith(_QUANTIZER)}
    return {
        key: _comparable(value, origin["SEED"])
        for key, value in chosen.items()
        if key not in _NO_SETTINGS | irrelevant
        and (key == "DATASET.TEMPLATE" or not key.startswith("DATASET."))
    }


def _comparable(value: Any, seed: int) -> Hashable:
    """Folders of weights usually hold the seed, which is no setting."""
    if isinstance(value, str):
        return value.replace(f"seed{seed}", "seed")
    return str(value) if value is None or not isinstance(value, Hashable) else value


def _origin_of_result(result: dict[str, Any], config: Config, evaluation: Path) -> Config | None:
    if is_zero_shot(result["trainer"]):
        return config
    if result.get("trained_with"):
        return dict(flatten(result["trained_with"]))
    weights = result.get("weights")
    if not weights and result.get("epoch") is None:  # nothing loaded, nothing trained
        weights = config.get("MODEL.INIT_WEIGHTS")
    return training_config(weights, evaluation) if weights else config


def _classes(result: dict[str, Any]) -> dict[str, Any]:
    """The optional fields ``classnames``, ``per_class`` and ``confusion``."""
    names, counts = result.get("classnames") or [], result.get("per_class") or {}
    fields = {
        "total": counts.get("total") or [],
        "correct": counts.get("correct") or [],
        "confusion": result.get("confusion") or [],
    }
    for key, values in fields.items():
        lengths = {len(values)} | ({len(row) for row in values} if key == "confusion" else set())
        if values and lengths != {len(names)}:
            raise ValueError(f"{key} does not fit {len(names)} classnames")
    return {"classnames": tuple(names), **fields}


def _run_without_results(logged: Path, folder: Path) -> dict[str, Any] | str:
    """Of a folder without results.json: its only evaluation with --load-epoch, or else its log."""
    chosen = sorted(logged.glob("results-epoch*.json"))
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen)
        return (
            f"{logged.relative_to(folder)} has {names}, and no results.json: evaluate it without "
            "--load-epoch, too"
        )
    return read_result(chosen[0], folder) if chosen else _run_of_log(logged, folder)


def _run_of_log(logged: Path, folder: Path) -> dict[str, Any] | str:
    log = read_log(logged)
    path = f"{logged.relative_to(folder) / 'log.txt'}"
    if log is None or log.accuracy is None:
        return f"{path} has no result: that run did not end"
    config = {**(config_of_names(logged) or {}), **log.config}
    try:
        origin = config
        if log.weights and not is_zero_shot(config["TRAINER.NAME"]):
            origin = training_config(log.weights, logged)
        run = _run(config, origin, _bits(config), IRRELEVANT_SETTINGS)
    except KeyError as error:
        return f"{path} tells nothing of {error.args[0]}, nor does its folder's name"
    return {
        **run,
        "accuracy": log.accuracy,
        "stored_bytes": None,
        "path": path,
        "from_log": True,
        "weights": [],
        **_classes({}),
    }


def _bits(config: Config) -> int | None:
    quantized = config["TRAINER.NAME"].startswith("Q")
    mode = config.get("TRAINER.QPROMPT.MODE", "none")
    return config.get("TRAINER.QPROMPT.BITS") if quantized and mode in ("qat", "ptq") else None
