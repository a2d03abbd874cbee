"""What values may be, where the type of the default does not say it."""

from __future__ import annotations

import math
import os
from typing import Any

from dassl.utils import UserError, is_utf8, short_repr

LEAST = {
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.PIXEL_CACHE_MB": 0,
    "DATALOADER.TEST.BATCH_SIZE": 1,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 1,
    "OPTIM.LR": 0,
    "OPTIM.MAX_EPOCH": 0,
    "OPTIM.MOMENTUM": 0,
    "OPTIM.WEIGHT_DECAY": 0,
}
MOST = {"SEED": 2**64 - 1}  # what torch takes
NOT_EMPTY = {"OUTPUT_DIR"}
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
    allowed = ""
    if full_key in LEAST and not LEAST[full_key] <= value < math.inf:
        allowed = f"{LEAST[full_key]} or more"
    if full_key in MOST and not value <= MOST[full_key]:
        allowed = f"{MOST[full_key]} or less"
    if full_key in NOT_EMPTY and not value:
        allowed = "the name of a folder"
    if isinstance(value, str) and not is_utf8(value):
        allowed = "UTF-8: rename it"
    if allowed:
        raise UserError(f'"{full_key}" in {origin} must be {allowed}, got {short_repr(value)}')
    return os.path.expanduser(value) if full_key in PATHS else value
