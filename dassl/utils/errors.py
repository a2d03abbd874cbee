"""Mistakes of the user, told apart from faults of the program."""

from __future__ import annotations

import reprlib


class UserError(ValueError):
    """Something that the user can put right; the message says how, and is all that is shown."""


SCREEN = 2000  # letters


def message(error: BaseException) -> str:
    """Return what a user reads of an error: no more than a screen of it."""
    text = str(error)
    return text if len(text) <= SCREEN else f"{text[: SCREEN // 2]} ... {text[-SCREEN // 3 :]}"


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


def short_repr(value: object) -> str:
    """Return a repr of a few hundred letters at most, for messages."""
    return _SHORT.repr(value)
