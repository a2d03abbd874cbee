"""Importing this package registers every trainer."""

from trainers import (
    clip_adapter,
    cocoop,
    coop,
    kgcoop,
    maple,
    prograd,
    qclip_adapter,
    qcocoop,
    qcoop,
    qkgcoop,
    qmaple,
    qprograd,
    qtip_adapter,
    tip_adapter,
    zsclip,
)

__all__ = [
    "clip_adapter",
    "cocoop",
    "coop",
    "kgcoop",
    "maple",
    "prograd",
    "qclip_adapter",
    "qcocoop",
    "qcoop",
    "qkgcoop",
    "qmaple",
    "qprograd",
    "qtip_adapter",
    "tip_adapter",
    "zsclip",
]
