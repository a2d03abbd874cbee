"""The runs below a folder: results.json files, and logs where there is nothing else."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reporting.catalogue import FILE_NAMES

FORMAT_VERSION = 1
ALL_IMAGES = -1
OWN_IMAGES = "Folder"
Config = Mapping[str, Any]  # {"OPTIM.LR": 0.002, ...}

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
        "VERBOSE",
    }
)
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


@dataclass(frozen=True)
class Training:
    """How the weights of a run came about."""

    dataset: str
    subset: str  # all, base or new
    shots: int  # 0: none (zero-shot), ALL_IMAGES: no limit
    seed: int
    config: Config

    @classmethod
    def from_config(cls, config: Config, zero_shot: bool = False) -> Training:
        """Raises KeyError where the configuration lacks DATASET.NAME or SEED."""
        shots = config.get("DATASET.NUM_SHOTS", ALL_IMAGES)
        return cls(
            dataset=dataset_name(config),
            subset=config.get("DATASET.SUBSAMPLE_CLASSES", "all"),
            shots=0 if zero_shot else shots if shots > 0 else ALL_IMAGES,
            seed=config["SEED"],
            config=config,
        )


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluation; ``training`` is None where the origin of its weights is not known.

    What is there of single classes is in the order of ``classnames``: the number of images and of
    those classified correctly, and the confusion counts, rows true and columns predicted.
    """

    trainer: str
    bits: int | None
    backbone: str
    dataset: str
    subset: str
    split: str
    accuracy: float  # percent
    stored_bytes: int | None
    config: Config
    training: Training | None
    path: str
    from_log: bool = False
    irrelevant_settings: Set[str] = IRRELEVANT_SETTINGS  # keys that cannot change the result
    classnames: tuple[str, ...] = ()
    total: Sequence[int] = ()
    correct: Sequence[int] = ()
    confusion: Sequence[Sequence[int]] = ()

    @property
    def zero_shot(self) -> bool:
        return is_zero_shot(self.trainer)


def dataset_name(config: Config) -> str:
    """Folders of a user's own images have one registered name, but are not one data set."""
    name = config["DATASET.NAME"]
    return f"{name} {Path(config['DATASET.ROOT']).name}" if name == OWN_IMAGES else name


def is_zero_shot(trainer: str) -> bool:
    """Upstream has ZeroshotCLIP and ZeroshotCLIP2."""
    return trainer.startswith("Zeroshot")


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
                config = json.loads(record.read_text(encoding="utf-8")).get("config", {})
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
        _parse_log(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("log.txt*"))
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
