"""The configuration node of a quantized Dassl trainer, TRAINER.QPROMPT."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from .clustering import INTERVAL, KL_THRESHOLD
from .errors import InvalidOptionError
from .quantizer import check_options

MODES = ("qat", "ptq", "none")


@dataclass(frozen=True)
class Options:
    """The keys of TRAINER.QPROMPT, in lower case.

    Raises:
        InvalidOptionError: a value is outside its range.
    """

    bits: int = 1
    normalize: bool = True
    interval: int = INTERVAL
    kl_threshold: float = KL_THRESHOLD
    mode: str = "qat"  # while training, after it ("ptq"), or not at all ("none")
    codebook: str = "kmeans"
    params: str = ""  # a regular expression; empty: every trainable tensor of 2 or more dimensions

    def __post_init__(self) -> None:
        try:
            check_options(self.bits, self.interval, self.kl_threshold, self.codebook)
            if self.mode not in MODES:
                raise InvalidOptionError(f"mode must be one of {MODES}, got {self.mode!r}")
            if not isinstance(self.normalize, bool):
                raise InvalidOptionError(f"normalize must be a bool, got {self.normalize!r}")
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
