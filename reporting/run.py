"""What the report knows of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
