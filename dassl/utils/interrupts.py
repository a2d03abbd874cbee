"""Ctrl-C and requests to terminate, taken between batches.

An exception that a signal raises at any instruction can leave a lock of a thread pool or of a queue
held for ever, and the end of the process then waits for it. So a signal that comes while a loop
over batches runs waits for :func:`check_signals`. Elsewhere it raises at once; where Python drops
that exception, as in callbacks of weak references, the next check raises again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torch.distributed import is_torchelastic_launched

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interrupted(KeyboardInterrupt):
    """A signal that asks this process to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    came: int | None = None  # the first signal
    deferred = 0  # depth of the contexts in which signals wait


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """End the process with one line and the exit code 128 + signal when one of SIGNALS comes.

    The same signal again ends it at once. What was ignored, as by nohup, stays ignored.
    """
    _State.deferred = 0  # a forked process has that of its parent
    previous = {}
    # torchrun ends its processes itself, and one that takes its time would keep the others waiting
    if threading.current_thread() is threading.main_thread() and not is_torchelastic_launched():
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, _take)
    try:
        yield
    except KeyboardInterrupt as error:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(128 + getattr(error, "number", signal.SIGINT))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _State.came = None


@contextmanager
def defer_signals() -> Iterator[None]:
    """Within this context, signals wait for :func:`check_signals` or the end of it."""
    check_signals()
    _State.deferred += 1
    try:
        yield
    finally:
        _State.deferred -= 1
    check_signals()


def check_signals() -> None:
    """Raise Interrupted if a signal came."""
    if _State.came is not None:
        raise Interrupted(_State.came)


def _take(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    if _State.came is None:
        _State.came = number
        if not _State.deferred:
            raise Interrupted(number)
