"""The files of a report: one HTML page that needs nothing else, Markdown, LaTeX, CSV."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tabulate import tabulate

from reporting.plots import Plot, section_plots
from reporting.report import Report, make_report
from reporting.scores import AVERAGE, holm
from reporting.tables import Section, Table

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
    "corrected for the number of comparisons. The p of the two-sided sign test, from 6 pairs on, "
    "is corrected for the number of its table's rows (Holm)."
)
COLLAPSED = (
    "Runs that ended more than 10 points below zero-shot CLIP on the same data, and their share "
    "with its 95% interval (Wilson)."
)
FEWEST_PAIRS = 6  # with fewer a sign test cannot come below 0.05


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
        write_file(output / name, text)
    return report


def write_file(path: Path, text: str) -> None:
    """Replace a file as a whole, so that no reader sees half of it."""
    content = text.encode(errors="backslashreplace")  # a folder's name need not be UTF-8
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise OSError(
            f'cannot write "{path}" ({error.strerror}, {len(content):,} bytes are needed): '
            "free space there, or name another folder as --output"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


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
        "published_note": published_note,
        "table_texts": table_texts,
        "comparison_texts": comparison_texts,
        "COLLAPSED": COLLAPSED,
        "collapse_texts": collapse_texts,
    }
    return environment.get_template("report.html.j2").render(report=report, plots=plots)


def markdown(report: Report, plots: Mapping[Section, Sequence[Plot]], folder: str) -> str:
    """Write tables, plots (files in ``folder``), and quantized minus plain methods."""
    blocks = ["# Results", NUMBERS]
    for section in report.sections:
        blocks.append(f"## {_one_line(section.title)}")
        for table in section.tables:
            blocks += [f"### {_one_line(table.title)}", markdown_table(section, table)]
            blocks += [
                _markdown_image(p, folder) for p in plots[section] if p.dataset == table.dataset
            ]
        subjects = {table.dataset for table in section.tables}
        blocks += [
            _markdown_image(plot, folder) for plot in plots[section] if plot.dataset not in subjects
        ]
        notes = [note for note in (published_note(section), *section.notes) if note]
        blocks += [f"- {_one_line(note)}" for note in notes]
        counterparts = [key for key in section.comparisons.index if key[0].quantizes(key[1])]
        if counterparts:
            lines = comparison_texts(section, section.comparisons.loc[counterparts])
            lines = lines.rename(columns={"pairs": "n"})
            blocks += ["### Quantized minus plain", COMPARISONS, markdown_pipes(lines)]
        if len(section.collapsed):
            blocks += ["### Collapsed runs", COLLAPSED, markdown_pipes(collapse_texts(section))]
    if report.notes:
        notes = [f"- {_one_line(note)}" for note in report.notes]
        blocks += ["## Not in the tables", "\n".join(notes)]
    return "\n\n".join(blocks) + "\n"


def _markdown_image(plot: Plot, folder: str) -> str:
    subject = f"{plot.dataset}: " if plot.dataset else ""
    return f"![{_one_line(subject + plot.caption)}]({folder}/{plot.slug}.svg)"


def markdown_table(section: Section, table: Table) -> str:
    """The table in the pipe format, the best of each column in bold."""
    return markdown_pipes(table_texts(section, table, bold="**{}**"))


def markdown_pipes(texts: pd.DataFrame) -> str:
    texts = texts.rename(columns=_markdown_escape).map(_markdown_escape)
    return tabulate(
        texts,
        headers="keys",
        tablefmt="pipe",
        showindex=False,
        disable_numparse=True,
        stralign="right",
    )


def _markdown_escape(text: str) -> str:
    """Escape what would end a cell or a line."""
    return _one_line(text.replace("|", r"\|"))


def _one_line(text: str) -> str:
    """Names come from files; a line of its own could be a command or a heading."""
    return " ".join(text.splitlines())


def latex(report: Report) -> str:
    """Write one ``table`` environment for each table, the best of each column in bold."""
    blocks = ["% needs \\usepackage{booktabs}"]
    for section in report.sections:
        blocks.append(f"% {latex_escape(section.title)}")
        blocks += [_latex_table(section, table) for table in section.tables]
    return "\n\n".join(blocks) + "\n"


def latex_escape(text: str) -> str:
    """Escape what LaTeX reads as a command."""
    return "".join(_LATEX_ESCAPES.get(character, character) for character in _one_line(text))


def _latex_table(section: Section, table: Table) -> str:
    label = re.sub(r"\W+", "-", f"{section.title} {table.title}".lower()).strip("-")
    caption = f"{section.title}. {table.title}. {published_note(section) or ''}".rstrip()
    texts = table_texts(section, table).drop(columns="prompt bytes").map(latex_escape)
    for column in table.columns:
        best = table.best[column].to_numpy()
        texts.loc[best, column] = texts.loc[best, column].map(r"\textbf{{{}}}".format)
    here = len(table.measured.cells)
    if 0 < here < len(texts):
        texts.iloc[here, 0] = "\\midrule\n" + texts.iloc[here, 0]
    texts.columns = texts.columns.map(latex_escape)
    return (
        texts.style.hide(axis="index")
        .to_latex(
            column_format="l" + "r" * (texts.shape[1] - 1),
            position="t",
            position_float="centering",
            hrules=True,
            caption=latex_escape(caption),
            label=f"tab:{label}",
        )
        .rstrip()
    )


def spreadsheets(report: Report) -> dict[str, str]:
    """Write a file for each protocol, and one for the paired comparisons.

    Returns:
        Contents by file name.
    """
    parts: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for section in report.sections:
        name = section.protocol.lower().replace("-", "_").replace(" ", "_") + ".csv"
        parts[name] += [_means(section, table) for table in section.tables]
        if len(section.comparisons):
            parts["paired.csv"].append(_differences(section))
    files = {
        name: pd.concat(lines).rename(columns={"family": "data"}) for name, lines in parts.items()
    }
    return {name: lines.map(_no_formula).to_csv(index=False) for name, lines in files.items()}


def _no_formula(value: object) -> object:
    """Put a quote before a text that spreadsheets would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple("=+-@\t\r")) else value


