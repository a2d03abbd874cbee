"""Mistakes of the user, told apart from faults of the program."""

from __future__ import annotations

import reprlib


class UserError(ValueError):
    """Something that the user can put right; the message says how, and is all that is shown."""


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


def short_repr(value: object) -> str:
    """Return a repr of a few hundred letters at most, for messages."""
    return _SHORT.repr(value)
