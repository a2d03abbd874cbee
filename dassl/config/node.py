"""A yacs node whose errors say which key was meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yacs.config import CfgNode as YacsNode
from yacs.config import _check_and_coerce_cfg_value_type as coerce

from dassl.utils import UserError, parse_yaml, short_repr
from dassl.utils.registry import nearest

BASE_KEY = "_BASE_"


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
        self._merge_file(os.fspath(cfg_filename), ())

    def _merge_file(self, path: str, built_on_it: tuple[str, ...]) -> None:
        origin = f'the file "{path}"'
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{origin} is no regular file: give a YAML file")
        if os.path.realpath(path) in built_on_it:
            raise UserError(f"{origin} builds on itself: correct its key {BASE_KEY}")
        with open(path, encoding="utf-8-sig") as file:
            try:
                # not yacs's load_cfg, which runs a file whose name ends in .py
                content = parse_yaml(file.read(), origin)
            except UnicodeDecodeError as error:
                raise UserError(f"{origin} is not UTF-8 ({error}): save it as that") from error
        if not isinstance(content, dict | None):
            raise UserError(f"{origin} holds no keys and values, but {short_repr(content)}")
        other = dict(content or {})
        base = other.pop(BASE_KEY, None)
        if base is not None:
            if not isinstance(base, str) or not base:
                raise UserError(f"{BASE_KEY} in {origin} must name a file, got {short_repr(base)}")
            above = (*built_on_it, os.path.realpath(path))
            self._merge_file(os.path.join(os.path.dirname(path), base), above)
        self._merge(_leaves(other), origin)

    def merge_from_other_cfg(self, cfg_other: YacsNode) -> None:
        """Merge another tree; raises as :meth:`merge_from_file`."""
        self._merge(_leaves(cfg_other), "the other configuration")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge KEY VALUE pairs, e.g. from the command line; raises as :meth:`merge_from_file`."""
        if len(cfg_list) % 2:
            raise UserError(
                f'Options come as KEY VALUE pairs, but the last one has no value: "{cfg_list[-1]}"'
            )
        self._merge(zip(cfg_list[0::2], cfg_list[1::2], strict=True), "the options")

    def _merge(self, pairs: Any, origin: str) -> None:
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
            value = self._decode_cfg_value(value)
            if key in node:
                value = _coerce(value, node[key], full_key, origin)
            setattr(node, key, value)

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
    try:
        return coerce(value, default, full_key, full_key)
    except ValueError:
        raise UserError(
            f'"{full_key}" in {origin} must be a {type(default).__name__} (default: {default!r}), '
            f"got the {type(value).__name__} {short_repr(value)}"
        ) from None


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
