# ruff: noqa: F401
"""Evaluators."""

from dassl.evaluation.evaluator import (
    EVALUATOR_REGISTRY,
    Classification,
    EvaluatorBase,
    build_evaluator,
)
