"""``python -m reporting FOLDER``: report.md and plots from every results.json below a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reporting.base_to_new import GROUP, comparisons, pair_runs, summarise
from reporting.render import markdown_table, plot_trade_off
from reporting.results import UnreadableResultError, read_results


def write_report(folder: Path) -> str:
    """Write ``report.md`` and one plot for each data set into ``folder``; return the tables."""
    pairs = pair_runs(read_results(folder))
    if pairs.empty:
        raise ValueError(f"no runs with DATASET.SUBSAMPLE_CLASSES base or new below {folder}")
    tables, sections = [], []
    for (dataset, backbone, shots), summary in summarise(pairs).groupby(GROUP, sort=False):
        title = f"{dataset}, {backbone}, {shots} shots"
        plot = f"base_to_new_{dataset}_{backbone}_{shots}.png".replace("/", "-")
        plot_trade_off(summary, folder / plot)
        table = markdown_table(summary)
        tables.append(f"{title}\n\n{table}")
        sections.append(f"## {title}\n\n{table}\n\n![new against base accuracy]({plot})\n")
    verdicts = "\n".join(f"- {sentence}" for sentence in comparisons(pairs))
    ending = f"\n## Quantized against plain\n\n{verdicts}\n" if verdicts else ""
    report = (
        "# Base-to-new generalization\n\n"
        "Accuracy in percent, mean ± standard deviation over seeds; the harmonic mean is that of "
        "the two means. Prompt bytes: packed payload, or half precision where nothing is "
        "quantized.\n\n" + "\n".join(sections) + ending
    )
    (folder / "report.md").write_text(report, encoding="utf-8")
    return "\n\n".join([*tables, verdicts]).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        print(write_report(folder))
    except (OSError, UnreadableResultError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"\nWritten to {folder / 'report.md'}")


if __name__ == "__main__":
    main()
