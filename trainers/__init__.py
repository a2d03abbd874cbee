"""Importing this package registers every trainer, and its keys in the default configuration."""

import trainers.config  # noqa: F401
from trainers import cocoop, coop, maple, qcocoop, qcoop, qmaple, zsclip

__all__ = ["cocoop", "coop", "maple", "qcocoop", "qcoop", "qmaple", "zsclip"]
