# ruff: noqa: F401
"""The configuration tree."""

from dassl.config.defaults import clean_cfg, get_cfg_default
from dassl.config.node import CfgNode, UnknownConfigKeyError
