"""Annotation files as data sets are distributed with: lists of lines, MATLAB files."""

from __future__ import annotations

import re
from typing import Any

from .splits import SplitError, check_file


def matching_lines(path: str, pattern: str) -> list[tuple[str, ...]]:
    """Return the groups of a pattern for each line of a text file; empty lines are passed over.

    Backslashes are slashes, and a byte-order mark at the beginning is no text.

    Args:
        path: the text file.
        pattern: regular expression that every line must match as a whole.

    Raises:
        DatasetNotFoundError: the file is missing.
        SplitError: a line does not match, or the file holds no text.
    """
    check_file(path)
    found = []
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                match = re.fullmatch(pattern, line.strip().replace("\\", "/"))
                if not match:
                    raise SplitError(
                        f"{path}, line {number}: {line.strip()!r} does not match {pattern}; get "
                        "the file again"
                    )
                found.append(match.groups())
    except UnicodeDecodeError as error:
        raise SplitError(f"{path} is not a text file ({error}); get it again") from error
    return found


def mat_variable(path: str, name: str) -> Any:
    """Return a variable of a MATLAB file; structs become dicts.

    Raises:
        DatasetNotFoundError: the file is missing.
        SplitError: it is no MATLAB file, or lacks the variable.
    """
    from scipy.io import loadmat

    check_file(path)
    try:
        variables = loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises whatever its parser trips over
        raise SplitError(f"{path} is not a MATLAB file ({error}); get it again") from error
    if name not in variables:
        raise SplitError(f"{path} holds no variable {name!r}; get the file again")
    return variables[name]


def mat_records(path: str, name: str, *fields: str) -> list[tuple[Any, ...]]:
    """Return some fields of each element of a struct array in a MATLAB file.

    Raises:
        DatasetNotFoundError: the file is missing.
        SplitError: it is no MATLAB file, or lacks the variable or a field.
    """
    records = mat_variable(path, name)
    records = records if isinstance(records, list) else [records]
    for record in records:
        missing = [f for f in fields if not isinstance(record, dict) or f not in record]
        if missing:
            raise SplitError(f"{path}: an element of {name!r} has no {missing[0]!r}")
    return [tuple(record[field] for field in fields) for record in records]
