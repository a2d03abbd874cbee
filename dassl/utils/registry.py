"""Choices by name: how a wrong one is refused, and tables that classes register in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from dassl.utils.errors import UserError


class UnknownNameError(UserError, KeyError):
    """A name that is none of the known ones."""

    def __str__(self) -> str:  # KeyError would show the repr of its message
        return str(self.args[0])


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that resembles ``name`` most, None if none does."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
    return by_lower[close[0]] if close else None


def check_choice(key: str, value: object, known: Iterable[str]) -> None:
    """Refuse a value that is none of the known ones.

    Raises:
        UnknownNameError: the message names the key, the value, the nearest known one, and all.
    """
    known = list(known)
    if value not in known:
        close = nearest(str(value), known)
        hint = f"Did you mean {close}? " if close else ""
        raise UnknownNameError(
            f'Unknown {key} "{value}". {hint}Known: {", ".join(known) or "none"}'
        )


def check_availability(requested: object, available: Iterable[str]) -> None:
    """:func:`check_choice` in Dassl's name."""
    check_choice("name", requested, available)


class Registry:
    """A table of classes or functions by name.

    Args:
        name: what the table holds, for messages, e.g. ``"TRAINER"``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register ``obj`` under its ``__name__``; without ``obj``, return a decorator.

        Raises:
            ValueError: the name is taken and ``force`` is false.
        """
        if obj is None:
            decorator: Callable[[Any], Any] = lambda o: self.register(o, force)  # noqa: E731
            return decorator
        name = obj.__name__
        if name in self._objects and not force:
            raise ValueError(f'"{name}" is already registered in the {self._name} registry')
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """Return what is registered under ``name``.

        Raises:
            UnknownNameError: nothing is; the message names the nearest name.
        """
        check_choice(self._name, name, sorted(self._objects))
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """Return all registered names, in order of registration."""
        return list(self._objects)