def _means(section: Section, table: Table) -> pd.DataFrame:
    means = table.cells.stack("column", future_stack=True).dropna(subset="mean").reset_index()
    methods = pd.DataFrame(map(asdict, means.method))
    lines = {
        **asdict(section.setting),
        "dataset": table.dataset or means.column,
        "method": [method.name for method in means.method],
        **methods[["trainer", "bits", "variant", "settings", "from_log"]],
        "measure": means.column if table.dataset else "accuracy",
        **means[["mean", "std", "seeds"]],
        "datasets": means["sets"],
        "of_datasets": means["of"],
        "stored_bytes": means.method.map(section.stored_bytes),
        "published_in": methods.source,
    }
    whole = ["shots", "bits", "seeds", "datasets", "of_datasets"]
    return pd.DataFrame(lines).astype(dict.fromkeys(whole, "Int64"))


def _differences(section: Section) -> pd.DataFrame:
    stacked = section.comparisons.stack("measure", future_stack=True)
    compared = stacked.dropna(subset="mean").reset_index()
    lines = {
        "protocol": section.protocol,
        **asdict(section.setting),
        "dataset": compared.dataset,
        "datasets": compared["sets"],
        "first": [method.label for method in compared["first"]],
        "second": [method.label for method in compared["second"]],
        "measure": compared.measure,
        "first_minus_second": compared["mean"],
        "low_95": compared["mean"] - compared.margin,
        "high_95": compared["mean"] + compared.margin,
        "median": compared["median"],
        "p_sign_test": compared.p,
        "pairs": compared["n"],
    }
    return pd.DataFrame(lines).astype(dict.fromkeys(["shots", "datasets", "pairs"], "Int64"))


