"""Two ways of doing the same, timed in turn."""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Side = Callable[[], Any]
LONG = 60  # seconds after which the state left by another side does not matter


@dataclass
class Measurement:
    """What one side took.

    Attributes:
        seconds: of each repeat.
        user_seconds, system_seconds: of each repeat, what processors spent on this process and on
            children that it has waited for; other guests of a shared machine do not add to it.
        peak_bytes: largest memory of a repeat beside what was in use before it; None: not known.
    """

    seconds: list[float] = field(default_factory=list)
    user_seconds: list[float] = field(default_factory=list)
    system_seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def processor_median(self) -> float:
        return statistics.median(map(sum, zip(self.user_seconds, self.system_seconds, strict=True)))

    def time(self, side: Side) -> Any:
        """Run a side once, add the seconds that it took, and return its result."""
        gc.collect()
        user, system = _processor_seconds()
        seconds = _start_clock()
        result = side()
        self.seconds.append(seconds())
        user_after, system_after = _processor_seconds()
        self.user_seconds.append(user_after - user)
        self.system_seconds.append(system_after - system)
        return result


@dataclass
class Row:
    """One line of the table; ratios are those of the medians, first side over second.

    Attributes:
        section, name: what was measured.
        sides: the two measurements by name; the reference first.
        note: what else to know, such as agreement of the results.
        numbers: those of the note, by name.
    """

    section: str
    name: str
    sides: dict[str, Measurement]
    note: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return _ratio([side.median for side in self.sides.values()])

    @property
    def processor_ratio(self) -> float | None:
        return _ratio([side.processor_median for side in self.sides.values()])

    @property
    def memory_ratio(self) -> float | None:
        return _ratio([side.peak_bytes for side in self.sides.values()])


def compare(
    sides: Mapping[str, Side], repeats: int = 5, seconds: float = 120
) -> tuple[dict[str, Measurement], dict[str, Any]]:
    """Run the sides in turn, and again, until there are enough repeats or time is up.

    A side runs once untimed before each timed run, because the other side has left caches and the
    allocator in its own state, which is not that of a training loop; not if it takes so long that
    this cannot matter. Memory is measured in a round of its own, before any result is kept.

    Args:
        sides: functions by name.
        repeats: rounds that are timed.
        seconds: no further round begins after so many; there is always one.

    Returns:
        The measurements, and what the sides returned in the last round.
    """
    measured, results, long = {}, {}, set()
    for name, side in sides.items():
        begin = time.perf_counter()
        measured[name] = Measurement(peak_bytes=_peak_of(side))
        if time.perf_counter() - begin > LONG:
            long.add(name)
    begin = time.perf_counter()
    for _ in range(repeats):
        for name, side in sides.items():
            if name not in long:
                side()
            results[name] = measured[name].time(side)
        if time.perf_counter() - begin > seconds:
            break
    return measured, results


def _start_clock() -> Callable[[], float]:
    """Return what tells the seconds from now on, on a GPU until all that waits there is done."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        return lambda: time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()

    def seconds() -> float:
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    return seconds


def _ratio(values: Sequence[float | None]) -> float | None:
    first, second = values
    return first / second if first and second else None


def _processor_seconds() -> tuple[float, float]:
    """Return user and system seconds so far."""
    try:
        import resource
    except ImportError:  # Windows, which counts no children
        times = os.times()
        return times.user, times.system
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime for usage in used), sum(usage.ru_stime for usage in used)


def _peak_of(side: Side) -> int | None:
    before = _start_of_peak()
    side()
    peak = _peak()
    return None if before is None or peak is None else peak - before


def _start_of_peak() -> int | None:
    """Let peaks be counted from here; return the memory in use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not sys.platform.startswith("linux"):
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status("VmRSS")


def _peak() -> int | None:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM") if sys.platform.startswith("linux") else None


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024
