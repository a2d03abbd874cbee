"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reporting import explanations, text
from reporting.figures import Plot
from reporting.report import Report
from reporting.section import Section

TEMPLATES = Path(__file__).parent / "templates"


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
        "explanations": explanations,
        "markup": Markup,
        "text": text,
    }
    return environment.get_template("report.html.j2").render(report=report, plots=plots)
