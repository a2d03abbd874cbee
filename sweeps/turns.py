"""Functions that take turns in one process, each as if it were alone there.

A function has its turn until it ends or waits in :meth:`Turns.meet`. When all wait that have not
ended, what they handed over is answered at once, and the round begins again. Each function is a
greenlet: it keeps its own stack, but all share one thread, so nothing needs a lock and torch keeps
its threads. What belongs to the process (stdout, filters of warnings, random generators) is in each
turn what it was in the last turn of the same function.
"""

from __future__ import annotations

import contextlib
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import numpy as np
import torch
from greenlet import getcurrent, greenlet

from dassl.utils import check_signals, defer_signals


class Turns:
    """Runs functions in turn.

    Args:
        answer: maps what the waiting functions handed over, in their order, to as many answers; an
            exception among these is raised where the function waits.
    """

    def __init__(self, answer: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._answer = answer

    def meet(self, request: Any) -> Any:
        """Hand over a request and wait for the answer; one of the functions calls this."""
        answer = getcurrent().parent.switch(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @defer_signals()  # they are taken in the turn of a function, or between two turns
    def run(self, functions: Sequence[Callable[[], None]]) -> None:
        """Return when all functions have ended.

        An exception of one function ends all others, which wait, by the same exception.
        """
        outside = _ProcessState()
        turns = [_Turn(function) for function in functions]
        answers: Sequence[Any] = [()] * len(turns)
        try:
            while turns:
                requests = []
                for turn, answer in zip(turns, answers, strict=True):
                    requests.append(turn.take(answer))
                    check_signals()
                waiting = [not turn.dead for turn in turns]
                turns = list(compress(turns, waiting))
                answers = self._answer(list(compress(requests, waiting))) if turns else ()
        except BaseException as error:
            for turn in turns:
                turn.cancel(error)
            raise
        finally:
            outside.restore()


class _Turn(greenlet):
    """One function's stack, and the process as it saw it last."""

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__(function)
        self._state = _ProcessState()

    def take(self, answer: Any) -> Any:
        """Let the function begin, or go on with an answer; return its next request."""
        return self._go(lambda: self.switch(answer) if self else self.switch())

    def cancel(self, error: BaseException) -> None:
        """Let the function end by an error, if it has begun."""
        while self:
            with contextlib.suppress(BaseException):
                self._go(lambda: self.throw(error))

    def _go(self, switch: Callable[[], Any]) -> Any:
        self._state.restore()
        try:
            return switch()
        finally:
            self._state = _ProcessState()


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
