"""The log file that mirrors stdout, and progress bars that stay out of it."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from itertools import count
from typing import Any, TextIO

from tqdm import tqdm

from dassl.utils.distributed import is_main
from dassl.utils.files import OutputDirError, mkdir_if_missing, writing
from dassl.utils.interrupts import check_signals


class Logger:
    """A stdout that writes to the terminal, for as long as there is one, and to a file."""

    def __init__(self, terminal: TextIO, file: TextIO) -> None:
        self.terminal = terminal
        self.file = file

    def write(self, text: str) -> int:
        self.record(text)
        with suppress(OSError):  # its window was closed, or it is a pipe that nobody reads
            self.terminal.write(text)
        return len(text)

    def record(self, text: str) -> None:
        """Write to the file alone."""
        with writing(self.file.name):
            self.file.write(text)

    def flush(self) -> None:
        with writing(self.file.name):
            self.file.flush()
        with suppress(OSError):
            self.terminal.flush()

    def close(self) -> None:
        """Close the file; the terminal stays open."""
        with writing(self.file.name):
            self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


def setup_logger(output: str | os.PathLike[str] | None = None) -> None:
    """Mirror stdout into a log file; one that exists is kept, and a time is added to the name.

    Of several processes, the main one has a log file.

    Args:
        output: a folder (for ``log.txt`` in it), a file name ending in .txt or .log, or nothing.

    Raises:
        OutputDirError: the file cannot be created.
    """
    if not output or not is_main():
        return
    path = os.fspath(output)
    if not path.endswith((".txt", ".log")):
        path = os.path.join(path, "log.txt")
    mkdir_if_missing(os.path.dirname(path))
    file = _create(path)
    terminal = sys.stdout
    if isinstance(terminal, Logger):
        terminal.close()
        terminal = terminal.terminal
    sys.stdout = Logger(terminal, file)


@contextmanager
def log_to(output: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Within this context, mirror stdout into ``log.txt`` as :func:`setup_logger` does.

    An exception that leaves it leaves its traceback in the log file.

    Args:
        output: a folder, whatever its name ends in, or nothing.
    """
    terminal = sys.stdout
    setup_logger(output and os.path.join(output, "log.txt"))
    logger = sys.stdout
    try:
        yield
    except BaseException:
        if isinstance(logger, Logger):
            with suppress(OSError):  # a full disk may be the reason
                logger.record(traceback.format_exc())
            with suppress(OSError):
                logger.close()
        raise
    finally:
        sys.stdout = terminal
    if isinstance(logger, Logger):
        logger.close()


def print_anything() -> None:
    """From now on, print letters that the terminal's encoding lacks as ``?``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _create(path: str) -> TextIO:
    stamp = time.strftime("-%Y-%m-%d-%H-%M-%S")
    for attempt in count():
        suffix = "" if attempt == 0 else stamp if attempt == 1 else f"{stamp}-{attempt}"
        try:
            return open(
                path + suffix, "x", buffering=1, encoding="utf-8", errors="backslashreplace"
            )
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputDirError(
                f'Cannot write the log file "{path}" ({error.strerror}): '
                "choose a writable OUTPUT_DIR"
            ) from error
    raise AssertionError("unreachable")


class ProgressBar(tqdm):
    """A bar over batches on stderr if that is a terminal, and log lines on stdout.

    Where both would meet on one terminal, the lines go to the log file only. After each batch,
    signals are taken.
    """

    def __init__(
        self, iterable: Iterable[Any], desc: str | None = None, total: int | None = None
    ) -> None:
        hidden = not (is_main() and sys.stderr.isatty())
        super().__init__(iterable, desc=desc, total=total, disable=hidden, leave=False)

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield batch
            check_signals()

    def log(self, line: str) -> None:
        """Put a line into the log file, and onto stdout unless the bar is shown there."""
        if self.disable or not sys.stdout.isatty():
            print(line)
        elif isinstance(sys.stdout, Logger):
            sys.stdout.record(line + "\n")
