"""Write summaries as Markdown and as a plot."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

GAP = "-"


def markdown_table(summary: pd.DataFrame) -> str:
    """The summary as a Markdown table; what was not measured shows as a dash."""

    def spread(row: pd.Series, metric: str) -> str:
        mean, deviation = row[f"{metric}_mean"], row[f"{metric}_std"]
        if pd.isna(mean):
            return GAP
        return f"{mean:.2f}" if pd.isna(deviation) else f"{mean:.2f} ± {deviation:.2f}"

    def whole(value: object) -> str:
        return GAP if pd.isna(value) else str(value)

    table = pd.DataFrame(
        {
            "trainer": summary["trainer"],
            "bits": summary["bits"].map(whole, na_action=None),
            "base": summary.apply(spread, axis=1, metric="base"),
            "new": summary.apply(spread, axis=1, metric="new"),
            "harmonic mean": summary.apply(spread, axis=1, metric="h"),
            "seeds": summary["seeds"],
            "prompt bytes": summary["stored_bytes"].map(whole, na_action=None),
        }
    )
    return table.to_markdown(index=False, disable_numparse=True, stralign="right")


def plot_trade_off(summary: pd.DataFrame, path: Path) -> None:
    """Draw new-class against base-class accuracy, one point with error bars for each method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5), constrained_layout=True)
    for _, row in summary.iterrows():
        label = row["trainer"] if pd.isna(row["bits"]) else f"{row['trainer']}, {row['bits']} bit"
        axes.errorbar(
            row["base_mean"],
            row["new_mean"],
            xerr=row["base_std"],
            yerr=row["new_std"],
            fmt="o" if pd.isna(row["bits"]) else "s",
            capsize=3,
            label=f"{label} (H {row['h_mean']:.1f})",
        )
    axes.set(xlabel="base classes, accuracy in %", ylabel="new classes, accuracy in %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)
