"""Steps of several runs: one run after the other, and together as in a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from benchmarks.measure import Row, compare
from benchmarks.steps import builder, prepare, random_batch
from dassl.utils import Cache
from sweeps.turns import Turns
from trainers.base import MEETING
from trainers.together import gradients_together

SECTION = "Runs that train together"
RUNS = (1, 3, 12, 36)
SEEDS = 3  # runs with one seed see the same images
BITS = (1, 2, 4, 8)


def measure(backbone: str, names: Sequence[str], folder: Path, precision: str) -> Iterator[Row]:
    """Yield a row for each number of runs of QCoOp.

    Args:
        backbone, names, folder, precision: as for :func:`benchmarks.steps.measure`.
    """
    build = builder(backbone, names, folder, precision)
    trainers = [
        build("QCoOp", "TRAINER.QPROMPT.BITS", bits) for bits in islice(cycle(BITS), max(RUNS))
    ]
    for trainer in trainers:
        prepare(trainer)
    batches = list(islice(cycle([random_batch(trainers[0]) for _ in range(SEEDS)]), max(RUNS)))
    turns = Turns(gradients_together)
    cache: Cache = {MEETING: turns.meet}

    def step(runs: int, cache: Cache | None) -> None:
        pairs = list(zip(trainers[:runs], batches, strict=False))
        for trainer, _ in pairs:
            trainer.cache = cache
        steps = [partial(trainer.forward_backward, batch) for trainer, batch in pairs]
        if cache is None:
            for one in steps:
                one()
        else:
            trainers[0].known_features.clear()  # each step of a sweep has new images
            turns.run(steps)

    for runs in RUNS:
        sides = {"alone": partial(step, runs, None), "together": partial(step, runs, cache)}
        measured, _ = compare(sides, seconds=240)
        each = {name: side.median / runs for name, side in measured.items()}
        note = "seconds a step of one run: " + ", ".join(f"{n} {s:.3g}" for n, s in each.items())
        what = f"{runs} runs of QCoOp, {min(runs, SEEDS)} seeds, {len(names)} classes, {precision}"
        yield Row(SECTION, what, measured, note, {f"{n}_run_step": s for n, s in each.items()})
