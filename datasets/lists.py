"""Lists of images as text, a line for each: of a user's own images, and of shots."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dassl.data.datasets import Datum
from dassl.utils import atomic_write, short_repr

from .splits import SplitError, Splits, check_file, image_path, relative_path

HEADINGS = ("path", "image", "file", "filename")  # a first line that starts so is a heading


class Row(NamedTuple):
    """A line: path of an image, name of its class, and train, val, test or ""."""

    path: str
    classname: str
    part: str = ""


def read_rows(path: str, part: str = "") -> list[Row]:
    """Read a list in UTF-8, whose fields commas, semicolons, tabs or blanks separate.

    Args:
        path: the file.
        part: the part that all its images are in; "": the list may say it of each.

    Raises:
        DatasetNotFoundError: the file is missing.
        SplitError: it is no text, a line has other fields or another part, some lines lack the
            part, or there are none.
    """
    check_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise SplitError(f"{path} is not UTF-8 ({error}): save it as that") from error
    first_line = text.strip().partition("\n")[0]
    delimiter = next((sign for sign in "\t,;" if sign in first_line), " ")
    lines = map(str.strip, text.split("\n"))
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[Row] = []
    try:
        for cells in reader:
            if cells and (rows or cells[0].lower() not in HEADINGS):
                rows.append(_row(cells, part, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise SplitError(f"{path}, line {reader.line_num}: {error}; correct it") from error
    if not rows:
        raise SplitError(f"{path} names no images: delete it, or fill it")
    if len({bool(row.part) for row in rows}) > 1:
        raise SplitError(f"{path} says of some images only which part they are in: say it of all")
    return rows


def _row(cells: list[str], part: str, where: str) -> Row:
    parts = [part] if part else Splits._fields
    match [cell.strip() for cell in cells]:
        case [path, classname] if path and classname:
            return Row(path, classname, part)
        case [path, classname, own] if path and classname and own.lower() in parts:
            return Row(path, classname, own.lower())
    raise SplitError(
        f"{where} must be path, class and, if you like, {' or '.join(parts)}, not "
        f"{short_repr(cells)}"
    )


def pick(items: Iterable[Datum], wanted: Sequence[tuple[str, str]], source: str) -> list[Datum]:
    """Return the items of some images, in the order in which these are named.

    Args:
        items: those to choose from.
        wanted: path and class name of each image.
        source: the file that names them, for the message.

    Raises:
        SplitError: an image is none of the items, or is of another class there.
    """
    known = {item.impath: item for item in items}
    if unknown := [path for path, _ in wanted if path not in known]:
        raise SplitError(
            f"{source}: {len(unknown)} of {len(wanted)} images are none to draw shots from, the "
            f"first being {unknown[0]}; put them there, or move the list away"
        )
    for path, classname in wanted:
        if known[path].classname != classname:
            raise SplitError(
                f"{source}: {path} is of the class {classname!r}, but {known[path].classname!r} "
                "here: take the class names of that run, or move the list away"
            )
    return [known[path] for path, _ in wanted]


def read_shots(path: str, splits: Splits, image_dir: str) -> Splits:
    """Return a full split with the listed images of each part; parts without any stay whole.

    Raises:
        SplitError: the list is malformed, or does not fit the split.
    """
    rows = read_rows(path)

    def chosen(part: str, items: list[Datum]) -> list[Datum]:
        own = (row for row in rows if (row.part or "train") == part)
        wanted = [(image_path(image_dir, row.path, path), row.classname) for row in own]
        return pick(items, wanted, path) if wanted else items

    return Splits(*(chosen(part, items) for part, items in splits._asdict().items()))


def write_shots(path: str, shots: Splits, splits: Splits, image_dir: str) -> None:
    """Write a list that :func:`read_shots` reads back; an existing one is never overwritten."""
    parts = [name for name in Splits._fields if getattr(shots, name) != getattr(splits, name)]
    if os.path.exists(path):
        raise FileExistsError(f"{path} exists; delete it first to have another list")
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "class", "split"))
        for part in parts:
            for item in getattr(shots, part):
                writer.writerow((relative_path(image_dir, item), item.classname, part))
