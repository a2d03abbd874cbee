"""Every error that the library raises on purpose; each message says what to do."""

from __future__ import annotations


class QPromptError(Exception):
    """Base of all errors of this library."""


class InvalidOptionError(QPromptError, ValueError):
    """An option lies outside its range."""


class EmptyWeightsError(QPromptError, ValueError):
    """A tensor without elements cannot be clustered."""


class NonFiniteWeightsError(QPromptError, ValueError):
    """Weights contain NaN or infinity."""


class HalfPrecisionOverflowError(QPromptError, ValueError):
    """A value does not fit into half precision, the precision that files store."""


class NoParameterError(QPromptError, ValueError):
    """No parameter of the module is selected for quantization."""


class TiedParameterError(QPromptError, ValueError):
    """A selected parameter is used under several names."""


class AlreadyQuantizedError(QPromptError, ValueError):
    """A selected parameter is quantized already."""


class NameTakenError(QPromptError, ValueError):
    """A trainer's name is registered for another class."""


class NotQuantizedError(QPromptError, ValueError):
    """The module has no quantized parameter."""


class PackedFileError(QPromptError, ValueError):
    """A packed file is truncated, foreign, inconsistent or of a newer format."""


class PackedMismatchError(QPromptError, ValueError):
    """A packed file does not belong to the module that it is loaded into."""
