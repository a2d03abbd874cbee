"""Importing this package registers every trainer."""

from trainers import coop, qcoop, zsclip

__all__ = ["coop", "qcoop", "zsclip"]
