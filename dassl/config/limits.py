"""What values may be, where the type of the default does not say it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from numbers import Real
from typing import Any

from dassl.utils import UserError, is_utf8, short_repr

Limit = tuple[str, Callable[[Any], bool]]  # what is allowed, and whether a value is


def numbers(least: float, most: float = math.inf, count: int = 0, kind: Any = Real) -> Limit:
    """Allow a number, or lists of numbers, in a range.

    Args:
        least, most: the range; infinity itself is never allowed.
        count: of numbers in a list; 0: any.
        kind: of the numbers.
    """
    words = f"{least} or more" if most == math.inf else f"from {least} to {most}"
    if count:
        words = f"{count} {'whole ' if kind is int else ''}numbers, each {words}"

    def allows(value: Any) -> bool:
        values = value if isinstance(value, list | tuple) else [value]
        return len(values) in (count, count or len(values)) and all(
            isinstance(v, kind) and least <= v <= most and v < math.inf for v in values
        )

    return words, allows


_BELOW_1 = ("0 or more and below 1", lambda number: 0 <= number < 1)
_NAMES = ("names", lambda values: all(isinstance(value, str) for value in values))

LIMITS: dict[str, Limit] = {  # trainers add those of their keys
    "SEED": (f"{2**64 - 1} or less", lambda seed: seed < 2**64),  # what torch takes
    "OUTPUT_DIR": ("the name of a folder", bool),
    "INPUT.SIZE": numbers(1, count=2, kind=int),
    "INPUT.TRANSFORMS": _NAMES,
    "INPUT.PIXEL_MEAN": numbers(0, 1, count=3),
    "INPUT.PIXEL_STD": numbers(1e-6, count=3),
    "INPUT.RRCROP_SCALE": (
        "2 numbers above 0 in ascending order",
        lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] < math.inf,
    ),
    "INPUT.CROP_PADDING": numbers(0),
    "INPUT.RANDAUGMENT_N": numbers(0),
    "INPUT.RANDAUGMENT_M": numbers(0, 30),
    "INPUT.COLORJITTER_B": numbers(0),
    "INPUT.COLORJITTER_C": numbers(0),
    "INPUT.COLORJITTER_S": numbers(0),
    "INPUT.COLORJITTER_H": numbers(0, 0.5),
    "INPUT.RGS_P": numbers(0, 1),
    "INPUT.GB_P": numbers(0, 1),
    "INPUT.GB_K": ("odd and above 0", lambda size: size > 0 and size % 2 == 1),
    "DATASET.SOURCE_DOMAINS": _NAMES,
    "DATASET.TARGET_DOMAINS": _NAMES,
    "DATASET.TEMPLATE": (
        "a text or a list of texts",
        lambda value: isinstance(value, str | list | tuple | None),
    ),
    "DATALOADER.NUM_WORKERS": numbers(0),
    "DATALOADER.PIXEL_CACHE_MB": numbers(0),
    "DATALOADER.TEST.BATCH_SIZE": numbers(1),
    "DATALOADER.TRAIN_X.BATCH_SIZE": numbers(1),
    "DATALOADER.TRAIN_X.N_INS": numbers(1),
    "DATALOADER.TRAIN_U.BATCH_SIZE": numbers(1),
    "DATALOADER.TRAIN_U.N_INS": numbers(1),
    "MODEL.HEAD.HIDDEN_LAYERS": numbers(1, kind=int),
    "MODEL.HEAD.DROPOUT": numbers(0, 1),
    "OPTIM.LR": numbers(0),
    "OPTIM.MAX_EPOCH": numbers(0),
    "OPTIM.MOMENTUM": numbers(0),
    "OPTIM.WEIGHT_DECAY": numbers(0),
    "OPTIM.RMSPROP_ALPHA": _BELOW_1,
    "OPTIM.ADAM_BETA1": _BELOW_1,
    "OPTIM.ADAM_BETA2": _BELOW_1,
    "OPTIM.NEW_LAYERS": _NAMES,
    "OPTIM.BASE_LR_MULT": numbers(0),
    "OPTIM.STEPSIZE": ("1 or more numbers of epochs", bool),
    "OPTIM.GAMMA": numbers(0),
    "OPTIM.WARMUP_CONS_LR": numbers(0),
    "OPTIM.WARMUP_MIN_LR": numbers(0),
}
PATHS = {"DATASET.ROOT", "MODEL.BACKBONE.NAME", "MODEL.INIT_WEIGHTS", "OUTPUT_DIR", "RESUME"}


def check_value(value: Any, full_key: str, origin: str) -> Any:
    """Return a value of the right type, ``~`` at the start of a path replaced by the home folder.

    Args:
        value: the value.
        full_key: its key, for example OPTIM.LR.
        origin: where it stands, for messages.

    Raises:
        UserError: the key may not have this value.
    """
    allowed, allows = LIMITS.get(full_key, ("", lambda _: True))
    if allows(value):
        too_large = type(value) is int and abs(value) >= 2**64
        allowed = "a smaller number" if too_large else ""
    if isinstance(value, str) and not is_utf8(value):
        allowed = "UTF-8: rename it"
    if isinstance(value, str) and "\0" in value:
        allowed = "a text without zero bytes"
    if allowed:
        raise UserError(f'"{full_key}" in {origin} must be {allowed}, got {short_repr(value)}')
    return os.path.expanduser(value) if full_key in PATHS else value
