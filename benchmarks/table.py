"""Rows as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any

from benchmarks.measure import Measurement, Row


def to_line(row: Row) -> str:
    """Return median seconds of both sides and their ratio."""
    sides = _each(row, lambda side: f"{_number(side.median)} s")
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
    """Return a table for each section; processor seconds are the medians of user plus system."""
    lines = [f"- {key}: {value}" for key, value in machine.items()]
    for section, group in groupby(rows, key=lambda row: row.section):
        lines += ["", f"## {section}", ""]
        lines += [
            "| what | median seconds (min - max) | ratio | processor seconds | ratio "
            "| peak memory | ratio | repeats |",
            "|---|---|---|---|---|---|---|---|",
        ]
        notes = []
        for row in group:
            cells = [
                row.name,
                _each(row, _seconds),
                _number(row.ratio),
                _each(row, lambda side: _number(side.processor_median)),
                _number(row.processor_ratio),
                _each(row, _mebibytes),
                _number(row.memory_ratio),
                str(min(len(side.seconds) for side in row.sides.values())),
            ]
            lines.append(f"| {' | '.join(cells)} |")
            notes += [f"- {row.name}: {row.note}"] if row.note else []
        lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _each(row: Row, text: Callable[[Measurement], str]) -> str:
    return ", ".join(f"{name} {text(side)}" for name, side in row.sides.items())


def _seconds(side: Measurement) -> str:
    median, least, most = map(_number, (side.median, min(side.seconds), max(side.seconds)))
    return median if len(side.seconds) == 1 else f"{median} ({least} - {most})"


def _mebibytes(side: Measurement) -> str:
    return "-" if side.peak_bytes is None else f"{side.peak_bytes / 2**20:,.0f} MiB"


def _number(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
