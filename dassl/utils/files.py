"""Files and folders: atomic writes, JSON, YAML."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from dassl.utils.errors import UserError


class OutputDirError(UserError, OSError):
    """A folder that cannot be created or written to."""


def mkdir_if_missing(dirname: str | os.PathLike[str]) -> None:
    """Create a folder and its parents.

    Raises:
        OutputDirError: the folder cannot be created.
    """
    try:
        os.makedirs(dirname or ".", exist_ok=True)
    except OSError as error:
        raise OutputDirError(
            f'Cannot create the folder "{dirname}" ({error.strerror}): choose a writable one'
        ) from error


@contextmanager
def writing(path: str | os.PathLike[str], size: int | None = None) -> Iterator[None]:
    """Turn what the system says while a file is written into an error that says what to do.

    Args:
        path: the file.
        size: bytes to be written, where that is known.

    Raises:
        OutputDirError: for any OSError, such as that of a full disk.
    """
    try:
        yield
    except OSError as error:
        needed = f", {size:,} bytes are needed" if size is not None else ""
        raise OutputDirError(
            f'Cannot write "{os.fspath(path)}" ({error.strerror}{needed}): free space there or '
            "choose a writable folder; what was written before is whole"
        ) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Yield a buffer whose content takes its place at ``path`` once all of it is on disk.

    Args:
        path: where the file goes; missing folders are created.
        mode: "wb" or "w" (UTF-8).

    Raises:
        OutputDirError: the file cannot be written; then nothing is left of it.
    """
    path = Path(path)
    mkdir_if_missing(path.parent)
    buffer = io.BytesIO() if "b" in mode else io.StringIO()
    yield buffer
    value = buffer.getvalue()
    content = value.encode(errors="backslashreplace") if isinstance(value, str) else value
    with writing(path, len(content)):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file to ``target``, atomically."""
    with atomic_write(target) as new:
        new.write(Path(source).read_bytes())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_json(fpath: str | os.PathLike[str]) -> Any:
    """Read a JSON file in UTF-8, with or without a byte-order mark.

    Raises:
        ValueError: it is not JSON, or has a key twice in one object.
    """
    with open(fpath, encoding="utf-8-sig") as file:
        return json.load(file, object_pairs_hook=_with_unique_keys)


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f'the key "{twice}" stands there twice')
    return content


def write_json(obj: Any, fpath: str | os.PathLike[str]) -> None:
    """Write ``obj`` to a JSON file, atomically."""
    text = json.dumps(obj, indent=4)
    # lists of plain values on one line: a matrix stays readable, and a third of the size
    flat = r"\[\n *([^][{}]+?)\n *\]"
    text = re.sub(flat, lambda match: "[" + re.sub(r"\n *", " ", match[1]) + "]", text)
    with atomic_write(fpath, "w") as file:
        file.write(text + "\n")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML takes the last one silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'the key "{key.value}" stands there twice', key.start_mark
                    )
                seen.add(key.value)
        return node


def parse_yaml(text: str, origin: str, loader: Any = _UniqueKeyLoader) -> Any:
    """Return what YAML says, without executing anything that it names.

    A sweep reads the same few files for each of its runs: what a text says is found once.

    Args:
        text: the YAML.
        origin: where it comes from, for messages.
        loader: a class of PyYAML's that is safe.

    Raises:
        UserError: it is not YAML, is nested too deeply, or has a key twice in one mapping.
    """
    try:
        return copy.deepcopy(_parse_once(text, loader))
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{origin} is not valid YAML: {problem}") from error
    except RecursionError:
        raise UserError(f"{origin} is nested too deeply for a configuration") from None


@functools.lru_cache(maxsize=256)
def _parse_once(text: str, loader: Any) -> Any:
    return yaml.load(text, loader)


def check_isfile(fpath: str | os.PathLike[str]) -> bool:
    """Return whether ``fpath`` is a file, and warn when it is not."""
    exists = os.path.isfile(fpath)
    if not exists:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return exists


def is_utf8(name: str) -> bool:
    """Return whether UTF-8 can store a name; it cannot where the file system's bytes are others."""
    return name.encode(errors="ignore").decode() == name


def listdir_nohidden(path: str | os.PathLike[str], sort: bool = False) -> list[str]:
    """List the non-hidden entries of a folder."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names
