"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from reporting.explanations import COMPARISONS, NUMBERS, published_note
from reporting.figures import Plot
from reporting.paired import Comparison
from reporting.report import Report
from reporting.section import Section
from reporting.tables import Table
from reporting.text import (
    GAP,
    cell_text,
    difference_text,
    optional,
    pairs_text,
    seeds_text,
    subject_text,
)


def markdown(report: Report, plots: Mapping[Section, Sequence[Plot]], folder: str) -> str:
    """Write tables, plots (files in ``folder``), and quantized minus plain methods."""
    blocks = ["# Results", NUMBERS]
    for section in report.sections:
        blocks.append(f"## {section.title}")
        for table in section.tables:
            blocks += [f"### {table.title}", markdown_table(table)]
            blocks += [_image(p, folder) for p in plots[section] if p.dataset == table.dataset]
        told = {table.dataset for table in section.tables}
        blocks += [_image(plot, folder) for plot in plots[section] if plot.dataset not in told]
        blocks += [f"- {note}" for note in (published_note(section), *section.notes) if note]
        counterparts = [c for c in section.comparisons if c.of_counterparts]
        if counterparts:
            blocks += [
                "### Quantized minus plain",
                COMPARISONS,
                comparison_table(counterparts, section.measures),
            ]
    if report.notes:
        blocks += ["## Not in the tables", "\n".join(f"- {note}" for note in report.notes)]
    return "\n\n".join(blocks) + "\n"


def _image(plot: Plot, folder: str) -> str:
    subject = f"{plot.dataset}: " if plot.dataset else ""
    return f"![{subject}{plot.caption}]({folder}/{plot.slug}.svg)"


def markdown_table(table: Table) -> str:
    """The table in the pipe format, the best of each column in bold."""
    best = {column: table.best(column) for column in table.columns}
    lines = []
    for row in table.rows:
        line = {"method": row.method.name, "bits": optional(row.method.bits)}
        for column in table.columns:
            text = cell_text(row.cells.get(column))
            line[column] = f"**{text}**" if row.method in best[column] else text
        line["seeds"] = seeds_text(row)
        line["prompt bytes"] = optional(row.stored_bytes)
        lines.append(line)
    return _pipes(lines)


def comparison_table(comparisons: Sequence[Comparison], measures: Sequence[str]) -> str:
    """One line for each comparison, one column for each measure."""
    return _pipes(
        [
            {
                "method": comparison.first.label,
                "minus": comparison.second.label,
                "on": subject_text(comparison),
                **{key: difference_text(comparison.differences.get(key)) for key in measures},
                "n": pairs_text(comparison),
            }
            for comparison in comparisons
        ]
    )


def _pipes(lines: Sequence[Mapping[str, str]]) -> str:
    return tabulate(
        lines,
        headers="keys",
        tablefmt="pipe",
        disable_numparse=True,
        stralign="right",
        missingval=GAP,
    )
