"""``python -m reporting.paper FOLDER [TABLE ...]``: published numbers beside measured ones.

The runs of a table are below FOLDER/TABLE, where scripts/reproduce_paper.sh puts them. The page is
printed, and that of all tables is written to FOLDER/paper.md, if FOLDER is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reporting.methods import Method
from reporting.protocols import (
    BASE_TO_NEW,
    CROSS_DATASET,
    DOMAIN_GENERALIZATION,
    PUBLISHED,
    published_halves,
    published_transfer,
)
from reporting.report import make_report
from reporting.scores import AVERAGE
from reporting.writers import GAP, markdown_pipes, write_file

PAPER = "QPrompt paper"
MEASURED = ["mean", "sets", "of"]
NONE = "The paper gives no means for this table."


class Number(NamedTuple):
    """One of the paper's, or a published one that it compares itself with."""

    table: str
    protocol: str
    method: Method
    measure: str
    value: float


def published() -> list[Number]:
    """All published numbers that a table here has a mean for."""
    halves = published_halves().loc[AVERAGE]
    means = {("base_to_new", BASE_TO_NEW): halves[[m.source == PAPER for m in halves.index]]}
    for protocol in CROSS_DATASET, DOMAIN_GENERALIZATION:
        means["transfer", protocol] = published_transfer(protocol)["mean"][[AVERAGE]].dropna()
    numbers = [
        Number(*where, _measured_as(method), measure, value)
        for where, frame in means.items()
        for (method, measure), value in frame.stack().items()
    ]
    own = pd.read_csv(PUBLISHED / "qprompt.csv", dtype={"bits": "Int64"}).astype(object)
    for line in own.where(own.notna(), None).itertuples():
        method = Method(line.trainer, line.bits, line.variant or "")
        numbers.append(Number(line.table, BASE_TO_NEW, method, line.measure, line.paper))
    return numbers


def _measured_as(method: Method) -> Method:
    if method.zero_shot:
        return Method("ZeroshotCLIP", zero_shot=True)
    return Method(method.trainer, method.bits)


def beside(folder: Path, numbers: list[Number]) -> pd.DataFrame:
    """Published numbers of a table and what was measured, as text.

    Args:
        folder: of the table's runs, which need not be there.
        numbers: not empty.
    """
    there = folder.is_dir() and any(folder.rglob("results.json"))
    sections = make_report(folder).sections if there else []
    cells = {section.protocol: section.tables[0].cells for section in sections}
    rows = []
    for _, protocol, method, measure, value in numbers:
        row = {
            "protocol": protocol,
            "method": method.name,
            "bits": str(method.bits or GAP),
            "measure": measure,
            "paper": f"{value:.2f}",
            **dict.fromkeys(["measured", "difference", "data sets"], GAP),
        }
        if protocol in cells and method in cells[protocol].index:
            mean, sets, of = cells[protocol].loc[method].xs(measure, level="column")[MEASURED]
            row |= {"measured": f"{mean:.2f}", "difference": f"{mean - value:+.2f}"}
            row["data sets"] = f"{sets:.0f} of {of:.0f}"
        rows.append(row)
    return pd.DataFrame(rows)


def page(folder: Path, tables: Sequence[str] = ()) -> str:
    """Write the page in Markdown, a table for each of the paper's; none named: for all."""
    numbers = published()
    blocks = ["# Paper against measured"]
    for table in tables or dict.fromkeys(number.table for number in numbers):
        own = [number for number in numbers if number.table == table]
        blocks += [f"## {table}", markdown_pipes(beside(folder / table, own)) if own else NONE]
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reporting.paper",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the tables' runs are")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="default: all with numbers")
    args = parser.parse_args()
    text = page(args.folder, args.tables)
    print(text)
    if args.folder.is_dir() and not args.tables:
        write_file(args.folder / "paper.md", text)


if __name__ == "__main__":
    main()
