# ruff: noqa: F401
"""Metrics."""

from dassl.metrics.accuracy import compute_accuracy
