"""Functions that take turns in one process, each as if it were alone there.

A function has its turn until it ends or waits in :meth:`Turns.meet`. When all wait that have not
ended, what they handed over is answered at once, and the round begins again. Each function has a
thread, but only one of them runs at a time, so nothing needs a lock. What belongs to the process
(stdout, filters of warnings, random generators) is in each turn what it was in the last turn of the
same function.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dassl.utils import check_signals, defer_signals


class Turns:
    """Runs functions in turn.

    Args:
        answer: maps what the waiting functions handed over, in their order, to as many answers; an
            exception among these is raised where the function waits.
    """

    _turn: _Turn

    def __init__(self, answer: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._answer = answer

    def meet(self, request: Any) -> Any:
        """Hand over a request and wait for the answer; one of the functions calls this."""
        return self._turn.wait(request)

    @defer_signals()  # they are taken in the turn of a function, or between two turns
    def run(self, functions: Sequence[Callable[[], None]]) -> None:
        """Return when all functions have ended.

        An exception of one function ends all others, which wait, by the same exception.
        """
        outside = _ProcessState()
        turns = [_Turn(function) for function in functions]
        try:
            while True:
                for self._turn in turns:
                    self._turn.take()
                    check_signals()
                turns = [turn for turn in turns if not turn.ended]
                if not turns:
                    return
                answers = self._answer([turn.request for turn in turns])
                for turn, answer in zip(turns, answers, strict=True):
                    turn.answer = answer
        except BaseException as error:
            for self._turn in turns:
                self._turn.cancel(error)
            raise
        finally:
            outside.restore()


class _Turn:
    """One function's thread, which runs while another one waits in :meth:`take`."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.request: Any = None
        self.answer: Any = None
        self.ended = False
        self._function = function
        self._error: BaseException | None = None
        self._state = _ProcessState()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._mine, self._over = threading.Semaphore(0), threading.Semaphore(0)

    def take(self) -> None:
        """Let the function go on until it waits or ends; raise what it raises."""
        self._state.restore()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._mine.release()
        self._over.acquire()
        self._state = _ProcessState()
        if self._error is not None:
            raise self._error

    def wait(self, request: Any) -> Any:
        """End the turn, and return the answer when the next one begins."""
        self.request = request
        self._over.release()
        self._mine.acquire()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def cancel(self, error: BaseException) -> None:
        """Let the function end by an error, if it has begun."""
        while self._thread.ident is not None and not self.ended:
            self.answer = error
            with contextlib.suppress(BaseException):
                self.take()

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:
            self._error = error
        self.ended = True
        self._over.release()


class _ProcessState:
    """What belongs to the process, as it is now."""

    def __init__(self) -> None:
        self._stdout, self._filters = sys.stdout, warnings.filters
        self._python, self._numpy = random.getstate(), np.random.get_state(legacy=False)
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore(self) -> None:
        sys.stdout, warnings.filters = self._stdout, self._filters
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        for device, state in enumerate(self._cuda):
            torch.cuda.set_rng_state(state, device)
