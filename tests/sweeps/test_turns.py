"""Functions that take turns: each one as if it were alone in the process."""

import contextlib
import io
import random
import warnings

import numpy as np
import pytest
import torch

from sweeps.turns import Turns


def draw():
    return random.random(), np.random.random(), torch.rand(()).item()


def program(number, meet, log):
    """Seeds, draws, prints and meets as often as its number says."""

    def run():
        torch.manual_seed(number)
        np.random.seed(number)
        random.seed(number)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("error" if number % 2 else "ignore")
            for _ in range(number):
                print(draw())
                assert meet((number, 1)) == number + 1
                if number % 2:
                    with pytest.raises(UserWarning):
                        warnings.warn("an error here alone", stacklevel=1)
                else:
                    warnings.warn("nothing here", stacklevel=1)
            print(draw())
        log[number] = out.getvalue()

    return run


def test_each_function_sees_a_process_of_its_own():
    together, alone, rounds = {}, {}, []

    def answer(requests):
        rounds.append([number for number, _ in requests])
        return [sum(request) for request in requests]

    state, filters = torch.get_rng_state(), warnings.filters
    turns = Turns(answer)
    turns.run([program(number, turns.meet, together) for number in (3, 1, 2)])
    assert torch.equal(torch.get_rng_state(), state) and warnings.filters is filters
    assert rounds == [[3, 1, 2], [3, 2], [3]]
    for number in (1, 2, 3):
        program(number, sum, alone)()
    assert together == alone


def test_an_answer_that_is_an_error_is_raised_where_it_was_asked_for():
    log = []

    def ask(turns, number):
        try:
            log.append(turns.meet(number))
        except ValueError as error:
            log.append(str(error))

    turns = Turns(lambda numbers: [n if n else ValueError("zero") for n in numbers])
    turns.run([lambda n=n: ask(turns, n) for n in (1, 0, 2)])
    assert log == [1, "zero", 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_ends_all_and_each_tidies_up(error, failing):
    log = []
    turns = Turns(list)

    def run(number):
        try:
            turns.meet(number)
            if number == failing:
                raise error
            turns.meet(number)
        finally:
            with contextlib.suppress(error):
                turns.meet(number)
            log.append(number)

    with pytest.raises(error):
        turns.run([lambda n=n: run(n) for n in range(3)])
    assert sorted(log) == [0, 1, 2]


def test_what_has_not_begun_does_not_begin():
    begun = []

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Turns(list).run([fail, lambda: begun.append(1)])
    assert not begun


def test_an_error_of_the_answer_ends_all():
    log = []

    def answer(requests):
        raise ValueError("nothing to say")

    def run():
        try:
            turns.meet(1)
        finally:
            log.append(1)

    turns = Turns(answer)
    with pytest.raises(ValueError, match="nothing to say"):
        turns.run([run, run])
    assert log == [1, 1]
