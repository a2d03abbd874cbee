"""Importing this package registers every trainer."""

from trainers import (
    cocoop,
    coop,
    ivlp,
    maple,
    promptsrc,
    qcocoop,
    qcoop,
    qivlp,
    qmaple,
    qpromptsrc,
    qvpt,
    vpt,
    zsclip,
)

__all__ = [
    "cocoop",
    "coop",
    "ivlp",
    "maple",
    "promptsrc",
    "qcocoop",
    "qcoop",
    "qivlp",
    "qmaple",
    "qpromptsrc",
    "qvpt",
    "vpt",
    "zsclip",
]
