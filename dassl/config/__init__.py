# ruff: noqa: F401
"""The configuration tree."""

from typing import Any

from dassl.config.defaults import clean_cfg, extends_defaults, get_cfg_default
from dassl.config.node import CfgNode, UnknownConfigKeyError


def __getattr__(name: str) -> Any:
    if name == "cfg_default":
        return get_cfg_default()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
