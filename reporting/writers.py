"""The files of a report: one HTML page that needs nothing else, Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tabulate import tabulate

from reporting.methods import Method
from reporting.plots import Plot, section_plots
from reporting.report import Report, make_report
from reporting.scores import AVERAGE, Cell, Comparison, Difference
from reporting.tables import Row, Section, Table

PLOTS = "plots"
TEMPLATES = Path(__file__).parent / "templates"
GAP = "-"
_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
NUMBERS = (
    "Accuracy in percent, mean ± sample standard deviation over seeds. A dash is a run that is "
    'missing; an average marked "n of N" is over n data sets and is not compared with whole ones. '
    "H is the harmonic mean of mean base and mean new accuracy. Prompt bytes: packed payload, or "
    "half precision where nothing is quantized. Bold: the highest mean of a column."
)
COMPARISONS = (
    "Mean difference in points between runs of the same seed, which share their few-shot subsets, "
    "with its 95% interval (Student's t over seeds; on averages over data sets, the differences of "
    "the seeds' averages, so that the interval says nothing about other data sets). An interval "
    "that holds 0 does not tell the two apart. With one seed nothing is claimed. Intervals are not "
    "corrected for the number of comparisons."
)


def write_report(folder: Path, output: Path) -> Report:
    """Read the runs below ``folder`` and write all files into ``output``; errors: make_report."""
    report = make_report(folder)
    plots = {section: section_plots(section) for section in report.sections}
    files = {
        "report.html": page(report, plots),
        "report.md": markdown(report, plots, PLOTS),
        "report.tex": latex(report),
        **spreadsheets(report),
        **{f"{PLOTS}/{plot.slug}.svg": plot.file for drawn in plots.values() for plot in drawn},
    }
    for name, text in files.items():
        _write(output / name, text)
    return report


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def page(report: Report, plots: Mapping[Section, Sequence[Plot]]) -> str:
    """Fill the template with sortable tables, inline plots and comparisons."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "markup": Markup,
        "NUMBERS": NUMBERS,
        "COMPARISONS": COMPARISONS,
        **{function.__name__: function for function in _TEXTS},
    }
    return environment.get_template("report.html.j2").render(report=report, plots=plots)


def markdown(report: Report, plots: Mapping[Section, Sequence[Plot]], folder: str) -> str:
    """Write tables, plots (files in ``folder``), and quantized minus plain methods."""
    blocks = ["# Results", NUMBERS]
    for section in report.sections:
        blocks.append(f"## {section.title}")
        for table in section.tables:
            blocks += [f"### {table.title}", markdown_table(table)]
            blocks += [
                _markdown_image(p, folder) for p in plots[section] if p.dataset == table.dataset
            ]
        subjects = {table.dataset for table in section.tables}
        blocks += [
            _markdown_image(plot, folder) for plot in plots[section] if plot.dataset not in subjects
        ]
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


def _markdown_image(plot: Plot, folder: str) -> str:
    subject = f"{plot.dataset}: " if plot.dataset else ""
    return f"![{subject}{plot.caption}]({folder}/{plot.slug}.svg)"


def markdown_table(table: Table) -> str:
    """The table in the pipe format, the best of each column in bold."""
    best = {column: table.best(column) for column in table.columns}
    lines = []
    for row in table.rows:
        line = {"method": row.method.name, "bits": optional_text(row.method.bits)}
        for column in table.columns:
            text = cell_text(row.cells.get(column))
            line[column] = f"**{text}**" if row.method in best[column] else text
        line["seeds"] = seeds_text(row)
        line["prompt bytes"] = optional_text(row.stored_bytes)
        lines.append(line)
    return _markdown_pipes(lines)


