"""Name -> class tables that trainers, data sets and evaluators register in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any


class UnknownNameError(KeyError):
    """A name that is not registered."""

    def __str__(self) -> str:  # KeyError would show the repr of its message
        return str(self.args[0])


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return the up to ``n`` known names that resemble ``name`` most, best first."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[c] for c in get_close_matches(name.lower(), by_lower, n=n, cutoff=0.4)]


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
            UnknownNameError: nothing is; the message names the nearest known names.
        """
        if name not in self._objects:
            close = nearest(name, self._objects)
            hint = f"Did you mean {' or '.join(close)}? " if close else ""
            known = ", ".join(sorted(self._objects)) or "none"
            raise UnknownNameError(f'Unknown {self._name} "{name}". {hint}Registered: {known}')
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """Return all registered names, in order of registration."""
        return list(self._objects)
