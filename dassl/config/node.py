"""A yacs node whose errors say which key was meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import yaml
from yacs.config import CfgNode as YacsNode

from dassl.config.limits import check_value
from dassl.utils import UserError, parse_yaml, short_repr
from dassl.utils.registry import nearest

BASE_KEY = "_BASE_"
COMMAND_LINE = "the command line"


class UnknownConfigKeyError(UserError, KeyError):
    """A configuration key that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class CfgNode(YacsNode):
    """A configuration tree; merging an unknown key raises and names the nearest known key."""

    def merge_from_file(self, cfg_filename: str | os.PathLike[str]) -> None:
        """Merge a YAML file, after the file that its key ``_BASE_`` names (relative to it), if any.

        Raises:
            UnknownConfigKeyError: the file has a key that the tree has not.
            UserError: a value is of another type than the default, or the file is not YAML.
        """
        self._merge_file(os.path.expanduser(cfg_filename), ())

    def _merge_file(self, path: str, built_on_it: tuple[str, ...]) -> None:
        origin = f'the file "{path}"'
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{origin} is no regular file: give a YAML file")
        if os.path.realpath(path) in built_on_it:
            raise UserError(f"{origin} builds on itself: correct its key {BASE_KEY}")
        with open(path, encoding="utf-8-sig") as file:
            try:
                text = file.read()
            except UnicodeDecodeError as error:
                raise UserError(f"{origin} is not UTF-8 ({error}): save it as that") from error
        content = parse_yaml(text, origin)  # not yacs's load_cfg, which runs a file named .py
        if not isinstance(content, dict | None):
            raise UserError(f"{origin} holds no keys and values, but {short_repr(content)}")
        other = dict(content or {})
        base = other.pop(BASE_KEY, None)
        if base is not None:
            if not isinstance(base, str) or not base:
                raise UserError(f"{BASE_KEY} in {origin} must name a file, got {short_repr(base)}")
            above = (*built_on_it, os.path.realpath(path))
            base = os.path.join(os.path.dirname(path), os.path.expanduser(base))
            self._merge_file(base, above)
        written = parse_yaml(text, origin, yaml.BaseLoader)  # all scalars as they stand there
        self._merge(_leaves(other), origin, written)

    def merge_from_other_cfg(self, cfg_other: YacsNode) -> None:
        """Merge another tree; raises as :meth:`merge_from_file`."""
        self._merge(_leaves(cfg_other), "the other configuration")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge KEY VALUE pairs of the command line; raises as :meth:`merge_from_file`."""
        if len(cfg_list) % 2:
            raise UserError(
                f'Options come as KEY VALUE pairs, but the last one has no value: "{cfg_list[-1]}"'
            )
        self._merge(zip(cfg_list[0::2], cfg_list[1::2], strict=True), COMMAND_LINE)

    def merge_from_flags(self, flags: Mapping[str, Any]) -> None:
        """Merge values of flags as they are given; raises as :meth:`merge_from_file`."""
        self._merge(flags.items(), COMMAND_LINE, decode=False)

    def _merge(self, pairs: Any, origin: str, written: Any = None, decode: bool = True) -> None:
        """Merge pairs of a key and a value.

        Args:
            pairs: the pairs.
            origin: where they stand, for messages.
            written: nested dicts of the texts that YAML made the values of.
            decode: whether a text may be a number, a tuple and so on in Python's notation.
        """
        for full_key, value in pairs:
            *parents, key = full_key.split(".")
            node: Any = self
            for parent in parents:
                if parent not in node and node.is_new_allowed():
                    setattr(node, parent, CfgNode(new_allowed=True))
                node = node.get(parent) if isinstance(node, YacsNode) else None
                if not isinstance(node, YacsNode):
                    raise self._unknown(full_key, origin)
            if key not in node and not node.is_new_allowed():
                raise self._unknown(full_key, origin)
            if value == {} and isinstance(node.get(key), YacsNode):
                continue
            default = node.get(key)
            if isinstance(default, str) and not isinstance(value, str | None):
                value = _look_up(written, full_key) or value
            if decode:
                value = self._decode(value, isinstance(default, str))
            if key in node:
                value = check_value(_coerce(value, default, full_key, origin), full_key, origin)
            setattr(node, key, value)

    def _decode(self, value: Any, as_text: bool) -> Any:
        try:
            decoded = self._decode_cfg_value(value)
        except (MemoryError, RecursionError, TypeError):  # a text that is no literal either
            return value
        # "10" stays a text where one is wanted, and loses quotes of its own
        is_other = as_text and isinstance(value, str) and not isinstance(decoded, str | None)
        return value if is_other else decoded

    def _unknown(self, full_key: str, origin: str) -> UnknownConfigKeyError:
        close = nearest(full_key, (key for key, _ in _leaves(self)))
        hint = f'; did you mean "{close}"?' if close else ""
        return UnknownConfigKeyError(f'Unknown config key "{full_key}" in {origin}{hint}')


def _coerce(value: Any, default: Any, full_key: str, origin: str) -> Any:
    if isinstance(default, YacsNode):
        raise UserError(
            f'"{full_key}" in {origin} is a section and takes no value: {short_repr(value)}'
        )
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        numbers = [x for x in default if isinstance(x, Real)]
        if numbers and (wrong := [x for x in value if not isinstance(x, Real)]):
            raise UserError(
                f'"{full_key}" in {origin} must hold numbers (default: {default!r}), '
                f"got {short_repr(wrong[0])}"
            )
        return type(default)(value)
    if type(value) is type(default) or default is None:
        return value
    got = "None" if value is None else f"the {type(value).__name__} {short_repr(value)}"
    raise UserError(
        f'"{full_key}" in {origin} must be a {type(default).__name__} (default: {default!r}), '
        f"got {got}"
    )


def _look_up(tree: Any, full_key: str) -> str | None:
    """Return the text of a key in nested dicts, or None."""
    for key in full_key.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, str) else None


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
