"""Importing this package registers every trainer."""

from trainers import cocoop, coop, maple, qcocoop, qcoop, qmaple, zsclip

__all__ = ["cocoop", "coop", "maple", "qcocoop", "qcoop", "qmaple", "zsclip"]
