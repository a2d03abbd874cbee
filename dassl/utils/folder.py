"""The folder of a run: one process holds it, and what killed processes left in it goes."""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dassl.utils.distributed import is_main
from dassl.utils.errors import UserError
from dassl.utils.files import OutputDirError, mkdir_if_missing, writing

LOCK = ".lock"

# what atomic_write and qprompt.pack call a file of a run while they write it
_UNFINISHED = re.compile(
    r"\.(config\.json|results.*\.json|error\.txt|checkpoint|model.*\.pth\.tar.*)\.\w{8}"
    r"|prompt.*\.safetensors\.\d+\.tmp"
)

_held: set[Path] = set()  # by this process


class FolderInUseError(UserError, RuntimeError):
    """A folder that another process holds."""


class NoLocksError(OutputDirError):
    """A folder on a file system without locks."""


@contextmanager
def hold(folder: str | os.PathLike[str] | None, required: bool = True) -> Iterator[None]:
    """Keep other processes off a folder within this context; a process that dies lets go of it.

    Files that dead processes had begun to write there, or in the folders of models below it, are
    removed. What this process holds already, it may hold again. Of several processes that train
    together, the main one holds it.

    Args:
        folder: it is created if it is missing; nothing: do nothing.
        required: else a file system without locks is no error, but a warning.

    Raises:
        FolderInUseError: another process holds it; the message names that one.
        OutputDirError: the folder cannot be written to.
        NoLocksError: its file system has no locks.
    """
    path = Path(folder or "", LOCK).resolve()
    if not folder or not is_main() or path in _held:
        yield
        return
    mkdir_if_missing(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(path))
        except NoLocksError as error:
            if required:
                raise
            warnings.warn(f"{error}, or start nothing else in this one", stacklevel=2)
        else:
            _remove_unfinished(path.parent)
        _held.add(path)
        stack.callback(_held.remove, path)
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows
        from filelock import FileLock, Timeout

        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(path, timeout=0))
            except Timeout:
                raise _in_use(path, "another process") from None
            yield
        return
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise OutputDirError(
            f'Cannot write to the folder "{path.parent}" ({error.strerror}): choose a writable one'
        ) from error
    with file:
        try:
            # not flock, as filelock does: loader workers of a killed process keep it for seconds
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise _in_use(path, file.read().strip() or "another process") from None
        except OSError as error:
            raise NoLocksError(
                f'Cannot lock "{path}" ({error.strerror}): choose an output folder on a file '
                "system with locks"
            ) from error
        holder = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
        with writing(path, len(holder)):
            file.truncate(0)
            os.write(file.fileno(), holder)  # not by a buffer, which closing would write again
        yield


def _in_use(path: Path, holder: str) -> FolderInUseError:
    return FolderInUseError(
        f'"{path.parent}" is in use by {holder}: wait for it, or choose another OUTPUT_DIR'
    )


def _remove_unfinished(folder: Path) -> None:
    for path in [*folder.iterdir(), *folder.glob("*/*")]:
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
