"""The report's tables as LaTeX, for \\usepackage{booktabs}."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reporting.explanations import published_note
from reporting.report import Report
from reporting.section import Section
from reporting.tables import Row, Table
from reporting.text import cell_text, optional, seeds_text

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex(report: Report) -> str:
    """Write one ``table`` environment for each table, the best of each column in bold."""
    blocks = ["% needs \\usepackage{booktabs}"]
    for section in report.sections:
        blocks.append(f"% {section.title}")
        blocks += [_environment(section, table) for table in section.tables]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Escape what LaTeX reads as a command."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _environment(section: Section, table: Table) -> str:
    best = {column: table.best(column) for column in table.columns}
    header = ["method", "bits", *table.columns, "seeds"]
    label = re.sub(r"\W+", "-", f"{section.title} {table.title}".lower()).strip("-")
    caption = f"{section.title}. {table.title}. {published_note(section) or ''}".rstrip()
    lines = [_line(header), r"\midrule"]
    for earlier, row in zip([None, *table.rows], table.rows, strict=False):
        if earlier and row.method.source and not earlier.method.source:
            lines.append(r"\midrule")
        lines.append(_row(row, table.columns, best))
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _row(row: Row, columns: Sequence[str], best: dict[str, set]) -> str:
    cells = [escape(row.method.name), optional(row.method.bits)]
    for column in columns:
        text = escape(cell_text(row.cells.get(column)))
        cells.append(rf"\textbf{{{text}}}" if row.method in best[column] else text)
    return " & ".join([*cells, escape(seeds_text(row))]) + r" \\"


def _line(texts: Sequence[str]) -> str:
    return " & ".join(map(escape, texts)) + r" \\"
