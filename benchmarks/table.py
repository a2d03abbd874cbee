"""Rows as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from benchmarks.measure import Measurement, Row


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
                "memory_ratio": row.memory_ratio,
                "note": row.note,
            }
            for row in rows
        ],
    }


def to_markdown(rows: Iterable[Row], machine: Mapping[str, str]) -> str:
    """Return a table for each section; ratios are first over second."""
    lines = [f"- {key}: {value}" for key, value in machine.items()]
    for section, group in groupby(rows, key=lambda row: row.section):
        lines += ["", f"## {section}", ""]
        lines += [
            "| what | median seconds | ratio | peak memory | ratio | repeats |",
            "|---|---|---|---|---|---|",
        ]
        notes = []
        for row in group:
            sides = row.sides.items()
            repeats = min(len(side.seconds) for side in row.sides.values())
            cells = [
                row.name,
                ", ".join(f"{name} {_seconds(side)}" for name, side in sides),
                _ratio(row.ratio),
                ", ".join(f"{name} {_mebibytes(side)}" for name, side in sides),
                _ratio(row.memory_ratio),
                str(repeats),
            ]
            lines.append(f"| {' | '.join(cells)} |")
            notes += [f"- {row.name}: {row.note}"] if row.note else []
        lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def _seconds(side: Measurement) -> str:
    return f"{side.median:.3g}"


def _mebibytes(side: Measurement) -> str:
    return "-" if side.peak_bytes is None else f"{side.peak_bytes / 2**20:,.0f} MiB"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3g}"
