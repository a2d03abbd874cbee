# ruff: noqa: F401
"""Evaluators by name."""

from dassl.evaluation.evaluator import EVALUATOR_REGISTRY, build_evaluator
