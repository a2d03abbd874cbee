"""What the runs of one process have in common, made once and handed from run to run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

Cache = dict[Hashable, Any]


def get_or_make(cache: Cache | None, key: Hashable, make: Callable[[], T]) -> T:
    """Return what a cache holds under ``key``; make it, and put it there, where it is missing.

    Args:
        cache: None: nothing is shared, and ``make`` is called every time.
        key: all that the result depends on.
        make: draws no random numbers, since it is not called in every run. Nobody may change what
            it returns.
    """
    if cache is None:
        return make()
    if key not in cache:
        cache[key] = make()
    value: T = cache[key]
    return value


def construct(cls: Callable[..., T], cfg: Any, cache: Cache | None) -> T:
    """Return ``cls(cfg, cache=cache)``, or ``cls(cfg)`` where ``cls`` takes no cache.

    Trainers and data sets that are written for Dassl take nothing but a configuration.
    """
    if "cache" in inspect.signature(cls).parameters:
        return cls(cfg, cache=cache)
    return cls(cfg)
