"""The report's numbers as CSV, one line for each number, unrounded."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping

from reporting.methods import Method
from reporting.report import Report
from reporting.section import Section


def spreadsheets(report: Report) -> dict[str, str]:
    """Write a file for each protocol, and one for the paired comparisons.

    Returns:
        Contents by file name.
    """
    lines: dict[str, list[dict[str, object]]] = defaultdict(list)
    for section in report.sections:
        lines[_file_name(section.protocol)] += _means(section)
        lines["paired.csv"] += _differences(section)
    return {name: _csv(found) for name, found in lines.items() if found}


def _means(section: Section) -> Iterable[dict[str, object]]:
    for table in section.tables:
        for row in table.rows:
            for column, cell in row.cells.items():
                if column in table.columns:
                    yield {
                        **_setting(section),
                        "dataset": table.dataset or column,
                        **_method(row.method),
                        "measure": column if table.dataset else "accuracy",
                        "mean": cell.mean,
                        "std": cell.std,
                        "seeds": cell.seeds,
                        "datasets": cell.sets,
                        "of_datasets": cell.of,
                        "stored_bytes": row.stored_bytes,
                        "published_in": row.method.source,
                    }


def _differences(section: Section) -> Iterable[dict[str, object]]:
    for comparison in section.comparisons:
        for measure, difference in comparison.differences.items():
            margin = difference.margin
            yield {
                "protocol": section.protocol,
                **_setting(section),
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


def _setting(section: Section) -> Mapping[str, object]:
    setting = section.setting
    return {
        "data": setting.family,
        "backbone": setting.backbone,
        "split": setting.split,
        "shots": setting.shots,
        "source": setting.source,
    }


def _method(method: Method) -> Mapping[str, object]:
    return {
        "method": method.name,
        "trainer": method.trainer,
        "bits": method.bits,
        "variant": method.variant,
        "from_log": method.from_log,
    }


def _file_name(protocol: str) -> str:
    return protocol.lower().replace("-", "_").replace(" ", "_") + ".csv"


def _csv(lines: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
