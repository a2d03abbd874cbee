"""Read the results.json files below a folder into one table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

FORMAT_VERSION = 1
COLUMNS = ("dataset", "backbone", "num_shots", "trainer", "bits", "seed", "subsample_classes")


class UnreadableResultError(ValueError):
    """A results.json is damaged or of a format this version does not know."""


def read_result(path: Path) -> dict[str, object]:
    """Read one results.json into a flat record.

    Returns:
        The identifying columns, ``accuracy`` in percent, ``stored_bytes`` and ``path``.

    Raises:
        UnreadableResultError: no JSON, a missing field, or another format version.
    """
    try:
        result = json.loads(path.read_text())
        version = result["format_version"]
        if version != FORMAT_VERSION:
            raise UnreadableResultError(
                f"{path} has format version {version}, this program reads {FORMAT_VERSION}"
            )
        record = {key: result[key] for key in COLUMNS if key != "bits"}
        return {
            **record,
            "bits": result.get("bits"),
            "accuracy": result["metrics"]["accuracy"],
            "stored_bytes": result.get("stored_bytes"),
            "path": str(path),
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UnreadableResultError(
            f"{path} is no complete result ({type(error).__name__}: {error}): repeat that run"
        ) from error


def read_results(folder: Path) -> pd.DataFrame:
    """Read every results.json below ``folder``, one row for each run.

    Raises:
        FileNotFoundError: there is none.
        UnreadableResultError: one of them cannot be read.
    """
    records = [read_result(path) for path in sorted(folder.rglob("results.json"))]
    if not records:
        raise FileNotFoundError(f"no results.json below {folder}: has a run finished there?")
    table = pd.DataFrame.from_records(records)
    return table.astype({"bits": "Int64", "stored_bytes": "Int64"})
