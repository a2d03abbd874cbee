"""Rows as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from benchmarks.measure import Measurement, Row

COLUMNS = (
    "what",
    "side",
    "median seconds",
    "least",
    "most",
    "processor seconds",
    "peak MiB",
    "repeats",
)


def to_line(row: Row) -> str:
    """Return median seconds of both sides and their ratio."""
    sides = ", ".join(f"{name} {_number(side.median)} s" for name, side in row.sides.items())
    return f"{row.section}, {row.name}: {sides}, ratio {_number(row.ratio)}"


def to_json(rows: Iterable[Row], machine: Mapping[str, str]) -> dict[str, Any]:
    """Return all numbers: seconds of each repeat, bytes, ratios."""
    return {
        "machine": dict(machine),
        "rows": [
            {
                "section": row.section,
                "name": row.name,
                "sides": {name: vars(side) for name, side in row.sides.items()},
                "ratio": row.ratio,
                "processor_ratio": row.processor_ratio,
                "memory_ratio": row.memory_ratio,
                "note": row.note,
                "numbers": row.numbers,
            }
            for row in rows
        ],
    }


def to_markdown(rows: Iterable[Row], machine: Mapping[str, str]) -> str:
    """Return a table for each section, with a line for each side and one for their ratios.

    Processor seconds are the medians of user plus system.
    """
    lines = [f"- {key}: {value}" for key, value in machine.items()]
    for section, group in groupby(rows, key=lambda row: row.section):
        lines += [
            *("", f"## {section}", ""),
            _line(*COLUMNS),
            f"|{'---|' * len(COLUMNS)}",
        ]
        notes = []
        for row in group:
            lines += [_line(row.name, name, *_numbers(side)) for name, side in row.sides.items()]
            ratios = row.ratio, None, None, row.processor_ratio, row.memory_ratio
            lines.append(_line(row.name, "ratio", *map(_number, ratios), ""))
            notes += [f"- {row.name}: {row.note}"] if row.note else []
        lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _numbers(side: Measurement) -> list[str]:
    mebibytes = None if side.peak_bytes is None else side.peak_bytes / 2**20
    spread = (min(side.seconds), max(side.seconds)) if len(side.seconds) > 1 else (None, None)
    numbers = (side.median, *spread, side.processor_median, mebibytes)
    return [*map(_number, numbers), str(len(side.seconds))]


def _number(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
