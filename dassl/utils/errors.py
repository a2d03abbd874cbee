"""Mistakes of the user, told apart from faults of the program."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user can put right; the message says how, and is all that is shown."""
