"""Two ways of doing the same, timed in turn."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Side = Callable[[], object]
LONG = 60  # seconds after which the state left by another side does not matter


@dataclass
class Measurement:
    """What one side took.

    Attributes:
        seconds: of each repeat.
        peak_bytes: largest memory of a repeat beside what was in use before it; None: not known.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Row:
    """One line of the table; the ratio is that of the medians, first side over second.

    Attributes:
        section, name: what was measured.
        sides: the measurements by name; the reference first.
        note: what else to know, such as agreement of the results.
    """

    section: str
    name: str
    sides: dict[str, Measurement]
    note: str = ""

    @property
    def ratio(self) -> float | None:
        medians = [side.median for side in self.sides.values() if side.seconds]
        return medians[0] / medians[1] if len(medians) == 2 else None

    @property
    def memory_ratio(self) -> float | None:
        peaks = [side.peak_bytes for side in self.sides.values() if side.peak_bytes]
        return peaks[0] / peaks[1] if len(peaks) == 2 else None


def compare(
    sides: Mapping[str, Side], repeats: int = 5, seconds: float = 120
) -> dict[str, Measurement]:
    """Run the sides in turn, and again, until there are enough repeats or time is up.

    A side runs once untimed before each timed run, because the other side has left caches and the
    allocator in its own state, which is not that of a training loop; not if it takes so long that
    this cannot matter. Memory is measured in a round of its own.

    Args:
        sides: functions by name.
        repeats: rounds that are timed.
        seconds: no further round begins after so many; there is always one.
    """
    measured, long = {}, set()
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
            measured[name].seconds.append(_time_of(side))
        if time.perf_counter() - begin > seconds:
            break
    return measured


def _time_of(side: Side) -> float:
    gc.collect()
    begin = time.perf_counter()
    side()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


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
