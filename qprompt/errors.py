"""The errors that a caller may want to tell apart; each message says what to do."""

from __future__ import annotations


class QPromptError(Exception):
    """Base of all errors of this library."""


class HubError(QPromptError, OSError):
    """A prompt on the Hugging Face Hub cannot be had."""


class InvalidOptionError(QPromptError, ValueError):
    """An argument lies outside its range, or does not fit the module that it is for."""


class InvalidWeightsError(QPromptError, ValueError):
    """Weights are empty, hold NaN or infinity, or exceed half precision."""


class NoParameterError(QPromptError, ValueError):
    """A module has no parameter to quantize, or none that is quantized."""


class PackedFileError(QPromptError, ValueError):
    """A packed file is truncated, foreign, inconsistent or of a newer format."""


class PackedMismatchError(QPromptError, ValueError):
    """A packed file does not belong to the module that it is loaded into."""
