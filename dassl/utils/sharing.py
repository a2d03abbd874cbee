"""What several runs in one process need alike, made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_kept: dict[Hashable, object] | None = None


@contextmanager
def sharing() -> Iterator[None]:
    """Within this context, :func:`shared` keeps what it makes; at its end all is let go."""
    global _kept
    if _kept is not None:
        raise RuntimeError("sharing() is active already")
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def is_sharing() -> bool:
    """Whether :func:`sharing` is active."""
    return _kept is not None


def shared(key: Hashable, make: Callable[[], T]) -> T:
    """Return what ``make`` returns; within :func:`sharing`, the same object for the same key.

    Args:
        key: all that the result depends on.
        make: a function that draws no random numbers, since it is not called every time. Nobody may
            change what it returns.
    """
    if _kept is None:
        return make()
    if key not in _kept:
        _kept[key] = make()
    return _kept[key]  # type: ignore[return-value]
