"""What a user can put right; every message says how."""

from __future__ import annotations


class ClipError(ValueError):
    """Base of all errors of this package: among others a wrong name, file or precision."""


class PromptTooLongError(ClipError):
    """A text has more tokens than the text tower has positions."""


class UnsupportedBackboneError(ClipError):
    """A tower cannot take learned prompts the way CLIP's does."""


class WeightsNotFoundError(ClipError, OSError):
    """The named weights are neither on this machine nor to be had from the network."""
