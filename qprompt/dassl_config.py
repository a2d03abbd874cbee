"""What a Dassl configuration says: the options of quantization, and what a prompt is trained on."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, Mapping, Optional, Sequence

from .errors import InvalidOptionError
from .quantizer import QuantizerOptions

INPUT_KEYS = ("SIZE", "INTERPOLATION", "TRANSFORMS", "PIXEL_MEAN", "PIXEL_STD")
MODES = ("qat", "ptq", "noise")
# keys of trainers' nodes that shape how a prompt is trained, and not what it is then
TRAINING_KEYS = (
    "PREC",
    "INTERVAL",
    "KL_THRESHOLD",
    "HALF_LATENTS",
    "THROUGH_MOMENTS",
    "NOISE_STD",
    "NOISE_RELATIVE",
    "STATISTICS",
)


@dataclass(frozen=True)
class Options(QuantizerOptions):
    """The keys of the configuration node TRAINER.QPROMPT, in lower case.

    Raises:
        InvalidOptionError: a value is outside its range.
    """

    mode: str = "qat"  # quantize while training, after it ("ptq"), or not at all ("noise")
    noise_std: float = 0.0  # with "noise", Gaussian noise on the weights while they train
    noise_relative: bool = False  # whether noise_std is a fraction of the weights' deviation
    statistics: bool = False  # whether weights.csv tells how weights and codebooks develop
    params: str = ""  # a regular expression; empty: every trainable tensor of 2 or more dimensions

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
            if self.mode not in MODES:
                raise InvalidOptionError(f"mode must be one of {MODES}, got {self.mode!r}")
            re.compile(self.params)
        except (InvalidOptionError, TypeError, re.error) as error:
            raise InvalidOptionError(f"TRAINER.QPROMPT: {error}") from error

    @classmethod
    def from_cfg(cls, cfg: Any) -> Options:
        """Reads the node; a missing node or key means the default."""
        node: Any = getattr(cfg.TRAINER, "QPROMPT", None)
        keys = [(f.name, f.name.upper()) for f in fields(cls)]
        return cls(**{name: getattr(node, key) for name, key in keys if hasattr(node, key)})


def add_config(cfg: Any) -> None:
    """Adds TRAINER.QPROMPT with its defaults to a Dassl configuration, unless it is there."""
    if not hasattr(cfg.TRAINER, "QPROMPT"):
        node = type(cfg)()
        for key, value in asdict(Options()).items():
            setattr(node, key.upper(), value)
        cfg.TRAINER.QPROMPT = node


def compact_json(value: Any) -> str:
    """JSON as packed files hold it."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def describe_data(cfg: Mapping[str, Any], classnames: Optional[Sequence[str]]) -> Dict[str, str]:
    """What a packed prompt says of the data that it was trained on, where the configuration has it.

    Args:
        cfg: a Dassl configuration.
        classnames: of the training run; None: not known.
    """
    data = cfg.get("DATASET", {})
    shots, seed = data.get("NUM_SHOTS", -1), cfg.get("SEED", -1)
    known = {
        "dataset": data.get("NAME", ""),
        "shots": str(shots) if shots > 0 else "",  # else all images
        "seed": str(seed) if seed >= 0 else "",  # else none
    }
    known = {key: value for key, value in known.items() if value}
    if classnames is not None:
        known["classnames"] = compact_json(list(classnames))
    image = cfg.get("INPUT", {})
    if all(key in image for key in INPUT_KEYS):
        normalizes = "normalize" in image["TRANSFORMS"]
        prepared = {
            "size": list(image["SIZE"]),
            "interpolation": image["INTERPOLATION"],
            "mean": list(image["PIXEL_MEAN"]) if normalizes else [0.0, 0.0, 0.0],
            "std": list(image["PIXEL_STD"]) if normalizes else [1.0, 1.0, 1.0],
        }
        known["input"] = compact_json(prepared)
    return known