def published_note(section: Section) -> str | None:
    """Where the published numbers of a section come from."""
    sources: dict[str, list[str]] = {}
    for table in section.tables:
        for method in table.cells.index:
            if method.source:
                names = sources.setdefault(method.source, [])
                names += [method.trainer] * (method.trainer not in names)
    if not sources:
        return None
    listed = "; ".join(f"{', '.join(names)}: {source}" for source, names in sources.items())
    return f"Published numbers, not measured here ({listed})."


def table_texts(section: Section, table: Table, bold: str = "{}") -> pd.DataFrame:
    """Mean ± deviation in percent, and how many data sets an average with gaps is over.

    ``bold`` is the format of the best of each column.
    """
    mean, std, sets, of = (table.cells[name] for name in ("mean", "std", "sets", "of"))
    texts = mean.map("{:.2f}".format) + std.map(" ± {:.2f}".format).where(std.notna(), "")
    gaps = sets.map(" ({:.0f} of ".format) + of.map("{:.0f})".format)
    texts = (texts + gaps.where(sets < of, "")).where(mean.notna(), GAP)
    texts = texts.where(~table.best, texts.map(bold.format))
    texts.insert(0, "method", [method.name for method in texts.index])
    texts.insert(1, "bits", [str(method.bits or GAP) for method in texts.index])
    sizes = section.stored_bytes.reindex(texts.index).astype("string").fillna(GAP)
    return texts.assign(**{"seeds": _spans(table.cells["seeds"]), "prompt bytes": sizes})


def comparison_texts(section: Section, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Mean differences in points and their intervals.

    Where there are seeds enough for a sign test, its p and the median, of the headline measure.
    """
    mean, margin = comparisons["mean"], comparisons["margin"]
    there = mean.notna()
    intervals = (mean - margin).map(" [{:+.2f}, ".format) + (mean + margin).map("{:+.2f}]".format)
    texts = mean.map("{:+.2f}".format) + intervals.where(margin.notna(), " (no interval)")
    texts = texts.where(there, GAP)
    firsts, seconds, datasets = zip(*comparisons.index, strict=True)
    texts.insert(0, "method", [method.label for method in firsts])
    texts.insert(1, "minus", [method.label for method in seconds])
    sets = _spans(comparisons["sets"][there])
    pairs = zip(datasets, sets, strict=True)
    texts.insert(2, "on", [f"{d} of {n}" if d == AVERAGE else d for d, n in pairs])
    enough = comparisons["n"].get(section.measure, pd.Series(0, comparisons.index)) >= FEWEST_PAIRS
    if enough.any():
        headline = comparisons.xs(section.measure, axis=1, level="measure")[enough]
        median = headline["median"].map("{:+.2f}".format)
        p = holm(headline["p"]).map("{:.3f}".format)
        texts[f"median {section.measure}"] = median.reindex(texts.index).fillna(GAP)
        texts["p (sign test)"] = p.reindex(texts.index).fillna(GAP)
    return texts.assign(pairs=_spans(comparisons["n"][there]))


def collapse_texts(section: Section) -> pd.DataFrame:
    """How many runs of each method collapsed, and the interval of their share."""
    counts = section.collapsed
    share = counts.collapsed / counts.runs
    bounds = [
        f"{s:.0%} [{low:.0%}, {high:.0%}]"
        for s, low, high in zip(share, counts.low, counts.high, strict=True)
    ]
    methods, datasets = zip(*counts.index, strict=True)
    return pd.DataFrame(
        {
            "method": [method.label for method in methods],
            "on": datasets,
            "collapsed": [
                f"{k} of {n}" for k, n in zip(counts.collapsed, counts.runs, strict=True)
            ],
            "share": bounds,
        }
    )


def _spans(counts: pd.DataFrame) -> pd.Series:
    """In each row the least and the greatest number, or the only one."""
    low, high = (bound.map("{:.0f}".format) for bound in (counts.min(axis=1), counts.max(axis=1)))
    return low.where(low == high, low + "–" + high).replace("nan", GAP)
