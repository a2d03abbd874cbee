"""Base-to-new generalization: accuracies on seen and unseen classes, and their harmonic mean.

The harmonic mean is taken of the mean accuracies, as in the papers (Zhou et al., 2022, CVPR;
arXiv:2407.10704); its deviation is that of the seeds' own harmonic means.
"""

from __future__ import annotations

import pandas as pd

GROUP = ["dataset", "backbone", "num_shots"]
METHOD = ["trainer", "bits"]


def harmonic_mean(base: pd.Series, new: pd.Series) -> pd.Series:
    """2 / (1 / base + 1 / new), in the unit of its arguments."""
    return 2 * base * new / (base + new)


def pair_runs(results: pd.DataFrame) -> pd.DataFrame:
    """Join the base and the new half of each run.

    Where a method has whole pairs, its unpaired halves are left out, so that the means of both
    halves are over the same seeds; where it has none, its halves stay, with gaps.

    Returns:
        One row for each group, method and seed with ``base``, ``new``, ``h`` and ``stored_bytes``.

    Raises:
        ValueError: two different results claim the same run.
    """
    keys = [*GROUP, *METHOD, "seed"]
    halves = {}
    for half in ("base", "new"):
        rows = results[results["subsample_classes"] == half]
        rows = rows.drop_duplicates([*keys, "accuracy"])  # evaluated again, to the same end
        twice = rows[rows.duplicated(keys, keep=False)]
        if len(twice):
            paths = " and ".join(twice["path"].head(2))
            raise ValueError(f"two different results for one run: {paths}; move one away")
        halves[half] = rows.rename(columns={"accuracy": half})[[*keys, half, "stored_bytes"]]
    pairs = halves["base"].merge(halves["new"].drop(columns="stored_bytes"), "outer", on=keys)
    pairs["h"] = harmonic_mean(pairs["base"], pairs["new"])
    whole = pairs["h"].notna()
    paired = whole.groupby([pairs[key] for key in [*GROUP, *METHOD]], dropna=False).transform("any")
    return pairs[whole | ~paired]


def summarise(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds for each group and method.

    Returns:
        One row for each method with ``<metric>_mean`` and ``<metric>_std`` of base, new and h, the
        number of ``seeds`` and ``stored_bytes``; baselines stand before their quantized versions.
    """
    grouped = pairs.groupby([*GROUP, *METHOD], dropna=False, sort=False)
    summary = grouped.agg(
        **{
            f"{metric}_{statistic}": (metric, statistic)
            for metric in ("base", "new", "h")
            for statistic in ("mean", "std")
        },
        seeds=("seed", "nunique"),
        stored_bytes=("stored_bytes", "max"),
    ).reset_index()
    summary["h_mean"] = harmonic_mean(summary["base_mean"], summary["new_mean"])
    plain = summary["bits"].isna()
    learner = summary["trainer"].where(plain, summary["trainer"].str.removeprefix("Q"))
    order = summary.assign(
        _zero=summary["stored_bytes"].ne(0), _learner=learner, _bits=summary["bits"].fillna(0)
    )
    return summary.loc[order.sort_values([*GROUP, "_zero", "_learner", "_bits"]).index]


def comparisons(pairs: pd.DataFrame) -> list[str]:
    """A sentence for each quantized method and its baseline: the paired mean differences."""
    sentences = []
    keys = [*GROUP, "seed"]
    quantized = pairs[pairs["bits"].notna()]
    for (trainer, bits), rows in quantized.groupby(METHOD):
        baseline = trainer.removeprefix("Q")
        joined = rows.merge(pairs[pairs["trainer"] == baseline], on=keys, suffixes=("", "_plain"))
        joined = joined.dropna(subset=["h", "h_plain"])
        if joined.empty:
            continue
        gain = {m: (joined[m] - joined[f"{m}_plain"]).mean() for m in ("base", "new", "h")}
        verdict = "beats" if gain["h"] > 0 else "does not beat"
        sentences.append(
            f"{trainer} at {bits} bit{'s' if bits > 1 else ''} {verdict} {baseline}: "
            f"base {gain['base']:+.2f}, new {gain['new']:+.2f}, harmonic mean {gain['h']:+.2f} "
            f"points (mean paired difference over {len(joined)} runs)."
        )
    return sentences