def comparison_table(comparisons: Sequence[Comparison], measures: Sequence[str]) -> str:
    """One line for each comparison, one column for each measure."""
    return _markdown_pipes(
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


def _markdown_pipes(lines: Sequence[Mapping[str, str]]) -> str:
    return tabulate(
        lines,
        headers="keys",
        tablefmt="pipe",
        disable_numparse=True,
        stralign="right",
        missingval=GAP,
    )


def latex(report: Report) -> str:
    """Write one ``table`` environment for each table, the best of each column in bold."""
    blocks = ["% needs \\usepackage{booktabs}"]
    for section in report.sections:
        blocks.append(f"% {section.title}")
        blocks += [_latex_table(section, table) for table in section.tables]
    return "\n\n".join(blocks) + "\n"


def latex_escape(text: str) -> str:
    """Escape what LaTeX reads as a command."""
    return "".join(_LATEX_ESCAPES.get(character, character) for character in text)


def _latex_table(section: Section, table: Table) -> str:
    best = {column: table.best(column) for column in table.columns}
    header = ["method", "bits", *table.columns, "seeds"]
    label = re.sub(r"\W+", "-", f"{section.title} {table.title}".lower()).strip("-")
    caption = f"{section.title}. {table.title}. {published_note(section) or ''}".rstrip()
    lines = [_latex_line(header), r"\midrule"]
    for earlier, row in zip([None, *table.rows], table.rows, strict=False):
        if earlier and row.method.source and not earlier.method.source:
            lines.append(r"\midrule")
        lines.append(_latex_row(row, table.columns, best))
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex_escape(caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_row(row: Row, columns: Sequence[str], best: dict[str, set]) -> str:
    cells = [latex_escape(row.method.name), optional_text(row.method.bits)]
    for column in columns:
        text = latex_escape(cell_text(row.cells.get(column)))
        cells.append(rf"\textbf{{{text}}}" if row.method in best[column] else text)
    return " & ".join([*cells, latex_escape(seeds_text(row))]) + r" \\"


def _latex_line(texts: Sequence[str]) -> str:
    return " & ".join(map(latex_escape, texts)) + r" \\"


def spreadsheets(report: Report) -> dict[str, str]:
    """Write a file for each protocol, and one for the paired comparisons.

    Returns:
        Contents by file name.
    """
    lines: dict[str, list[dict[str, object]]] = defaultdict(list)
    for section in report.sections:
        lines[_csv_name(section.protocol)] += _mean_lines(section)
        lines["paired.csv"] += _difference_lines(section)
    return {name: _csv(rows) for name, rows in lines.items() if rows}


def _mean_lines(section: Section) -> Iterable[dict[str, object]]:
    for table in section.tables:
        for row in table.rows:
            for column, cell in row.cells.items():
                if column in table.columns:
                    yield {
                        **_setting_columns(section),
                        "dataset": table.dataset or column,
                        **_method_columns(row.method),
                        "measure": column if table.dataset else "accuracy",
                        "mean": cell.mean,
                        "std": cell.std,
                        "seeds": cell.seeds,
                        "datasets": cell.sets,
                        "of_datasets": cell.of,
                        "stored_bytes": row.stored_bytes,
                        "published_in": row.method.source,
                    }


def _difference_lines(section: Section) -> Iterable[dict[str, object]]:
    for comparison in section.comparisons:
        for measure, difference in comparison.differences.items():
            margin = difference.margin
            yield {
                "protocol": section.protocol,
                **_setting_columns(section),
                "dataset": comparison.dataset,
                "datasets": difference.sets,
                "first": comparison.first.label,
                "second": comparison.second.label,
                "measure": measure,
                "first_minus_second": difference.mean,
                "low_95": None if margin is None else difference.mean - margin,
                "high_95": None if margin is None else difference.mean + margin,
                "pairs": difference.n,
            }


def _setting_columns(section: Section) -> Mapping[str, object]:
    setting = section.setting
    return {
        "data": setting.family,
        "backbone": setting.backbone,
        "split": setting.split,
        "shots": setting.shots,
        "source": setting.source,
    }


def _method_columns(method: Method) -> Mapping[str, object]:
    return {
        "method": method.name,
        "trainer": method.trainer,
        "bits": method.bits,
        "variant": method.variant,
        "from_log": method.from_log,
    }


def _csv_name(protocol: str) -> str:
    return protocol.lower().replace("-", "_").replace(" ", "_") + ".csv"


def _csv(lines: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def published_note(section: Section) -> str | None:
    """Where the published numbers of a section come from."""
    sources: dict[str, list[str]] = {}
    for table in section.tables:
        for row in table.rows:
            if row.method.source:
                names = sources.setdefault(row.method.source, [])
                names += [row.method.trainer] * (row.method.trainer not in names)
    if not sources:
        return None
    listed = "; ".join(f"{', '.join(names)}: {source}" for source, names in sources.items())
    return f"Published numbers, not measured here ({listed})."


def cell_text(cell: Cell | None) -> str:
    """Mean ± deviation in percent, and how many data sets an average with gaps is over."""
    if cell is None:
        return GAP
    spread = "" if cell.std is None else f" ± {cell.std:.2f}"
    return f"{cell.mean:.2f}{spread}" + ("" if cell.complete else f" ({cell.sets} of {cell.of})")


def difference_text(difference: Difference | None) -> str:
    """Mean difference in points and its interval."""
    if difference is None:
        return GAP
    if difference.margin is None:
        return f"{difference.mean:+.2f} (no interval)"
    low, high = difference.mean - difference.margin, difference.mean + difference.margin
    return f"{difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def seeds_text(row: Row) -> str:
    """The number of seeds, or the least and the greatest."""
    return _span(cell.seeds for cell in row.cells.values() if cell.seeds)


def pairs_text(comparison: Comparison) -> str:
    """The number of pairs, or the least and the greatest."""
    return _span(difference.n for difference in comparison.differences.values())


def subject_text(comparison: Comparison) -> str:
    """The data set, or how many the average is over."""
    if comparison.dataset != AVERAGE:
        return comparison.dataset
    return f"{AVERAGE} of {_span(d.sets for d in comparison.differences.values())}"


def optional_text(value: object) -> str:
    return GAP if value is None else str(value)


def _span(counts: object) -> str:
    ordered = sorted(set(counts))
    return "–".join(map(str, dict.fromkeys([ordered[0], ordered[-1]]))) if ordered else GAP


_TEXTS = (
    cell_text,
    difference_text,
    optional_text,
    pairs_text,
    published_note,
    seeds_text,
    subject_text,
)
