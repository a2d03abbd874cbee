"""Lists of images that CoOp pickles, read without executing anything that they name."""

from __future__ import annotations

from typing import Any

from dassl.utils import safe_unpickler

from .splits import SplitError


class _Datum:
    """Takes the attributes of a pickled object, and does nothing."""

    attributes: Any = None

    def __setstate__(self, attributes: Any) -> None:
        self.attributes = attributes


class _Unpickler(safe_unpickler.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _Datum if name == "Datum" else super().find_class(module, name)


def read_pickled_items(path: str) -> list[tuple[str, str]]:
    """Return path, on the machine of that run, and class name of the training images in a file.

    Args:
        path: ``preprocessed.pkl`` or ``split_fewshot/shot_<n>-seed_<s>.pkl``.

    Raises:
        SplitError: the file holds anything else.
    """
    try:
        with open(path, "rb") as file:
            return [_item(datum.attributes) for datum in _Unpickler(file).load()["train"]]
    # a damaged or hostile file can make the unpickler fail in any way
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SplitError(
            f"{path} is no list of images as CoOp pickles it ({type(error).__name__}: {reason}): "
            "move it away to have shots drawn"
        ) from error


def _item(attributes: object) -> tuple[str, str]:
    match attributes:
        case {"_impath": str(path), "_classname": str(classname)}:
            return path, classname
        case (None, {"impath": str(path), "classname": str(classname)}):  # by CoOp's code, here
            return path, classname
    raise TypeError("an item has no path and class name")
