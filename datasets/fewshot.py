"""Few-shot sampling and the base/new halves, as pure functions of their arguments."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence

from dassl.data.datasets import Datum
from dassl.utils import UserError, check_choice

SUBSAMPLES = ("all", "base", "new")
MAX_VAL_SHOTS = 4


class FewerImagesThanShots(UserWarning):
    """A class has fewer images than the shots asked for, so all of them are used."""


def few_shot(
    train: Sequence[Datum], val: Sequence[Datum], shots: int, seed: int
) -> tuple[list[Datum], list[Datum]]:
    """Keep ``shots`` training and ``min(shots, 4)`` validation images of each class.

    One random stream runs over train and then over val, class by class in order of first
    appearance; with the published split files this gives the subsets of CoOp's published results
    (Zhou et al., IJCV 2022, Section 4.1).

    Args:
        train, val: items of the full split, in its order.
        shots: images per class; below 1 keeps everything.
        seed: seed of the stream; a negative one means unseeded.
    """
    if shots < 1:
        return list(train), list(val)
    rng = random.Random(seed if seed >= 0 else None)
    return (
        _sample(train, shots, rng, "training"),
        _sample(val, min(shots, MAX_VAL_SHOTS), rng, "validation"),
    )


def _sample(items: Sequence[Datum], shots: int, rng: random.Random, kind: str) -> list[Datum]:
    by_label: dict[int, list[Datum]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    short = [own for own in by_label.values() if len(own) < shots]
    if short:
        counts = ", ".join(f"{own[0].classname!r} has {len(own)}" for own in short[:5])
        more = f" and {len(short) - 5} more classes" if len(short) > 5 else ""
        warnings.warn(
            f"fewer {kind} images than {shots} shots: {counts}{more}; all of them are used",
            FewerImagesThanShots,
            stacklevel=3,
        )
    return [
        item
        for own in by_label.values()
        for item in (rng.sample(own, shots) if len(own) >= shots else own)
    ]


def subsample_classes(splits: Sequence[Sequence[Datum]], which: str) -> list[list[Datum]]:
    """Keep the base classes, the new classes or all, and relabel what is kept to 0..n-1.

    Base is the first half (rounded up) of the sorted labels of ``splits[0]``, new the rest
    (Zhou et al., "Conditional Prompt Learning", CVPR 2022, Section 4.1).

    Raises:
        UserError: ``which`` is not all, base or new, or the half holds no class.
    """
    check_choice("DATASET.SUBSAMPLE_CLASSES", which, SUBSAMPLES)
    if which == "all":
        return [list(split) for split in splits]
    labels = sorted({item.label for item in splits[0]})
    half = math.ceil(len(labels) / 2)
    kept = labels[:half] if which == "base" else labels[half:]
    if not kept:
        raise UserError(
            f"there is no {which} class among {len(labels)}: base and new need two classes or more"
        )
    relabel = {old: new for new, old in enumerate(kept)}
    return [
        [
            Datum(item.impath, relabel[item.label], item.domain, item.classname)
            for item in split
            if item.label in relabel
        ]
        for split in splits
    ]
